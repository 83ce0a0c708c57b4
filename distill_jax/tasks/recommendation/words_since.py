"""What teachers said before new interactions came, and what they say since."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from distill_jax.core.ranking_types import HistoryBatch
from distill_jax.core.top_items import TopItems, Wanted
from distill_jax.teachers.top_items import Heard


class Words(Protocol):
    """What a teacher says, from a cache or asked directly."""

    def listen(self, wanted: Wanted) -> Heard:
        """``heard(batch) -> TopItems`` with what is wanted; for a feed."""


@dataclass(frozen=True, eq=False)
class WordsSince:
    """What is heard at an update, and of all that was before it: of users who had something new the
    later word, of the others the earlier.

    Attributes:
      grown_U: bool [U], users who had something new.
      known: who said the later word knows the first so many items alone; None for all.
    """

    earlier: Words
    later: Words
    grown_U: np.ndarray
    known: int | None = None

    def listen(self, wanted: Wanted) -> Heard:
        """See ``Words``."""
        later = self.later.listen(wanted)
        if self.known is not None:
            later = of_known_targets(later, self.known)
        return by_user(self.earlier.listen(wanted), later, self.grown_U)


def by_user(first: Heard, second: Heard, second_U: np.ndarray) -> Heard:
    """What two caches say: of the chosen users the second's word, of the others the first's."""

    def heard(batch: HistoryBatch) -> TopItems:
        users_B = np.asarray(batch.example_ids_B)
        chosen_B = second_U[np.maximum(users_B, 0)] & (users_B >= 0)
        ours, theirs = (
            speak(_only(batch, rows_B))
            for speak, rows_B in ((first, ~chosen_B), (second, chosen_B))
        )

        def pick(one: Any, other: Any) -> Any:
            return np.where(chosen_B.reshape(-1, *[1] * (one.ndim - 1)), other, one)

        return jax.tree.map(pick, ours, theirs)

    return heard


def of_known_targets(heard: Heard, known: int) -> Heard:
    """What a teacher says who knows the first so many items alone: nothing where another one came
    next."""

    def said(batch: HistoryBatch) -> TopItems:
        word = heard(batch)
        where_BT = np.asarray(word.where_BT) & (np.asarray(batch.targets_BT) < known)
        return word.replace(where_BT=where_BT)  # type: ignore[attr-defined]

    return said


def _only(batch: HistoryBatch, rows_B: np.ndarray) -> HistoryBatch:
    """The batch with all other rows as padding, whose targets an earlier teacher may not know."""
    arrays: dict[str, Any] = {
        "targets_BT": np.where(rows_B[:, None], np.asarray(batch.targets_BT), 0),
        "example_ids_B": np.where(rows_B, np.asarray(batch.example_ids_B), -1),
        "where_BT": np.asarray(batch.where_BT) & rows_B[:, None],
        "target_where_BT": np.asarray(batch.target_where_BT) & rows_B[:, None],
    }
    return dataclasses.replace(batch, **arrays)
