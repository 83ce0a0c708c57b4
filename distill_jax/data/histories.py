"""Training histories of recommenders as batches, and what is drawn for them at each step.

What a batch asks depends on the model: the item that follows each item of the history (``next``),
hidden items (``hidden``, BERT4Rec), or every item of the user (``any``, matrix factorisation).

Of a history that is longer than the model looks back, only the newest window is a row, or every
one: windows lie side by side from the newest, so that in an epoch each item is asked for once.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import PADDING_ITEM, HistoryBatch, Negatives, Question
from distill_jax.data.draws import draw_below, draw_unit
from distill_jax.data.interactions import Histories, RankingSplit
from distill_jax.data.plan import PADDING_ID, filled

HIDDEN, ONLY_LAST, NEGATIVES = range(3)
"""What a draw is for."""


@dataclass(frozen=True, eq=False)
class HistoryTable:
    """The training part of every user who has something to learn from; a row a user, or a window.

    Attributes:
      split: only its training part is read.
      task: what is asked of the model, see above.
      max_length: T, positions of a row at most.
      windows: whether longer histories have several rows; else the newest positions are used.
    """

    split: RankingSplit
    task: Question = "next"
    max_length: int = 200
    windows: bool = False

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise UserError(f"max_length must be at least 1, not {self.max_length}")
        if not len(self):
            raise UserError(
                f"data {self.split.data.name!r}: no user has the {self._needed} training "
                "interactions that a recommender learns from."
            )

    @property
    def _needed(self) -> int:
        return 2 if self.task == "next" else 1

    @functools.cached_property
    def _windows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[R] the user of each row, how many of the user's targets come later, its positions."""
        counts_U = self.split.train_ends_U - self.split.data.offsets_U1[:-1] - self._shift
        users = np.flatnonzero(counts_U >= 1).astype(np.int32)
        rows = -(-counts_U[users] // self.max_length) if self.windows else np.ones_like(users)
        users_R, first_R = np.repeat(users, rows), np.repeat(np.cumsum(rows) - rows, rows)
        later_R = (np.arange(len(users_R)) - first_R) * self.max_length
        return users_R, later_R, np.minimum(counts_U[users_R] - later_R, self.max_length)

    @property
    def users_R(self) -> np.ndarray:
        """int32 [R], the user of each row."""
        return self._windows[0]

    @property
    def later_R(self) -> np.ndarray:
        """int64 [R], targets of the user that come after the row's."""
        return self._windows[1]

    @property
    def lengths_N(self) -> np.ndarray:
        """int64 [R], positions of each row."""
        return self._windows[2]

    @property
    def share(self) -> float:
        """Of all targets in the training part, those that an epoch asks for."""
        counts_U = self.split.train_ends_U - self.split.data.offsets_U1[:-1] - self._shift
        return float(self.lengths_N.sum() / counts_U[counts_U > 0].sum())

    @property
    def told(self) -> str:
        """``share`` for people."""
        if self.windows:
            return f"{self.share:.0%} of the training targets, in windows of {self.max_length}"
        newest = f"the newest {self.max_length} of a user (--windows for all)"
        return f"{self.share:.0%} of the training targets" + (f", {newest}" * (self.share < 1))

    @property
    def _shift(self) -> int:
        """Items at the start of a history that are no targets."""
        return 1 if self.task == "next" else 0

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of all users, by the example ids of batches."""
        return self.split.data.user_names

    @property
    def num_items(self) -> int:
        return self.split.data.num_items

    @functools.cached_property
    def digest(self) -> str:
        names = {"split": self.split.digest, "task": self.task, "max_length": self.max_length}
        return digest({**names, "windows": True} if self.windows else names)

    def __len__(self) -> int:
        return len(self.users_R)

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> HistoryBatch:
        """The newest ``length`` positions of ``rows``, left-padded, in ``batch_size`` rows."""
        users, later = self.users_R[rows], self.later_R[rows]
        ends, shift = self.split.train_ends_U[users] - later, self._shift
        starts = self.split.data.offsets_U1[users]
        if self.windows:
            starts = np.maximum(starts, ends - shift - self.max_length)
        column_T = np.arange(-length, 0) - shift
        place_RT = ends[:, None] + column_T[None, :]  # among all interactions
        where_RT = place_RT >= starts[:, None]
        items_N = self.split.data.items_N
        place_RT = np.where(where_RT, place_RT, 0)
        where_BT = filled(where_RT, batch_size)
        item_ids_RT = np.where(where_RT, items_N[place_RT] + 1, PADDING_ITEM)
        targets_RT = np.where(where_RT, items_N[place_RT + shift], 0)
        arrays: dict[str, Any] = {
            "example_ids_B": filled(users, batch_size, PADDING_ID),
            "item_ids_BT": filled(item_ids_RT, batch_size),
            "where_BT": where_BT,
            "targets_BT": filled(targets_RT, batch_size),
            "target_where_BT": where_BT.copy(),
            "later_B": filled(later, batch_size) if self.windows else None,
        }
        if (kinds_N := self.split.data.kinds_N) is not None:
            kinds_RT = np.where(where_RT, kinds_N[place_RT], 0)
            asked_RT = np.where(where_RT, kinds_N[place_RT + shift], 0)
            arrays["kinds_BT"] = filled(kinds_RT, batch_size)
            arrays["target_kinds_BT"] = filled(asked_RT, batch_size)
        if (fields_NC := self.split.data.fields_NC) is not None:
            fields_RTC = np.where(where_RT[..., None], fields_NC[place_RT], 0)
            arrays["fields_BTC"] = filled(fields_RTC, batch_size)
        return HistoryBatch(**arrays)

    @functools.cached_property
    def _gaps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For drawing what a user did not take: see ``others``.

        Returns:
          int64 keys ``user * (I + 1) + (item - rank of the item among the user's)``, ascending;
          [U] the first of each user's; [U] how many different items each user took.
        """
        matrix = self.split.train_matrix()
        matrix.sort_indices()
        firsts_U = matrix.indptr[:-1].astype(np.int64)
        counts_U = np.diff(matrix.indptr).astype(np.int64)
        users = np.repeat(np.arange(len(counts_U)), counts_U)
        rank = np.arange(len(matrix.indices)) - firsts_U[users]
        return users * (self.num_items + 1) + matrix.indices - rank, firsts_U, counts_U

    def others(self, users: np.ndarray, *names: Any) -> np.ndarray:
        """int32 of the names' common shape: items that these users did not take, uniform.

        Exactly so, without rejection: the r-th of the items not taken is ``r`` plus the number of
        items taken before it.

        Args:
          users: of a shape that broadcasts with the names.
          names: what each draw depends on, see ``draw_bits``.

        Raises:
          UserError: when one of the users took every item.
        """
        keys, firsts_U, counts_U = self._gaps
        left = self.num_items - counts_U[users]
        if (left < 1).any():
            who = self.ids[int(np.broadcast_to(users, left.shape)[left < 1][0])]
            raise UserError(
                f"user {who!r} took every item: there is nothing to sample as a negative. Leave "
                "the user out, or train with full_softmax."
            )
        drawn = draw_below(left, *names)
        users = np.broadcast_to(users, drawn.shape).astype(np.int64)
        before = np.searchsorted(keys, users * (self.num_items + 1) + drawn, side="right")
        return (drawn + before - firsts_U[users]).astype(np.int32)


@dataclass(frozen=True)
class Hiding:
    """Which items BERT4Rec has to find (Sun et al. 2019, section 3.6), in training.

    Attributes:
      share: of the items of a history, each hidden by chance; at least one is.
      only_last: share of histories of which the last item alone is hidden, as when it is asked
        what comes next.
    """

    share: float = 0.2
    only_last: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.share < 1 and 0 <= self.only_last <= 1):
            raise UserError(
                f"hiding needs 0 < share < 1 and 0 <= only_last <= 1, not {self.share} and "
                f"{self.only_last}"
            )


@dataclass(frozen=True, eq=False)
class Draws:
    """What is drawn for a batch: a pure function of (seed, step, user, column).

    Attributes:
      table: of the batches.
      hiding: for models that find hidden items.
      negatives: for losses that want some.
      kind_weights: how much a target of each kind of feedback counts; () where all do alike.
    """

    table: HistoryTable
    hiding: Hiding | None = None
    negatives: Negatives | None = None
    kind_weights: tuple[float, ...] = ()

    def __call__(self, batch: HistoryBatch, seed: int, step: int) -> HistoryBatch:
        if self.hiding is not None:
            batch = hide(batch, self.hiding, self.table.num_items, seed, step)
        if self.negatives is not None:
            batch = _with_negatives(batch, self.negatives, self.table, seed, step)
        if self.kind_weights:
            weights_K = np.array(self.kind_weights, np.float32)
            arrays: dict[str, Any] = {"target_weights_BT": weights_K[batch.target_kinds_BT]}
            batch = dataclasses.replace(batch, **arrays)
        return batch


def hide(batch: HistoryBatch, hiding: Hiding, num_items: int, seed: int, step: int) -> HistoryBatch:
    """Replace items by ``num_items + 1``, of which no field is known; only they are targets."""
    item_ids_BT, where_BT = np.asarray(batch.item_ids_BT), np.asarray(batch.where_BT)
    users_B1 = np.asarray(batch.example_ids_B)[:, None]
    from_end_BT = _from_end(batch, item_ids_BT.shape[1])
    luck_BT = np.where(where_BT, draw_unit(seed, step, HIDDEN, users_B1, from_end_BT), 2.0)
    least_BT = (luck_BT == luck_BT.min(axis=1, keepdims=True)) & where_BT
    hidden_BT = (luck_BT < hiding.share) | least_BT
    row = () if batch.later_B is None else (np.asarray(batch.later_B)[:, None],)
    last_B1 = draw_unit(seed, step, ONLY_LAST, users_B1, *row) < hiding.only_last
    newest_1T = np.arange(item_ids_BT.shape[1])[None] == item_ids_BT.shape[1] - 1
    hidden_BT = np.where(last_B1, newest_1T & where_BT, hidden_BT)
    arrays: dict[str, Any] = {
        "item_ids_BT": np.where(hidden_BT, np.int32(num_items + 1), item_ids_BT),
        "target_where_BT": hidden_BT,
    }
    if batch.fields_BTC is not None:
        arrays["fields_BTC"] = np.where(hidden_BT[..., None], 0, np.asarray(batch.fields_BTC))
    return dataclasses.replace(batch, **arrays)


def _with_negatives(
    batch: HistoryBatch, negatives: Negatives, table: HistoryTable, seed: int, step: int
) -> HistoryBatch:
    users_B = np.asarray(batch.example_ids_B)
    T = np.asarray(batch.item_ids_BT).shape[1] if negatives.per == "position" else 1
    users_B11 = np.where(users_B >= 0, users_B, table.users_R[0])[:, None, None]
    from_end_BT1 = _from_end(batch, T)[..., None]
    number_11N = np.arange(negatives.count)[None, None, :]
    drawn_BTN = table.others(users_B11, seed, step, NEGATIVES, users_B11, from_end_BT1, number_11N)
    arrays: dict[str, Any] = {"negatives_BTN": drawn_BTN}
    return dataclasses.replace(batch, **arrays)


def _from_end(batch: HistoryBatch, length: int) -> np.ndarray:
    """[B or 1, T], places behind each position of the user's, so that neither the length of a batch
    nor the cut into windows has a say in what is drawn for it."""
    from_end_1T = np.arange(length)[::-1][None]
    if batch.later_B is None:
        return from_end_1T
    return from_end_1T + np.asarray(batch.later_B)[:, None]


def questions(histories: Histories, task: Question, length: int, batch_size: int) -> HistoryBatch:
    """Histories as a batch whose last position is asked for the item that comes next.

    Args:
      histories: at most ``batch_size`` of them; where there is only a hidden item to find, it is
        put behind the newest.
      length: T; older items are left out.
      batch_size: rows, the missing ones padding.
    """
    kept = length - 1 if task == "hidden" else length
    item_ids_ET, kinds_ET = histories.padded(kept), histories.padded_kinds(kept)
    fields_ETC = histories.padded_fields(kept)
    if task == "hidden":
        item_ids_ET = np.pad(item_ids_ET, ((0, 0), (0, 1)), constant_values=histories.num_items + 1)
        kinds_ET = None if kinds_ET is None else np.pad(kinds_ET, ((0, 0), (0, 1)))
        if fields_ETC is not None:
            fields_ETC = np.pad(fields_ETC, ((0, 0), (0, 1), (0, 0)))
    item_ids_BT = filled(item_ids_ET, batch_size)
    arrays: dict[str, Any] = {
        "example_ids_B": filled(histories.users_E, batch_size, PADDING_ID),
        "item_ids_BT": item_ids_BT,
        "where_BT": item_ids_BT != PADDING_ITEM,
        "targets_BT": np.zeros_like(item_ids_BT),
        "target_where_BT": np.zeros(item_ids_BT.shape, bool),
        "kinds_BT": None if kinds_ET is None else filled(kinds_ET, batch_size),
        "fields_BTC": None if fields_ETC is None else filled(fields_ETC, batch_size),
    }
    return HistoryBatch(**arrays)
