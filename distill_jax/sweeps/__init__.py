"""Many runs as one table: the ledger, statistics over seeds, tables and figures."""
