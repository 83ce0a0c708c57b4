"""From a recommender's config to something that can be trained, asked and written to disk."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
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
      dtype: in which the layers compute; parameters, queries and item vectors are float32.
    """

    config: RecommenderConfig
    texts: ItemTexts | None = None
    dtype: Any = jnp.float32

    @property
    def module(self) -> nn.Module:
        kind = MODULES[type(self.config)]
        return kind(self.config, **({} if self.dtype == jnp.float32 else {"dtype": self.dtype}))

    def computing_in(self, dtype: Any, remat: bool) -> Recommender:
        """The same, computing in another dtype.

        Raises:
          UserError: for a dtype that the model cannot compute in, and for ``remat``.
        """
        kind = MODULES[type(self.config)]
        if remat:
            raise UserError("--remat is for BERTs: recommenders keep their activations")
        if dtype != jnp.float32 and "dtype" not in kind.__dataclass_fields__:
            able = [
                each.__name__ for each in MODULES.values() if "dtype" in each.__dataclass_fields__
            ]
            raise UserError(
                f"{kind.__name__} computes in float32 alone: leave --precision at f32, or take "
                f"{' or '.join(able)}"
            )
        return dataclasses.replace(self, dtype=dtype)

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
