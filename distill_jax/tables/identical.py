"""Rows of a table that nothing tells apart: what differs between them does nothing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from distill_jax.tables.ledger import LedgerRow

if TYPE_CHECKING:
    from distill_jax.tables.table import Table, TableRow


def identical_rows(table: "Table") -> list[list["TableRow"]]:
    """Rows of one group whose runs had the same test examples right, seed for seed.

    Only runs that kept what they said of each test example are compared. Rows that share the very
    same runs are one row under two names, and are left out.
    """
    alike: dict[Any, list[TableRow]] = {}
    for row in table.students:
        said = {seed: _said(run) for seed, run in row.runs.items()}
        if said and all(said.values()):
            alike.setdefault((row.group, tuple(sorted(said.items()))), []).append(row)
    return [rows for rows in alike.values() if len({_hashes(row.runs) for row in rows}) > 1]


def notes_of_identical(table: "Table") -> list[str]:
    """A warning for each set of such rows."""
    notes = []
    for rows in identical_rows(table):
        names = " and ".join(f"`{row.row}`" for row in rows)
        count = len(rows[0].runs)
        seeds = f"all {count} seeds" if count > 1 else "the one seed"
        notes.append(
            f"{names} of {rows[0].group} have the same test examples right in {seeds}: what "
            "differs between them does nothing at these settings."
        )
    return notes


def _said(run: LedgerRow) -> str:
    """Of each test example, as text; "" where nobody kept it."""
    if run.test_correct is not None:
        return run.test_correct
    return repr(sorted(run.test_scores.items())) if run.test_scores else ""


def _hashes(runs: Mapping[int, LedgerRow]) -> tuple[str, ...]:
    return tuple(run.hash for run in runs.values())
