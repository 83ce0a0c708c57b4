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
    read_N = np.zeros(len(wider.everything), bool)
    for pupil in pupils:
        places = _places(pupil.splits, wider)
        for work in pupil.works:
            if not work.objective.needs_teacher:
                continue
            rows = rows_read(work)
            if rows is None or pupil.cell.setup.placebo:  # a placebo hears of any other example
                read_N[places] = True
            else:
                read_N[places[rows]] = True
    return None if read_N.sum() > WORTHWHILE * len(read_N) else np.flatnonzero(read_N)


def _places(splits: Splits, wider: Splits) -> np.ndarray:
    """int64: the row among the wider examples of each of some."""
    ids = splits.everything.ids
    if ids == wider.everything.ids:
        return np.arange(len(ids))
    row_of = {example: row for row, example in enumerate(wider.everything.ids)}
    return np.fromiter((row_of[example] for example in ids), np.int64, len(ids))


def rows_read(work: Work) -> np.ndarray | None:
    """int64, ascending: the rows of its table that the steps of a stage read; None for all."""
    feed = work.feed(None)
    if work.steps >= feed.steps_per_epoch:
        return None
    return np.unique(np.concatenate([batch.rows for batch in feed.planned(0)[: work.steps]]))
