"""From the ledger's rows to tables, tests, figures and reports."""
