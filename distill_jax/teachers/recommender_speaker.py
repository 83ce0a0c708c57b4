"""A recommender asked what comes next at every position: its likeliest items, live."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, RankingOutput, all_logits, logits_at
from distill_jax.core.top_items import TopItems
from distill_jax.data.histories import HistoryTable
from distill_jax.losses.catalogue import catalogue_top
from distill_jax.models.recommenders.build import Recommender

TOP = 100
MOST_LOGITS, BLOCK = 2**26, 8192
"""All logits of a batch are made at once up to so many, 256 MiB; else those of a block of items."""


def table_for(recommender: Recommender, table: HistoryTable) -> HistoryTable:
    """The positions at which a teacher is asked, for students that learn from ``table``.

    Raises:
      UserError: for a model that does not say what comes next at every position.
    """
    config = recommender.config
    if config.task == "hidden":
        raise UserError(
            f"a {type(config).__name__} cannot teach position by position: what it says of one "
            "looks at the items behind it. Teach with a model that reads forwards."
        )
    length = min(table.max_length, config.max_length)
    return HistoryTable(table.split, "next", length, table.windows)


class RecommenderSpeaker:
    """``speaker(batch) -> TopItems``: all but strata; in evaluation mode, jitted.

    Args:
      top: how many items it names at each position.

    Raises:
      UserError: where there are not so many items.
    """

    def __init__(self, recommender: Recommender, params: Any, top: int = TOP) -> None:
        items = recommender.config.num_items
        if not 1 <= top < items:
            raise UserError(f"of {items} items a teacher names 1 to {items - 1}, not {top}.")
        self._params = recommender.params_in_use(jax.device_put(params))
        recommender = recommender.in_use
        self._items_ID = jax.jit(recommender.item_vectors)(self._params)[:items]

        def say(params: Any, items_ID: jax.Array, batch: HistoryBatch) -> TopItems:
            output = recommender.apply({"params": params}, batch, items_ID=items_ID)
            return TopItems(
                *likeliest(output, top),
                logits_at(output, batch.targets_BT[..., None])[..., 0],
                batch.where_BT & batch.target_where_BT,
                None,
                output.queries_BTD.astype(jnp.float32),
                items_ID[batch.targets_BT[:, -1]].astype(jnp.float32),
            )

        self._say = jax.jit(say)

    @property
    def items_ID(self) -> np.ndarray:
        """float32 [I, D], the teacher's item vectors."""
        return np.asarray(self._items_ID, np.float32)

    def __call__(self, batch: HistoryBatch) -> TopItems:
        return self._say(self._params, self._items_ID, batch)


def likeliest(output: RankingOutput, top: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Numbers and logits of each position's likeliest items, and the log-sum-exp of the others."""
    B, T, D = output.queries_BTD.shape
    if B * T * len(output.items_ID) > MOST_LOGITS:
        queries_ND = output.queries_BTD.reshape(-1, D)
        kept, ids, rest = catalogue_top(
            queries_ND, output.items_ID, output.item_bias_I, top, block=BLOCK
        )
        return ids.reshape(B, T, top), kept.reshape(B, T, top), rest.reshape(B, T)
    logits_BTI = all_logits(output, output.queries_BTD)
    kept_BTK, ids_BTK = jax.lax.top_k(logits_BTI, top)
    # Items that score like the last of the top are of the rest all the same.
    rest_BT = jax.nn.logsumexp(_without(logits_BTI, ids_BTK), axis=-1)
    return ids_BTK.astype(jnp.int32), kept_BTK, rest_BT


def _without(logits_BTI: jax.Array, ids_BTK: jax.Array) -> jax.Array:
    """The logits with -inf at the items named."""
    rows, columns = jnp.indices(ids_BTK.shape[:2], dtype=jnp.int32)
    return logits_BTI.at[rows[..., None], columns[..., None], ids_BTK].set(-jnp.inf)
