"""Two towers for search: a vector a query, a vector a product, relevance is their inner product.

Products are encoded once, a query in a moment, and the nearest products are found by one matrix
product (Huang et al. 2013, "Learning Deep Structured Semantic Models for Web Search", with the
house's BERT as towers; Reimers and Gurevych 2019, "Sentence-BERT").
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.search_types import ListBatch, SearchOutput
from distill_jax.core.types import as_batch
from distill_jax.models.bert import Bert, BertConfig, Params, init_bert
from distill_jax.models.dropout import rows_of_lists
from distill_jax.models.family import Family, register

Side = Literal["query", "item"]


@dataclasses.dataclass(frozen=True)
class TwoTowerConfig:
    """Two towers.

    Attributes:
      tower: a BERT whose head's outputs are the vector: ``num_labels`` is the vector's width.
      shared: one tower for queries and products, or one each.
      similarity: ``dot``: inner product over the square root of the width; ``cosine``: cosine
        times ``cosine_scale``.
      cosine_scale: the inverse temperature of cosines.
    """

    tower: BertConfig
    shared: bool = True
    similarity: Literal["dot", "cosine"] = "dot"
    cosine_scale: float = 20.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.cosine_scale < 1e6:
            raise UserError(f"cosine_scale must be above 0, not {self.cosine_scale}.")

    @property
    def vector_size(self) -> int:
        """Numbers of a vector."""
        return self.tower.num_labels

    @property
    def tower_names(self) -> tuple[str, ...]:
        """Of the parameters' parts, the queries' first."""
        return ("tower",) if self.shared else ("query_tower", "item_tower")


class TwoTower(nn.Module):
    """Scores of lists, and the vectors behind them."""

    config: TwoTowerConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        config = self.config
        towers = [Bert(config.tower, self.dtype, name=name) for name in config.tower_names]
        self.query_encoder, self.item_encoder = towers[0], towers[-1]

    def __call__(self, batch: ListBatch, *, train: bool = False) -> SearchOutput:
        """Scores [B, N]; -inf where the list has no product."""
        if batch.query_where_BT is None or batch.item_where_BNT is None:
            raise UserError(
                "two towers read queries and products apart: make lists of kind 'towers'."
            )
        B, N, T = batch.item_ids_BNT.shape
        queries_BD = self.encode(
            batch.query_ids_BT, batch.query_where_BT, side="query", train=train
        )
        items = batch.item_ids_BNT.reshape(B * N, T), batch.item_where_BNT.reshape(B * N, T)
        with rows_of_lists(N):
            items_BND = self.encode(*items, side="item", train=train).reshape(B, N, -1)
        scores_BN = jnp.einsum("BD,BND->BN", queries_BD, items_BND)
        return SearchOutput(
            scores_BN=jnp.where(batch.there_BN, scores_BN, -jnp.inf),
            queries_BD=queries_BD,
            items_BND=items_BND,
        )

    def encode(self, ids_BT: Array, where_BT: Array, *, side: Side, train: bool = False) -> Array:
        """Vectors [B, D] float32 whose inner products are the scores."""
        tower = self.query_encoder if side == "query" else self.item_encoder
        vectors_BD: Any = tower(as_batch(ids_BT, where_BT), train=train).logits_BC
        if self.config.similarity == "cosine":
            square_B1 = jnp.sum(jnp.square(vectors_BD), axis=-1, keepdims=True)
            scale = self.config.cosine_scale if side == "query" else 1.0
            return vectors_BD * (scale * jax.lax.rsqrt(square_B1 + 1e-12))
        return vectors_BD * (self.config.vector_size**-0.25)


def init_two_tower(config: TwoTowerConfig, rng: Array) -> Params:
    """Fresh float32 parameters; with two towers each draws its own.

    A head as wide as the tower starts as the identity: the vector is then what is pooled.
    """
    keys = [rng] if config.shared else jax.random.split(rng)
    towers = zip(config.tower_names, keys, strict=True)
    return {name: _init_tower(config.tower, key) for name, key in towers}


@partial(jax.jit, static_argnums=0)
def _init_tower(config: BertConfig, rng: Array) -> Params:
    params = init_bert(config, rng)
    if config.num_labels != config.hidden_size:
        return params
    return params | {"classifier": _identity(config.hidden_size)}


def _identity(width: int) -> Params:
    return {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}


def pretrained_towers(
    encoder: BertConfig, params: Params, *, shared: bool = True, cosine_scale: float = 20.0
) -> tuple[TwoTowerConfig, Params]:
    """Towers that give the pooled vectors of a pretrained encoder, compared by cosine.

    The head starts as the identity, so that nothing is learnt yet; it may be trained.

    Args:
      encoder, params: of a sentence encoder; its own head is left out.
    """
    tower = dataclasses.replace(encoder, num_labels=encoder.hidden_size)
    whole = params | {"classifier": _identity(encoder.hidden_size)}
    config = TwoTowerConfig(tower, shared, "cosine", cosine_scale)
    return config, {
        name: jax.tree.map(lambda leaf: np.array(leaf, np.float32), whole)
        for name in config.tower_names
    }


register(Family("two_tower", TwoTowerConfig, TwoTower))
