"""The most popular items for everybody."""

import dataclasses
from collections.abc import Callable

import numpy as np

from distill_jax.models.recommenders.protocol import Asked, Trained


@dataclasses.dataclass(frozen=True, eq=False)
class Popularity:
    """Scores are training interactions of what is recommended, the same for every history.

    Attributes:
      counts_I: float32 [I].
    """

    counts_I: np.ndarray

    def scores(self, histories: Asked) -> np.ndarray:
        """float32 [E, I], read-only."""
        return np.broadcast_to(self.counts_I, (len(histories), len(self.counts_I)))


def fit_popularity(split: Trained, *, on_block: Callable[[], None] = lambda: None) -> Popularity:
    """Count the training interactions with each item."""
    return Popularity(split.target_counts_I.astype(np.float32))
