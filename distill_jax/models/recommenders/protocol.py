"""What recommenders in closed form share: popularity, item-kNN, EASE.

``fit_...(split)`` learns from the training part alone and returns a model; ``scores(histories)``
gives float32 [E, I], higher is better, for users of the data and for others alike. They run on
the host, and neither order nor time enters. Of several kinds of feedback popularity counts what is
recommended; to the others a click is as much as a purchase.
"""

from typing import Protocol

import numpy as np
from scipy import sparse


class Trained(Protocol):
    """What a model learns from: ``data.interactions.RankingSplit`` has it."""

    @property
    def train_counts_I(self) -> np.ndarray:
        """[I], training interactions with each item."""

    @property
    def target_counts_I(self) -> np.ndarray:
        """[I], those of the kind of feedback that is recommended."""

    def train_matrix(self) -> sparse.csr_array:
        """[U, I], 1 where the user took the item in training."""


class Asked(Protocol):
    """What a model is told: ``data.interactions.Histories`` has it."""

    def __len__(self) -> int: ...

    def matrix(self) -> sparse.csr_array:
        """[E, I], 1 where the history holds the item."""
