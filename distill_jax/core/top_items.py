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
      unseen_BK: int32 [B, K], the likeliest items that each row's user never took in training.
      negatives_BND: float32 [B, N, D_t], the teacher's vectors of each row's first negatives.
      fans_BNK: int32 [B, N, K], the likeliest users, of those who never took it in training, for
        each of the row's first negatives. These three only a teacher has that knows users by
        number; None where nobody asks.
    """

    ids_BTK: Array
    logits_BTK: Array
    rest_BT: Array
    target_BT: Array
    where_BT: Array
    strata_BTK: Array | None = None
    queries_BTD: Array | None = None
    items_BD: Array | None = None
    unseen_BK: Array | None = None
    negatives_BND: Array | None = None
    fans_BNK: Array | None = None

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
      unseen: how many items, of those that the user never took.
      negatives: of how many sampled items its vectors.
      fans, fans_of: how many users likeliest to take each of how many sampled items.
    """

    top: int = 0
    strata: int = 0
    queries: bool = False
    items: bool = False
    unseen: int = 0
    negatives: int = 0
    fans: int = 0
    fans_of: int = 0

    @property
    def knows_users(self) -> bool:
        """Whether only a teacher can say it that knows users by number."""
        return bool(self.unseen or self.negatives or self.fans)

    def __or__(self, other: Wanted) -> Wanted:
        return Wanted(
            max(self.top, other.top),
            max(self.strata, other.strata),
            self.queries or other.queries,
            self.items or other.items,
            max(self.unseen, other.unseen),
            max(self.negatives, other.negatives),
            max(self.fans, other.fans),
            max(self.fans_of, other.fans_of),
        )
