"""Under a table: what should make its reader doubt it."""

import math
from typing import Any

from distill_jax.data.coverage import WARNED
from distill_jax.data.table import SPLITS
from distill_jax.tables import columns, names
from distill_jax.tables.columns import Column
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.table import Table, TableRow

ACCURACY, MAJORITY = "check/accuracy", "check/majority"
"""Among a teacher's metrics: on validation, its own and that of always saying one class."""
ON_LABELS, MAJORITY_ON_LABELS = "check/train_accuracy", "check/train_majority"
REORDERED = "check/reordered"
"""With its classes in a better order, where there is one; on the labelled rows that were asked."""
_SAID = {
    "cut": "texts are longer than the maximal length and were cut",
    "unknown": "tokens are unknown to the vocabulary ([UNK])",
}


def identical_rows(table: Table) -> list[list[TableRow]]:
    """Rows of one group whose runs had the same test examples right, seed for seed.

    Only runs that kept what they said of each test example are compared. Rows that share the very
    same runs are one row under two names, and are left out.
    """
    alike: dict[Any, list[TableRow]] = {}
    for row in table.students:
        said = {seed: _said(run) for seed, run in row.runs.items()}
        if said and all(said.values()):
            alike.setdefault((row.group, tuple(sorted(said.items()))), []).append(row)
    return [
        rows
        for rows in alike.values()
        if len({tuple(run.hash for run in row.runs.values()) for row in rows}) > 1
    ]


def notes_of_identical(table: Table) -> list[str]:
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


def notes_of_coverage(table: Table) -> list[str]:
    """A footnote for texts that were cut, one for unknown tokens, each from 5% of a split on."""
    runs = [run.metrics for row in table.rows for run in row.runs.values()]
    notes = []
    for name, said in _SAID.items():
        shares = {
            s: max((run.get(f"{s}/{name}", 0.0) for run in runs), default=0.0) for s in SPLITS
        }
        split, share = max(shares.items(), key=lambda item: item[1])
        if share >= WARNED:
            notes.append(f"{100 * share:.0f}% of the {split} {said}.")
    return notes


def notes_of_teachers(table: Table) -> list[str]:
    """A footnote for each teacher that failed the check before training, see ``teacher_check``."""
    notes = []
    for row in table.teachers:
        found = [run.metrics for run in row.runs.values() if ACCURACY in run.metrics]
        poor = [m for m in found if not m[ACCURACY] > m[MAJORITY]]
        mixed = [m for m in found if REORDERED in m]
        whose = f"{row.group} `{row.row}`"
        if poor:
            worst = min(poor, key=lambda metrics: metrics[ACCURACY])
            notes.append(
                f"{whose} is no better on validation than always saying the commonest class: "
                f"{100 * worst[ACCURACY]:.1f}% beside {100 * worst[MAJORITY]:.1f}%."
            )
        if mixed:
            most = max(metrics[REORDERED] for metrics in mixed)
            notes.append(
                f"{whose}: its classes seem to be in another order than the data's; so ordered it "
                f"would be right in {100 * most:.1f}% of the labelled rows."
            )
    return notes


def notes_of_yardsticks(table: Table) -> list[str]:
    """Footnotes on rows at or below a yardstick in test accuracy, on yardsticks that were fitted
    to a part of the labels, and on rows that predict one class alone."""
    notes = []
    for yardstick in table.yardsticks:
        for column in table.columns:
            if column.key == columns.ACCURACY.key:
                notes += _below(table, yardstick, column)
        notes += _thinned(yardstick)
    for row in table.rows:
        notes += _constant(row)
    return notes


def not_above(row: TableRow, yardstick: TableRow, column: Column) -> bool:
    """Whether a row's mean in a column is that of a yardstick or worse."""
    ours, theirs = (each.entries[column.key].summary.mean for each in (row, yardstick))
    if column.higher_is_better is None or not math.isfinite(ours) or not math.isfinite(theirs):
        return False
    return ours <= theirs if column.higher_is_better else ours >= theirs


def named_row(row: TableRow) -> str:
    """A row for people: `` `kl` (tiny)``."""
    return f"`{row.row}` ({row.group})" if row.group else f"`{row.row}`"


def _below(table: Table, yardstick: TableRow, column: Column) -> list[str]:
    rows = [row for row in (*table.teachers, *table.students) if not_above(row, yardstick, column)]
    if not rows:
        return []
    mean = column.scale * yardstick.entries[column.key].summary.mean
    return [
        f"Not above the yardstick `{yardstick.row}` ({mean:.{column.decimals}f}) in mean test "
        f"accuracy: {', '.join(map(named_row, rows))}."
    ]


def _thinned(yardstick: TableRow) -> list[str]:
    for run in yardstick.runs.values():
        used, there = (run.number(f"train/{name}") for name in names.USED)
        if used is not None and there is not None and used < there:
            said = f"`{yardstick.row}` was fitted to {used:,} of {there:,} labelled examples."
            return [said]
    return []


def _constant(row: TableRow) -> list[str]:
    """Of a row some of whose runs give every test example the same class."""
    constant = sum(run.number(names.CLASSES) == 1 for run in row.runs.values())
    if not constant or (row.row.startswith(names.MAJORITY) and row.role == "yardstick"):
        return []
    runs = f"{len(row.runs)} run{'s' * (len(row.runs) > 1)}"
    return [f"{named_row(row)}: predicts one class for every test example in {constant} of {runs}."]
