"""A recommender asked what comes next at every position: its likeliest items, live."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, all_logits, logits_at
from distill_jax.core.top_items import TopItems
from distill_jax.data.histories import HistoryTable
from distill_jax.models.recommenders.build import Recommender

TOP = 100


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
    return HistoryTable(table.split, "next", min(table.max_length, config.max_length))


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
        self._params = jax.device_put(params)
        self._items_ID = jax.jit(recommender.item_vectors)(self._params)[:items]

        def say(params: Any, items_ID: jax.Array, batch: HistoryBatch) -> TopItems:
            output = recommender.apply({"params": params}, batch, items_ID=items_ID)
            logits_BTI = all_logits(output, output.queries_BTD)
            kept_BTK, ids_BTK = jax.lax.top_k(logits_BTI, top)
            # Items that score like the last of the top are of the rest all the same.
            rest = jax.nn.logsumexp(_without(logits_BTI, ids_BTK), axis=-1)
            return TopItems(
                ids_BTK.astype(jnp.int32),
                kept_BTK,
                rest,
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


def _without(logits_BTI: jax.Array, ids_BTK: jax.Array) -> jax.Array:
    """The logits with -inf at the items named."""
    rows, columns = jnp.indices(ids_BTK.shape[:2], dtype=jnp.int32)
    return logits_BTI.at[rows[..., None], columns[..., None], ids_BTK].set(-jnp.inf)
