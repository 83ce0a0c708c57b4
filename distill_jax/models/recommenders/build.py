"""From a recommender's config to something that can be trained, asked and written to disk."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.ranking_types import HistoryBatch, RankingOutput
from distill_jax.models.bert import Params
from distill_jax.models.recommenders.bert4rec import Bert4Rec, Bert4RecConfig
from distill_jax.models.recommenders.bpr_mf import BprMf, BprMfConfig
from distill_jax.models.recommenders.gru4rec import Gru4Rec, Gru4RecConfig
from distill_jax.models.recommenders.sasrec import SasRec, SasRecConfig
from distill_jax.models.recommenders.text_items import ItemTexts, ItemVectors

RecommenderConfig = SasRecConfig | Bert4RecConfig | Gru4RecConfig | BprMfConfig
MODULES: dict[type, type[nn.Module]] = {
    SasRecConfig: SasRec,
    Bert4RecConfig: Bert4Rec,
    Gru4RecConfig: Gru4Rec,
    BprMfConfig: BprMf,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Recommender:
    """A model with the texts of its catalogue: what ``training.make_step`` takes for a module.

    Attributes:
      config: of the model.
      texts: of the items, for vectors made of text; of more items than it was trained on, too.
    """

    config: RecommenderConfig
    texts: ItemTexts | None = None

    @property
    def module(self) -> nn.Module:
        return MODULES[type(self.config)](self.config)

    def apply(
        self,
        variables: dict[str, Params],
        batch: HistoryBatch,
        *,
        train: bool = False,
        rngs: dict[str, Array] | None = None,
        items_ID: Array | None = None,
        last_only: bool = False,
    ) -> RankingOutput:
        """What the model says, see ``SasRec``; models that save nothing by it say all of it."""
        less: Any = (
            {"last_only": True} if last_only and isinstance(self.config, SasRecConfig) else {}
        )
        output = self.module.apply(
            variables, batch, self.texts, items_ID, train=train, rngs=rngs or {}, **less
        )
        assert isinstance(output, RankingOutput)
        return output

    def init(self, rng: Array) -> Params:
        """Fresh float32 parameters, drawn from a jax random key."""
        return _init(self.config, rng, self.texts)

    def item_vectors(self, params: Params) -> Array:
        """[I, D] of all items whose texts are given; made once, they serve many batches."""
        module = ItemVectors(self.config.items)
        return jnp.asarray(module.apply({"params": params.get("items", {})}, self.texts))


@partial(jax.jit, static_argnums=0)
def _init(config: RecommenderConfig, rng: Array, texts: ItemTexts | None) -> Params:
    ids_BT = jnp.ones((1, 1), jnp.int32)
    where_BT = jnp.ones((1, 1), bool)
    batch = HistoryBatch(jnp.zeros((1,), jnp.int32), ids_BT, where_BT, ids_BT, where_BT)
    return MODULES[type(config)](config).init(rng, batch, texts)["params"]
