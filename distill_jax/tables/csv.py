"""A table as CSV: raw numbers, unscaled and unrounded."""

import csv
import io
from dataclasses import astuple

from distill_jax.tables.significance import reference
from distill_jax.tables.table import KINDS, Table, Tests

_TEST_FIELDS = ("n", "difference", "ci95_low", "ci95_high", "p_raw", "p_holm")
FIELDS = (
    *("group", "row", "role", "metric", "n", "mean", "sd", "ci95_low", "ci95_high", "against"),
    *(f"{kind}_{name}" for kind in KINDS for name in _TEST_FIELDS),
    *("joint_se", "joint_df", "letters"),
)


def to_csv(table: Table) -> str:
    """A line for each row and column of the table."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in table.rows:
        for column in table.columns:
            entry = row.entries[column.key]
            other = reference(table, row, column.key) if entry.tests else None
            cells = [*astuple(entry.summary), other and other.row, *_numbers(entry.tests)]
            blank = ["" if x is None or x != x else x for x in cells]
            writer.writerow([row.group, row.row, row.role, column.key, *blank, entry.letters])
    return out.getvalue()


def _numbers(tests: Tests | None) -> list[float | None]:
    """The numbers of the three tests, in the order of ``FIELDS``."""
    numbers: list[float | None] = []
    for kind in KINDS:
        test = getattr(tests, kind) if tests else None
        found = [test.n, test.difference, test.low, test.high, test.p] if test else [None] * 5
        numbers += [*found, getattr(tests, f"p_{kind}") if test else None]
    joint = tests.joint if tests else None
    return [*numbers, *([joint.se, joint.df] if joint else [None, None])]
