"""Flax recommenders as scorers of histories."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from distill_jax.core.ranking_types import HistoryBatch, scores_last
from distill_jax.data.histories import Task, questions
from distill_jax.data.interactions import Histories
from distill_jax.evaluation.recommend import Scorer

ScoresOf = Callable[[Any, HistoryBatch], jax.Array]


def scores_of(model: nn.Module) -> ScoresOf:
    """``apply(params, batch) -> [B, I]`` in evaluation mode; compile it once and keep it."""

    def apply(params: Any, batch: HistoryBatch) -> jax.Array:
        return scores_last(model.apply({"params": params}, batch, train=False))

    return jax.jit(apply)


def model_scorer(
    apply: ScoresOf, params: Any, *, max_length: int, batch_size: int, task: Task = "next"
) -> Scorer:
    """A trained model as ``evaluate`` and ``recommend`` want it, compiled for one shape.

    Args:
      apply: from ``scores_of``.
      max_length: T, the newest so many items are read.
      batch_size: rows of the compiled shape; ask ``evaluate`` for batches of that size or less.
      task: how the model is asked, as in training.
    """

    def score(histories: Histories) -> jax.Array:
        batch = questions(histories, task, max_length, batch_size)
        return apply(params, batch)[: len(histories)]

    return score
