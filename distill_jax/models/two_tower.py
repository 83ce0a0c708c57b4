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
from distill_jax.core.types import Batch
from distill_jax.models.bert import Bert, BertConfig, Params, init_bert

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


class TwoTower(nn.Module):
    """Scores of lists, and the vectors behind them."""

    config: TwoTowerConfig
    dtype: Any = jnp.float32

    def setup(self) -> None:
        names = ("tower",) if self.config.shared else ("query_tower", "item_tower")
        towers = [Bert(self.config.tower, self.dtype, name=name) for name in names]
        self.query_encoder, self.item_encoder = towers[0], towers[-1]

    def __call__(self, batch: ListBatch, *, train: bool = False) -> SearchOutput:
        """Scores [B, N]; -inf where the list has no product."""
        if batch.query_ids_BT is None or batch.item_ids_BNT is None:
            raise UserError("two towers read queries and products apart: make lists of kind 'towers'.")
        B, N, T = batch.item_ids_BNT.shape
        queries_BD = self.encode(batch.query_ids_BT, batch.query_where_BT, side="query", train=train)
        items = batch.item_ids_BNT.reshape(B * N, T), batch.item_where_BNT.reshape(B * N, T)
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
        vectors_BD = tower(as_batch(ids_BT, where_BT), train=train).logits_BC
        if self.config.similarity == "cosine":
            square_B1 = jnp.sum(jnp.square(vectors_BD), axis=-1, keepdims=True)
            scale = self.config.cosine_scale if side == "query" else 1.0
            return vectors_BD * (scale * jax.lax.rsqrt(square_B1 + 1e-12))
        return vectors_BD * (self.config.vector_size**-0.25)


def as_batch(ids_BT: Array, where_BT: Array, types_BT: Array | None = None) -> Batch:
    """Tokens as the house's BERT reads them."""
    zeros_B = jnp.zeros(ids_BT.shape[:1], jnp.int32)
    return Batch(
        example_ids_B=zeros_B,
        input_ids_BT=ids_BT,
        token_type_ids_BT=jnp.zeros_like(ids_BT) if types_BT is None else types_BT,
        where_BT=where_BT,
        labels_B=zeros_B,
        label_where_B=jnp.zeros(ids_BT.shape[:1], bool),
    )


@partial(jax.jit, static_argnums=0)
def init_two_tower(config: TwoTowerConfig, rng: Array) -> Params:
    """Fresh float32 parameters; with two towers each draws its own."""
    if config.shared:
        return {"tower": init_bert(config.tower, rng)}
    query, item = jax.random.split(rng)
    return {
        "query_tower": init_bert(config.tower, query),
        "item_tower": init_bert(config.tower, item),
    }


def pretrained_towers(
    encoder: BertConfig, params: Params, *, shared: bool = True, cosine_scale: float = 20.0
) -> tuple[TwoTowerConfig, Params]:
    """Towers that give the pooled vectors of a pretrained encoder, compared by cosine.

    The head starts as the identity, so that nothing is learnt yet; it may be trained.

    Args:
      encoder, params: of a sentence encoder; its own head is left out.
    """
    width = encoder.hidden_size
    tower = dataclasses.replace(encoder, num_labels=width)
    head = {"kernel": np.eye(width, dtype=np.float32), "bias": np.zeros(width, np.float32)}

    def copy() -> Params:
        return jax.tree.map(lambda leaf: np.array(leaf, np.float32), params | {"classifier": head})

    config = TwoTowerConfig(tower, shared, "cosine", cosine_scale)
    names = ("tower",) if shared else ("query_tower", "item_tower")
    return config, {name: copy() for name in names}


def embeddings_from(params: Params, source: Params) -> Params:
    """A tower's parameters with word embeddings that come from a wider encoder's.

    The wider embeddings are centred and projected to their first principal directions, scaled to
    the spread of what they replace. It says what a student gains from the teacher's words alone.

    Args:
      params: of a BERT with the source's vocabulary, narrower or as wide.
      source: of the wider encoder.

    Raises:
      UserError: where vocabularies or widths do not fit.
    """
    wide_VW = np.asarray(source["embeddings"]["word"]["embedding"], np.float32)
    fresh_VD = np.asarray(params["embeddings"]["word"]["embedding"], np.float32)
    if len(wide_VW) != len(fresh_VD) or wide_VW.shape[1] < fresh_VD.shape[1]:
        raise UserError(
            f"word embeddings of shape {fresh_VD.shape} cannot start from {wide_VW.shape}: expected "
            "the same vocabulary and at least the width."
        )
    centred_VW = wide_VW - wide_VW.mean(axis=0, keepdims=True)
    _, directions_WW = np.linalg.eigh(centred_VW.T @ centred_VW)  # ascending
    projected_VD = centred_VW @ directions_WW[:, ::-1][:, : fresh_VD.shape[1]]
    projected_VD *= fresh_VD.std() / max(float(projected_VD.std()), 1e-12)
    word = {**params["embeddings"]["word"], "embedding": projected_VD.astype(np.float32)}
    return params | {"embeddings": {**params["embeddings"], "word": word}}
