"""A placebo: a teacher whose words are about other examples than those they are given for.

What it says in general (how often which class, how surely) stays, what it says of the example goes.
A student that learns as much from it has not learnt from the teacher.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distill_jax.core.types import Batch, ModelOutput
from distill_jax.data.plan import TrainingTable


def shuffled(count: int, seed: int) -> np.ndarray:
    """int64 [count], of which other one each is told; a permutation drawn by the seed."""
    return np.random.default_rng(seed).permutation(count)


@dataclass(frozen=True, eq=False)
class Placebo:
    """``placebo(batch)``: the logits that the teacher gives other examples of the table.

    Hidden states and attention stay the example's own: those of a text of another length would
    not fit, and no objective that reads them may listen.

    Attributes:
      teacher: batch -> ``ModelOutput``, live or cached.
      table: the examples that batches are taken of.
      order_N: int [N], whose logits each example gets.
    """

    teacher: Callable[[Batch], ModelOutput]
    table: TrainingTable
    order_N: np.ndarray

    def __call__(self, batch: Batch) -> ModelOutput:
        said = self.teacher(batch)
        own_BC = np.asarray(said.logits_BC)
        rows_B = np.asarray(batch.example_ids_B)
        places = np.flatnonzero(rows_B >= 0)
        longest = int(self.table.lengths_N.max())
        others = self.table.batch(self.order_N[rows_B[places]], longest, len(rows_B))
        logits_BC = np.zeros_like(own_BC)
        given = self.teacher(others)
        logits_BC[places] = np.asarray(given.logits_BC)[: len(places)]
        heard_B = None
        if given.heard_B is not None:  # of those others, then
            heard_B = np.zeros(len(rows_B), bool)
            heard_B[places] = np.asarray(given.heard_B)[: len(places)]
        return said.replace(logits_BC=logits_BC, heard_B=heard_B)  # type: ignore[attr-defined]
