"""What a teaching matrix factorisation says: of users and of items, whatever the position.

Nothing has to be asked position by position, and nothing is kept on disk: its lists are made once,
for all users and, where somebody asks, for all items.

Shapes: U users, I items, D width, K items of a list, N negatives of a row.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch
from distill_jax.core.top_items import TopItems, Wanted
from distill_jax.data.histories import HistoryTable
from distill_jax.data.interactions import RankingSplit
from distill_jax.losses.catalogue import catalogue_top
from distill_jax.models.bert import Params
from distill_jax.models.recommenders.build import Recommender
from distill_jax.teachers.placebo import shuffled

BLOCK = 8192
"""Items whose logits are held at a time."""
ROWS = 256
"""Rows of which lists are made at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class FactorWords:
    """A factorisation as a teacher; ``listen`` makes what a feed wants, as a cache's does.

    Attributes:
      split: its training part says what users took.
      users_UD, items_ID: float32, its vectors.
      bias_I: float32, what items have beside theirs.
      top: how many likeliest items it names at most.
    """

    split: RankingSplit
    users_UD: np.ndarray
    items_ID: np.ndarray
    bias_I: np.ndarray
    top: int

    def listen(
        self, wanted: Wanted, *, strata_I: np.ndarray | None = None, shuffle: int | None = None
    ) -> _Listener:
        """``heard(batch) -> TopItems`` with what is wanted, numpy arrays; for a feed.

        Args:
          strata_I: the popularity stratum of each item, where they are wanted.
          shuffle: a placebo: of each user and item it is told what is true of another one, drawn
            by this seed once and for all.

        Raises:
          UserError: where more is wanted of a list than there is.
        """
        if wanted.top > self.top:
            raise UserError(
                f"the objective reads the teacher's likeliest {wanted.top} items; it names "
                f"{self.top}."
            )
        return _Listener(self, wanted, strata_I, shuffle)

    @functools.lru_cache(maxsize=2)  # noqa: B019  lives as long as its table
    def likeliest(self, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int32 [U, K] likeliest items of all, float32 their logits, [U] the rest's log-sum-exp."""

        @jax.jit
        def best(users: Any, items: Any, bias: Any) -> Any:
            return catalogue_top(users, items, bias, top, block=BLOCK)

        parts = []
        for start in range(0, len(self.users_UD), ROWS):
            users = self.users_UD[start : start + ROWS]
            padded = np.pad(users, ((0, ROWS - len(users)), (0, 0)))
            said = jax.device_get(best(padded, self.items_ID, self.bias_I))
            parts.append([part[: len(users)] for part in said])
        logits, ids, rest = (np.concatenate(part) for part in zip(*parts, strict=True))
        return ids, logits, rest

    def unseen_items(self, top: int) -> np.ndarray:
        """int32 [U, K]: of each user the likeliest items that the user never took in training."""
        return self._unseen(top, by_item=False)

    def unseen_users(self, top: int) -> np.ndarray:
        """int32 [I, K]: of each item the users likeliest to take it who never did in training."""
        return self._unseen(top, by_item=True)

    @functools.lru_cache(maxsize=4)  # noqa: B019  lives as long as its table
    def _unseen(self, top: int, by_item: bool) -> np.ndarray:
        taken = self.split.train_matrix()
        rows, others = self.users_UD, self.items_ID
        bias = self.bias_I[None]
        if by_item:  # what an item has of its own says nothing about who takes it
            rows, others, taken = self.items_ID, self.users_UD, taken.T.tocsr()
            bias = np.zeros((1, 1), np.float32)
        free = len(others) - int(np.diff(taken.indptr).max(initial=0))
        if top > free:
            what = "users" if by_item else "items"
            raise UserError(f"a list of {top} {what} is wanted where some have only {free} left.")
        lists = np.empty((len(rows), top), np.int32)
        for start in range(0, len(rows), ROWS):
            part = slice(start, min(start + ROWS, len(rows)))
            scores = rows[part] @ others.T + bias
            counts = np.diff(taken.indptr[part.start : part.stop + 1])
            seen = taken.indices[taken.indptr[part.start] : taken.indptr[part.stop]]
            scores[np.repeat(np.arange(len(counts)), counts), seen] = -np.inf
            best = np.argpartition(-scores, top - 1, axis=1)[:, :top]
            order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
            lists[part] = np.take_along_axis(best, order, axis=1)
        return lists


def factor_words(
    recommender: Recommender, params: Params, split: RankingSplit, top: int
) -> FactorWords:
    """A model that knows users by number, as a teacher."""
    batch = HistoryTable(split, "any", 1).batch(np.zeros(1, int), 1, 1)  # whichever: it says all
    said = jax.device_get(jax.jit(recommender.apply)({"params": params}, batch))
    bias_I = said.item_bias_I
    if bias_I is None:
        bias_I = np.zeros(len(said.items_ID), np.float32)
    return FactorWords(split, said.users_UD, said.items_ID, bias_I, top)


@dataclasses.dataclass(frozen=True, eq=False)
class _Listener:
    """See ``FactorWords.listen``."""

    words: FactorWords
    wanted: Wanted
    strata_I: np.ndarray | None
    shuffle: int | None

    @functools.cached_property
    def _orders(self) -> tuple[np.ndarray, np.ndarray]:
        """[U] and [I], of whom it is told what is said of each."""
        counts = len(self.words.users_UD), len(self.words.items_ID)
        if self.shuffle is None:
            users, items = map(np.arange, counts)
        else:
            users, items = (shuffled(count, self.shuffle) for count in counts)
        return users, items

    def __call__(self, batch: HistoryBatch) -> TopItems:
        words, wanted = self.words, self.wanted
        of_user, of_item = self._orders
        users_B = np.asarray(batch.example_ids_B)
        real_B = users_B >= 0
        users_B = of_user[np.where(real_B, users_B, 0)]
        targets_BT = of_item[np.asarray(batch.targets_BT)]
        queries_BD, targets_BTD = words.users_UD[users_B], words.items_ID[targets_BT]
        ids_UK, logits_UK, rest_U = words.likeliest(max(wanted.top, 1))
        shape = targets_BT.shape

        def at_positions(array_B: np.ndarray) -> np.ndarray:
            whole = array_B[:, None]
            return np.broadcast_to(whole, (*shape, *whole.shape[2:]))

        ids_BTK = at_positions(ids_UK[users_B, : wanted.top])
        given: dict[str, Any] = {
            "ids_BTK": ids_BTK,
            "logits_BTK": at_positions(logits_UK[users_B, : wanted.top]),
            "rest_BT": at_positions(rest_U[users_B]),
            "target_BT": np.einsum("bd,btd->bt", queries_BD, targets_BTD)
            + words.bias_I[targets_BT],
            "where_BT": np.asarray(batch.where_BT) & real_B[:, None],
            "strata_BTK": self.strata_I[ids_BTK] if self.strata_I is not None else None,
            "queries_BTD": at_positions(queries_BD) if wanted.queries else None,
            "items_BD": targets_BTD[:, -1] if wanted.items else None,
            **self._of_lists(batch, users_B),
        }
        return TopItems(**given)

    def _of_lists(self, batch: HistoryBatch, users_B: np.ndarray) -> dict[str, Any]:
        """What is said of users by item, of items by user, and of sampled items."""
        words, wanted = self.words, self.wanted
        given: dict[str, Any] = {}
        if wanted.unseen:
            given["unseen_BK"] = words.unseen_items(wanted.unseen)[users_B]
        if wanted.negatives or wanted.fans:
            assert batch.negatives_BTN is not None, "a feed draws what the objective needs"
            newest_BN = self._orders[1][np.asarray(batch.negatives_BTN)[:, -1]]
            if wanted.negatives:
                given["negatives_BND"] = words.items_ID[newest_BN[:, : wanted.negatives]]
            if wanted.fans:
                asked = newest_BN[:, : wanted.fans_of]
                given["fans_BNK"] = words.unseen_users(wanted.fans)[asked]
        return given
