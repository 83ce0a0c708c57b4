"""What a teaching recommender says of a batch of histories: ``TopItems``, and what is wanted."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import struct
from jax import Array


@struct.dataclass
class TopItems:
    """A teacher's word at every position, live or cached.

    Attributes:
      ids_BTK: int32 [B, T, K], item numbers, the likeliest first (ties: the lower number).
      logits_BTK: float32 [B, T, K], theirs.
      rest_BT: float32 [B, T], the log-sum-exp of all other items' logits.
      target_BT: float32 [B, T], the logit of the position's target.
      where_BT: bool [B, T], positions of which the teacher said something.
      strata_BTK: int32 [B, T, K], the popularity stratum of each item; None where nobody asks.
      queries_BTD: float32 [B, T, D_t], the teacher's queries; None where nobody asks.
      items_BD: float32 [B, D_t], the teacher's vector of each row's newest target; None where
        nobody asks.
    """

    ids_BTK: Array
    logits_BTK: Array
    rest_BT: Array
    target_BT: Array
    where_BT: Array
    strata_BTK: Array | None = None
    queries_BTD: Array | None = None
    items_BD: Array | None = None

    @property
    def scores(self) -> Array:
        """See ``ModelOutput.scores``: of the likeliest items at each position."""
        return jnp.where(jnp.asarray(self.where_BT)[..., None], self.logits_BTK, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What an objective reads of ``TopItems``.

    Attributes:
      top: how many items a position; 0 for none.
      strata: into how many strata items are divided by popularity; 0 where nobody asks.
      queries: whether the teacher's queries are read.
      items: whether its item vectors are.
    """

    top: int = 0
    strata: int = 0
    queries: bool = False
    items: bool = False

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(
            max(self.top, other.top),
            max(self.strata, other.strata),
            self.queries or other.queries,
            self.items or other.items,
        )
