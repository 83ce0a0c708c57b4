"""Under a table: who does not beat a yardstick, and who answers everything alike."""

import math
from typing import TYPE_CHECKING

from distill_jax.tables.columns import ACCURACY, Column
from distill_jax.tables.yardstick_names import CLASSES, MAJORITY, USED

if TYPE_CHECKING:
    from distill_jax.tables.table import Table, TableRow


def notes_of_yardsticks(table: "Table") -> list[str]:
    """Footnotes on rows at or below a yardstick in test accuracy, on yardsticks that were fitted
    to a part of the labels, and on rows that predict one class alone."""
    notes = []
    for yardstick in table.yardsticks:
        for column in table.columns:
            if column.key == ACCURACY.key:
                notes += _below(table, yardstick, column)
        notes += _thinned(yardstick)
    for row in table.rows:
        notes += _constant(row)
    return notes


def not_above(row: "TableRow", yardstick: "TableRow", column: Column) -> bool:
    """Whether a row's mean in a column is that of a yardstick or worse."""
    ours, theirs = (each.entries[column.key].summary.mean for each in (row, yardstick))
    if column.higher_is_better is None or not math.isfinite(ours) or not math.isfinite(theirs):
        return False
    return ours <= theirs if column.higher_is_better else ours >= theirs


def named_row(row: "TableRow") -> str:
    """A row for people: `` `kl` (tiny)``."""
    return f"`{row.row}` ({row.group})" if row.group else f"`{row.row}`"


def _below(table: "Table", yardstick: "TableRow", column: Column) -> list[str]:
    rows = [row for row in (*table.teachers, *table.students) if not_above(row, yardstick, column)]
    if not rows:
        return []
    mean = column.scale * yardstick.entries[column.key].summary.mean
    return [
        f"Not above the yardstick `{yardstick.row}` ({mean:.{column.decimals}f}) in mean test "
        f"accuracy: {', '.join(map(named_row, rows))}."
    ]


def _thinned(yardstick: "TableRow") -> list[str]:
    for run in yardstick.runs.values():
        used, there = (run.number(f"train/{name}") for name in USED)
        if used is not None and there is not None and used < there:
            said = f"`{yardstick.row}` was fitted to {used:,} of {there:,} labelled examples."
            return [said]
    return []


def _constant(row: "TableRow") -> list[str]:
    """Of a row some of whose runs give every test example the same class."""
    constant = sum(run.number(CLASSES) == 1 for run in row.runs.values())
    if not constant or (row.row.startswith(MAJORITY) and row.role == "yardstick"):
        return []
    runs = f"{len(row.runs)} run{'s' * (len(row.runs) > 1)}"
    return [f"{named_row(row)}: predicts one class for every test example in {constant} of {runs}."]
