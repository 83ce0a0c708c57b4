"""Under a table: that its teacher knew no more than how often classes occur, or mixed them up."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill_jax.tables.table import Table

ACCURACY, MAJORITY = "check/accuracy", "check/majority"
"""Among a teacher's metrics: on validation, its own and that of always saying one class."""
ON_LABELS, MAJORITY_ON_LABELS = "check/train_accuracy", "check/train_majority"
REORDERED = "check/reordered"
"""With its classes in a better order, where there is one; on the labelled rows that were asked."""


def notes_of_teachers(table: "Table") -> list[str]:
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
