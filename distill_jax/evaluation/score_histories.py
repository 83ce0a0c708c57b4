"""A neural recommender asked: histories in, scores of the whole catalogue out."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_jax.core.mesh import replicate
from distill_jax.core.ranking_types import HistoryBatch, Question, logits_at, scores_last
from distill_jax.data.histories import questions
from distill_jax.data.interactions import Histories
from distill_jax.data.plan import filled
from distill_jax.evaluation.among import ItemScorer
from distill_jax.evaluation.recommend import rows_at_once
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.text_items import ItemTexts

LENGTHS = (16, 50, 100)
"""Batches are padded to one of these or to the model's own length, each a compilation."""
FEW = 1
"""And to so many rows, or to a multiple of what is asked at once."""
LARGE = 2**15
"""Items of a catalogue that several devices share."""
NEW_ITEMS = 8
"""Items that came after the training are scored in room for a power of so many."""


class HistoryScorer:
    """``scorer(histories) -> [E, I]`` for ``evaluation.recommend``; compiled once, kept.

    Args:
      recommender: the model, with the texts of the catalogue.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self._used = used = recommender.in_use
        longest = recommender.config.max_length
        self.lengths = (*(length for length in LENGTHS if length < longest), longest)

        def items(params: Any, texts: ItemTexts | None) -> Array:
            return dataclasses.replace(used, texts=texts).item_vectors(params)

        self._items = jax.jit(items)

        def score(params: Any, items_ID: Array, batch: HistoryBatch) -> Array:
            output = used.apply({"params": params}, batch, items_ID=items_ID, last_only=True)
            return scores_last(output)

        self._score = jax.jit(score)

        def score_at(params: Any, items_ID: Array, batch: HistoryBatch, items_BN: Array) -> Array:
            output = recommender.apply({"params": params}, batch, items_ID=items_ID, last_only=True)
            last = output.replace(queries_BTD=output.queries_BTD[:, -1:])  # type: ignore[attr-defined]
            return logits_at(last, items_BN[:, None])[:, 0]

        self._score_at = jax.jit(score_at)

    def of(self, params: Any, texts: ItemTexts | None = None, mesh: Mesh | None = None) -> Any:
        """The scorer with some parameters; the items' vectors are made here, once.

        Args:
          texts: of the items that are scored; by default the recommender's.
          mesh: devices that share the items of a large catalogue, where given.
        """
        params = self.recommender.params_in_use(jax.device_put(params))
        items_ID = self._items(params, texts or self._used.texts)
        if mesh is not None and self._shares(len(items_ID), mesh):
            params, items_ID = _shared(params, items_ID, mesh)

        def scorer(histories: Histories) -> Array | np.ndarray:
            said_BI = self._score(params, items_ID, self.batch(histories))
            if said_BI.shape[1] > histories.num_items:  # filled up for the devices
                return np.asarray(said_BI)[: len(histories), : histories.num_items]
            if len(said_BI) == len(histories):
                return said_BI
            return np.asarray(said_BI)[: len(histories)]  # on the host: nothing is compiled for it

        return scorer

    def at_items(self, params: Any) -> ItemScorer:
        """The scorer of each history's own few items, with some parameters."""
        params = jax.device_put(params)
        items_ID = self._items(params, self.recommender.texts)

        def scorer(histories: Histories, items_EN: np.ndarray) -> np.ndarray:
            batch = self.batch(histories)
            items_BN = filled(items_EN, len(np.asarray(batch.example_ids_B)))
            return np.asarray(self._score_at(params, items_ID, batch, items_BN))[: len(histories)]

        return scorer

    def _shares(self, num_items: int, mesh: Mesh) -> bool:
        """Whether devices share the items; a hidden one has the number behind the last."""
        hidden = self.recommender.config.task == "hidden"
        one = mesh.size == 1 or jax.process_count() > 1
        return not (hidden or one) and num_items >= LARGE

    def batch(self, histories: Histories) -> HistoryBatch:
        """Histories at one of the few shapes that are compiled."""
        task: Question = self.recommender.config.task
        longest = int(histories.lengths_E.max(initial=0)) + (task == "hidden")
        length = next((n for n in self.lengths if n >= longest), self.lengths[-1])
        many = rows_at_once(histories.num_items)
        rows = FEW if len(histories) <= FEW else -(-len(histories) // many) * many
        return questions(histories, task, length, rows)


def _shared(params: Any, items_ID: Array, mesh: Mesh) -> tuple[Any, Array]:
    """Parameters on every device, and a part of the items, filled up with zeros, on each."""
    parts = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    missing = -len(items_ID) % mesh.size
    filled_ID = np.pad(np.asarray(items_ID), ((0, missing), (0, 0)))
    own = {name: value for name, value in params.items() if name != "items"}
    return replicate(own, mesh), jax.device_put(filled_ID, parts)


def room_for(new_items: int) -> int:
    """Rows that new items are padded to: 0, 8, 64, 512, each a compilation."""
    room = NEW_ITEMS if new_items else 0
    while room < new_items:
        room *= NEW_ITEMS
    return room


def scores_of(recommender: Recommender, params: Any, histories: Histories) -> np.ndarray:
    """float32 [E, I], for a look at a few users; ``HistoryScorer`` is for many."""
    return np.asarray(HistoryScorer(recommender).of(params)(histories))
