"""A recommender that knows only the items which a batch names.

Where a loss looks at chosen items alone, the vectors of all others get no gradient at a step. The
step is then that of a small catalogue, of the items that the batch and the teacher's word name, in
ascending order; which rows of the whole table they are stands in the batch.

Shape suffixes: R rows of the small table, C of them a row of the batch (R = B x C).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from distill_jax.core.ranking_types import PADDING_ITEM, HistoryBatch, RankingOutput
from distill_jax.core.top_items import TopItems
from distill_jax.models.bert import Params
from distill_jax.models.recommenders.build import Recommender

TABLE = ("items", "embedding")
PER_ITEM = (TABLE, ("item_bias",))
"""Parameters with a row an item, where a model has them."""


@dataclasses.dataclass(frozen=True)
class OccurringItems:
    """Which items a batch names, of a catalogue.

    Attributes:
      num_items: I.
    """

    num_items: int

    @staticmethod
    def tables(params: Params) -> tuple[tuple[str, ...], ...]:
        """Paths to the parameters that have a row an item."""
        return tuple(path for path in PER_ITEM if path[0] in params)

    def renumber(
        self, batch: HistoryBatch, said: TopItems | None
    ) -> tuple[HistoryBatch, TopItems | None]:
        """A batch and what the teacher says of it, as the smaller model reads them.

        Returns:
          The batch with ``rows_BC``: items of the catalogue, ascending, I behind the last one, so
          many that sizes are few: a power of two a row of the batch.
        """
        item_ids_BT = np.asarray(batch.item_ids_BT)
        hidden_BT, known_BT = item_ids_BT == self.num_items + 1, item_ids_BT != PADDING_ITEM
        named = [item_ids_BT[known_BT & ~hidden_BT] - 1, np.asarray(batch.targets_BT)]
        if batch.negatives_BTN is not None:
            named.append(np.asarray(batch.negatives_BTN))
        if said is not None:
            named.append(np.asarray(said.ids_BTK))
        rows = np.unique(np.concatenate([each.ravel() for each in named]))
        B = len(item_ids_BT)
        C = 1 << (-(-len(rows) // B) - 1).bit_length()
        rows_R = np.full(B * C, self.num_items, np.int32)
        rows_R[: len(rows)] = rows

        def of(items: Any) -> np.ndarray:
            return np.searchsorted(rows, np.asarray(items)).astype(np.int32)

        ids_BT = np.where(known_BT, of(item_ids_BT - 1) + 1, PADDING_ITEM)
        arrays: dict[str, Any] = {
            "item_ids_BT": np.where(hidden_BT, B * C + 1, ids_BT).astype(np.int32),
            "targets_BT": of(batch.targets_BT),
            "rows_BC": rows_R.reshape(B, C),
        }
        if batch.negatives_BTN is not None:
            arrays["negatives_BTN"] = of(batch.negatives_BTN)
        smaller = dataclasses.replace(batch, **arrays)
        if said is None:
            return smaller, None
        heard: dict[str, Any] = {"ids_BTK": of(said.ids_BTK)}
        return smaller, dataclasses.replace(said, **heard)


@dataclasses.dataclass(frozen=True, eq=False)
class OfRows:
    """What ``training.make_step`` takes for a module: a recommender at the size of the table that
    its parameters hold.

    Attributes:
      recommender: of the whole catalogue, with item vectors of its own alone.
    """

    recommender: Recommender

    def apply(
        self, variables: dict[str, Params], batch: HistoryBatch, **options: Any
    ) -> RankingOutput:
        """As ``Recommender.apply``."""
        table_RD: Any = variables["params"][TABLE[0]][TABLE[1]]
        config = self.recommender.config
        items = dataclasses.replace(config.items, num_items=len(table_RD))
        smaller = dataclasses.replace(config, items=items)
        return dataclasses.replace(self.recommender, config=smaller).apply(
            variables, batch, **options
        )
