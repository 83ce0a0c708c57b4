"""About which examples a teacher is asked: those that the steps of its pupils read."""

from collections.abc import Sequence

import numpy as np

from distill_jax.engine.work import Work
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.splits import Splits

WORTHWHILE = 0.9
"""Of a larger share than this, the teacher is asked about all: other runs may want the rest."""


def rows_asked(pupils: Sequence[ClassifierRun], wider: Splits) -> np.ndarray | None:
    """int64, ascending rows of ``wider.everything`` that the pupils read; None for all of them.

    Args:
      pupils: runs whose examples are among those of ``wider``.
    """
    read: set[str] = set()
    for pupil in pupils:
        ids = pupil.splits.everything.ids
        for work in pupil.works:
            if not work.objective.needs_teacher:
                continue
            rows = rows_read(work)
            if rows is None or pupil.cell.setup.placebo:  # a placebo hears of any other example
                read.update(ids)
            else:
                read.update(ids[row] for row in rows)
    if len(read) > WORTHWHILE * len(wider.everything):
        return None
    return np.flatnonzero([example in read for example in wider.everything.ids])


def rows_read(work: Work) -> np.ndarray | None:
    """int64, ascending: the rows of its table that the steps of a stage read; None for all."""
    feed = work.feed(None)
    if work.steps >= feed.steps_per_epoch:
        return None
    return np.unique(np.concatenate([batch.rows for batch in feed.planned(0)[: work.steps]]))
