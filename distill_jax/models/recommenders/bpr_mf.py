"""Matrix factorisation: a vector a user, a vector an item, whatever the order.

Rendle et al. 2009, "BPR: Bayesian Personalized Ranking from Implicit Feedback" (with ``bpr``, the
loss it is named after; any other may be used).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from distill_jax.core.digests import LATE
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.ranking_types import HistoryBatch, Question, RankingOutput
from distill_jax.models.bert import mean_of_tokens
from distill_jax.models.family import register
from distill_jax.models.recommenders.sequence import (
    CatalogueConfig,
    HistoryModel,
    Recommenders,
    look_up,
)
from distill_jax.models.recommenders.text_items import ItemConfig


@dataclasses.dataclass(frozen=True)
class BprMfConfig(CatalogueConfig):
    """A matrix factorisation.

    Attributes:
      items: how items become vectors.
      num_users: U; others have no vector of their own.
      max_length: interactions of a user that one step looks at.
      kinds: see ``SequenceConfig``; the user's vector is the trunk that their heads share.
      item_bias: whether items have a learned number of their own beside their vector.
    """

    items: ItemConfig
    num_users: int
    max_length: int = 200
    kinds: tuple[str, ...] = dataclasses.field(default=(), metadata=LATE)
    item_bias: bool = dataclasses.field(default=True, metadata=LATE)

    task: ClassVar[Question] = "any"
    knows_users: ClassVar[bool] = True
    num_layers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.num_users, self.max_length) < 1:
            raise UserError("num_users and max_length must be at least 1.")


class BprMf(HistoryModel):
    """Every position of a row has the same query, the user's vector.

    A user without one (number -1, or U and above) gets the mean vector of the items of the
    history: where the user's own vector would point is not known, but near there.
    """

    config: BprMfConfig

    def say(self, batch: HistoryBatch, items_ID: Array, *, train: bool) -> RankingOutput:
        """Hidden states are 0 (the items) and 1 (the queries)."""
        config = self.config
        init = nn.initializers.normal(config.items.initializer_range)
        shape = (config.num_users, config.hidden_size)
        users_UD = self.param("user_embedding", init, shape, jnp.float32)
        queries_BTD = user_queries(batch, users_UD, items_ID)
        hidden_states = {0: look_up(items_ID, batch.item_ids_BT), 1: queries_BTD}
        bias_I = self.item_bias(items_ID) if config.item_bias else None
        return RankingOutput(queries_BTD, items_ID, bias_I, hidden_states, users_UD)


def user_queries(batch: HistoryBatch, users_UD: Array, items_ID: Array) -> Array:
    """[B, T, D], at every position the user's vector, or else the mean of the history's items."""
    taken_BTD = look_up(items_ID, batch.item_ids_BT)
    known_B = (batch.example_ids_B >= 0) & (batch.example_ids_B < len(users_UD))
    own_BD = users_UD[jnp.clip(batch.example_ids_B, 0, len(users_UD) - 1)]
    query_BD = jnp.where(known_B[:, None], own_BD, mean_of_tokens(taken_BTD, batch.where_BT))
    return jnp.broadcast_to(query_BD[:, None], taken_BTD.shape)


register(Recommenders("bpr_mf", BprMfConfig, BprMf, layered=False))
