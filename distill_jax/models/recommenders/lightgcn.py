"""LightGCN: vectors of users and items, smoothed over the graph of who took what in training.

He et al. 2020, "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation",
equations 3, 4 and 8 with equal weights of the layers. The paper trains it with ``bpr`` and an L2
penalty on the vectors of a batch; here any loss of labels may be used, and there is no penalty.
Once training is over, the smoothed vectors are a matrix factorisation, and in use it is one.

Shapes: U users, I items, D width, N edges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.ranking_types import HistoryBatch, Question, RankingOutput
from distill_jax.models.bert import Params
from distill_jax.models.family import register
from distill_jax.models.recommenders.bpr_mf import BprMfConfig, user_queries
from distill_jax.models.recommenders.protocol import Trained
from distill_jax.models.recommenders.sequence import CatalogueConfig, HistoryModel, Recommenders
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts, ItemVectors

Vectors = tuple[Array, Array]
"""Of users [U, D] and of items [I, D]."""


@dataclasses.dataclass(frozen=True)
class LightGcnConfig(CatalogueConfig):
    """A LightGCN.

    Attributes:
      items: how items become vectors before they are smoothed.
      num_users: U; others have no vector of their own.
      num_layers: K, how often vectors are smoothed.
      max_length: interactions of a user that one step looks at.
    """

    items: ItemConfig
    num_users: int
    num_layers: int = 3
    max_length: int = 200

    task: ClassVar[Question] = "any"
    knows_users: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.num_users, self.num_layers, self.max_length) < 1:
            raise UserError("num_users, num_layers and max_length must be at least 1.")


class LightGcn(HistoryModel):
    """Every position of a row has the same query, the user's smoothed vector.

    A user without one gets the mean of the history's smoothed items, as in ``bpr_mf``.
    """

    config: LightGcnConfig

    @nn.compact
    def __call__(
        self,
        batch: HistoryBatch,
        texts: ItemTexts | None = None,
        items_ID: Array | None = None,
        *,
        train: bool = False,
        **how: bool,
    ) -> RankingOutput:
        """Hidden states are the queries by vectors that were smoothed so often, 0 to K times.

        Args:
          texts: with the graph.
          items_ID: None: items are smoothed with users. Asked often, ask ``Recommender.in_use``.
        """
        if items_ID is not None:
            raise ValueError("item vectors are smoothed with those of users and cannot be given")
        config = self.config
        items_ID = ItemVectors(config.items, name="items")(texts)
        init = nn.initializers.normal(config.items.initializer_range)
        shape = (config.num_users, config.hidden_size)
        users_UD = self.param("user_embedding", init, shape, jnp.float32)
        layers = smoothed(users_UD, items_ID, texts, config.num_layers)
        hidden_states = {k: user_queries(batch, *vectors) for k, vectors in enumerate(layers)}
        users_UD, items_ID = mean_of(layers)
        queries_BTD = user_queries(batch, users_UD, items_ID)
        return RankingOutput(queries_BTD, items_ID, None, hidden_states, users_UD)


def smoothed(
    users_UD: Array, items_ID: Array, known: ItemTexts | None, num_layers: int
) -> list[Vectors]:
    """Vectors before and after each layer (equation 3), K + 1 of them.

    Only pairs that were taken are touched: [N, D] at a time, never [U, I].

    Args:
      known: of the items, with the graph.

    Raises:
      UserError: without the graph.
      ValueError: for vectors of some items alone; a step needs those of all.
    """
    if known is None or known.edge_users_N is None:
        raise UserError("this recommender reads the graph of who took what in training.")
    for numbers, vectors in ((known.edge_users_N, users_UD), (known.edge_items_N, items_ID)):
        if isinstance(numbers, np.ndarray) and numbers.max(initial=-1) >= len(vectors):
            raise ValueError(f"the graph names more than the {len(vectors)} vectors that are there")
    users_N, items_N = jnp.asarray(known.edge_users_N), jnp.asarray(known.edge_items_N)
    weights_N1 = jnp.asarray(known.edge_weights_N)[:, None]
    layers = [(users_UD, items_ID)]
    for _ in range(num_layers):
        users, items = layers[-1]
        layers.append(
            (
                jax.ops.segment_sum(items[items_N] * weights_N1, users_N, len(users)),
                jax.ops.segment_sum(users[users_N] * weights_N1, items_N, len(items)),
            )
        )
    return layers


def mean_of(layers: Sequence[Vectors]) -> Vectors:
    """The final vectors: the mean over layers (equation 4, alpha = 1 / (K + 1))."""
    users, items = zip(*layers, strict=True)
    return jnp.mean(jnp.stack(users), axis=0), jnp.mean(jnp.stack(items), axis=0)


class GraphRecommenders(Recommenders):
    """Recommenders that are trained over the graph of who took what."""

    def constants(self, texts: ItemTexts | None, split: Trained) -> ItemTexts:
        """The graph beside what else is known; weights are 1 / sqrt(|N_u| |N_i|)."""
        matrix = split.train_matrix().tocoo()
        users_N, items_N = matrix.row.astype(np.int32), matrix.col.astype(np.int32)
        order_N = np.lexsort((items_N, users_N))
        users_N, items_N = users_N[order_N], items_N[order_N]
        degrees_N = np.bincount(users_N)[users_N] * np.bincount(items_N)[items_N]
        return dataclasses.replace(
            texts or ItemTexts(),
            edge_users_N=users_N,
            edge_items_N=items_N,
            edge_weights_N=(1 / np.sqrt(degrees_N)).astype(np.float32),
        )

    def check_constants(self, config: Any, texts: ItemTexts | None) -> None:
        """Raises ``ValueError`` for a graph that is none, or of other users and items."""
        known = texts or ItemTexts()
        users_N, items_N, weights_N = known.edge_users_N, known.edge_items_N, known.edge_weights_N
        shapes = {getattr(each, "shape", None) for each in (users_N, items_N, weights_N)}
        if len(shapes) > 1 or any(shape is None or len(shape) != 1 for shape in shapes):
            raise ValueError("its graph is missing, or no list of edges")
        for numbers, most in ((users_N, config.num_users), (items_N, config.num_items)):
            whole = numbers.dtype == np.int32
            if not whole or (len(numbers) and not 0 <= numbers.min() <= numbers.max() < most):
                raise ValueError("its graph has edges of users or items that there are not")
        if weights_N.dtype != np.float32 or not np.isfinite(weights_N).all():
            raise ValueError("its graph has weights that are no numbers")

    def in_use(self, config: Any) -> BprMfConfig:
        """A matrix factorisation."""
        own = config.items
        items = ItemConfig(own.num_items, own.hidden_size, initializer_range=own.initializer_range)
        return BprMfConfig(items, config.num_users, config.max_length)

    def params_in_use(self, config: Any, params: Params, texts: ItemTexts | None) -> Params:
        """The smoothed vectors."""
        return _factors(config, params, texts)


@partial(jax.jit, static_argnums=0)
def _factors(config: LightGcnConfig, params: Params, texts: ItemTexts | None) -> Params:
    module: Any = ItemVectors(config.items)
    items_ID = module.apply({"params": params.get("items", {})}, texts)
    layers = smoothed(params["user_embedding"], items_ID, texts, config.num_layers)
    users_UD, items_ID = mean_of(layers)
    bias_I = jnp.zeros(len(items_ID), jnp.float32)
    return {"user_embedding": users_UD, "items": {"embedding": items_ID}, "item_bias": bias_I}


register(GraphRecommenders("lightgcn", LightGcnConfig, LightGcn))
