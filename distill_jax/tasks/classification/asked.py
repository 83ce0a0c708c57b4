"""About which examples a teacher is asked: those that the steps of its pupils read."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from distill_jax.core.types import Batch
from distill_jax.data.plan import choose_lengths, make_batch, plan_in_order
from distill_jax.engine.work import Work
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.splits import Examples, Splits

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

def how_long(table: Examples, speaker: Callable[[Batch], Any]) -> str:
    """How long it takes to ask a teacher about a table, from one batch of middling length.

    That batch is asked about twice; compiling for it does not count.
    """
    plan = plan_in_order(
        table.lengths_N, choose_lengths(table.lengths_N), batch_size=table.asked_at_once
    )
    middle = plan[len(plan) // 2]
    batch = make_batch(table, middle, batch_size=table.asked_at_once)
    jax.block_until_ready(speaker(batch))
    started = time.perf_counter()
    jax.block_until_ready(speaker(batch))
    each = (time.perf_counter() - started) / middle.length
    tokens = sum(planned.length for planned in plan)
    return f"{len(table):,} texts in all, about {each * tokens:.0f} s here"

