"""Targets ranked among a few items that the user never took: what many papers measure.

The figures are higher than those over the whole catalogue, and do not order models as those do
(Krichene and Rendle 2020, "On Sampled Metrics for Item Recommendation"). Where a paper is
reproduced they are what is compared with it.

Shapes: E cases, U users, N sampled items.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.interactions import Cases, Histories, RankingSplit
from distill_jax.evaluation import ranking

ItemScorer = Callable[[Histories, np.ndarray], Any]
"""``scorer(histories, items_EN) -> [E, N]``: the scores of each history's own items."""

PREFIX = "sampled_"
CUTS = (5, 10, 20)
BATCH = 256


@functools.lru_cache(maxsize=4)
def others_of(split: RankingSplit, count: int, seed: int) -> np.ndarray:
    """int32 [U, N]: of every user ``count`` different items that the user never took, not for
    validation or test either; uniform, and a function of (seed, user) alone.

    Raises:
      UserError: where a user has left fewer items.
    """
    data = split.asked_data
    others_UN = np.empty((data.num_users, count), np.int32)
    for user in range(data.num_users):
        free_I = np.ones(data.num_items, bool)
        free_I[data.items_N[data.offsets_U1[user] : data.offsets_U1[user + 1]]] = False
        free = np.flatnonzero(free_I)
        if len(free) < count:
            raise UserError(
                f"user {data.user_names[user]!r} has left {len(free)} items; {count} were to be "
                "sampled."
            )
        others_UN[user] = np.random.default_rng((seed, user)).choice(free, count, replace=False)
    return others_UN


def ranks_among(
    scorer: ItemScorer,
    split: RankingSplit,
    cases: Cases,
    others_UN: np.ndarray,
    on_batch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """int32 [E]: 1 + how many of the user's sampled items score as high as the target or higher;
    0 where a score is NaN."""
    ranks_E = np.empty(len(cases), np.int32)
    for start in range(0, len(cases), BATCH):
        part = cases.take(np.arange(start, min(start + BATCH, len(cases))))
        items = np.column_stack([part.targets_E(split.asked_data), others_UN[part.users_E]])
        told = part.histories(split.asked_data, split.learned_U)
        scores = np.asarray(scorer(told, items), np.float32)
        ranks = np.count_nonzero(scores >= scores[:, :1], axis=1)  # the target itself is one
        ranks_E[start : start + len(part)] = np.where(np.isnan(scores).any(axis=1), 0, ranks)
        on_batch()
    return ranks_E


def metrics_among(ranks_E: np.ndarray, ks: Sequence[int] = CUTS) -> dict[str, float]:
    """``{"sampled_hr@10": ...}``: means over the cases."""
    return {PREFIX + name: value for name, value in ranking.mean_metrics(ranks_E, ks).items()}


def at_items(scorer: Callable[[Histories], Any]) -> ItemScorer:
    """A scorer of the whole catalogue, asked for a few items."""

    def score(histories: Histories, items_EN: np.ndarray) -> np.ndarray:
        return np.take_along_axis(np.asarray(scorer(histories)), items_EN, axis=1)

    return score
