"""What a recommender said at every training position, computed once and kept on disk.

An entry is a position: (user, how many targets from the newest), whatever a student makes of the
user's history. A cache is refused for anything it was not made of.

Shapes: M entries, K items, D width, U users, I items of the catalogue.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.digests import LATE, digest, fields_that_count, sha256_file
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder
from distill_jax.core.ranking_types import HistoryBatch
from distill_jax.core.top_items import TopItems, Wanted
from distill_jax.data.histories import HistoryTable
from distill_jax.teachers.manifest import check_made_of, read_sealed, write_sealed
from distill_jax.teachers.placebo import shuffled
from distill_jax.teachers.recommender_speaker import TOP, RecommenderSpeaker

FORMAT = 1
LEAST_GAP = -6e4
"""Gaps to the best logit are kept as float16; what is further away is read as this."""
BATCH_SIZE = 16
ENTRIES_AT_ONCE = 65_536
DRAWN = 20_051
"""Seed of the draw of users of whom a teacher speaks."""

Heard = Callable[[HistoryBatch], TopItems]


@dataclasses.dataclass(frozen=True)
class TopItemsProvenance:
    """What a cache was made of.

    Attributes:
      teacher: content digest of the teacher's configuration, parameters and texts.
      data: digest of the table of histories: interactions, training part, how far it looks back.
      top: how many items are kept at each position.
      users: how many users have entries at most, drawn once; None for all.
    """

    teacher: str
    data: str
    top: int = TOP
    users: int | None = dataclasses.field(default=None, metadata=LATE)

    @property
    def digest(self) -> str:
        return digest({"format": FORMAT, "provenance": self})


@dataclasses.dataclass(frozen=True, eq=False)
class TopItemsCache:
    """An opened cache; ``listen`` makes what a feed wants of a teacher.

    Attributes:
      ends_U1: int64 [U + 1]; the entries of user u are ``ends[u]:ends[u + 1]``, oldest first.
      ids_MK: whole numbers, the likeliest items.
      gaps_MK: float16, their logits below the best one.
      best_M, rest_M, target_M: float32, the best logit, the log-sum-exp of all but the K, the
        target's logit.
      targets_M: whole numbers, the target.
      queries_MD: float16, the teacher's queries.
      items_ID: float32, its item vectors.
    """

    provenance: TopItemsProvenance
    ends_U1: np.ndarray
    ids_MK: np.ndarray
    gaps_MK: np.ndarray
    best_M: np.ndarray
    rest_M: np.ndarray
    target_M: np.ndarray
    targets_M: np.ndarray
    queries_MD: np.ndarray
    items_ID: np.ndarray

    @property
    def width(self) -> int:
        """Of the teacher's queries and item vectors."""
        return self.items_ID.shape[1]

    def __len__(self) -> int:
        return len(self.best_M)

    def entries(self, batch: HistoryBatch) -> tuple[np.ndarray, np.ndarray]:
        """int64 [B, T], the entry of each position's target, and bool, where there is one."""
        users_B, where_BT = np.asarray(batch.example_ids_B), np.asarray(batch.where_BT)
        real_B = (users_B >= 0) & (users_B < len(self.ends_U1) - 1)
        user_B = np.where(real_B, users_B, 0)
        entry_BT = _entries(self.ends_U1, user_B, batch.later_B, where_BT.shape[1])
        known_BT = entry_BT >= self.ends_U1[user_B][:, None]
        return np.where(known_BT, entry_BT, 0), known_BT & where_BT & real_B[:, None]

    def listen(
        self, wanted: Wanted, *, strata_I: np.ndarray | None = None, shuffle: int | None = None
    ) -> Heard:
        """``heard(batch) -> TopItems`` with what is wanted, numpy arrays; for a feed.

        Args:
          strata_I: the popularity stratum of each item, where they are wanted.
          shuffle: a placebo: each position gets the word about another one, drawn by this seed
            once and for all. What the teacher says in general stays, what it says here goes.

        Raises:
          UserError: where more items are wanted than were kept.
        """
        if wanted.top > self.provenance.top:
            raise UserError(
                f"the objective reads the teacher's likeliest {wanted.top} items; its cache keeps "
                f"{self.provenance.top}."
            )
        if wanted.knows_users:
            raise UserError(
                "the objective reads what only a teacher says that knows users by number, such as "
                "bpr_mf-200."
            )
        if wanted.strata and strata_I is None:
            raise ValueError("strata are wanted: strata_I is needed")
        order_M = None
        if shuffle is not None:
            order_M = shuffled(len(self), shuffle)
        return _Listener(self, wanted, strata_I, order_M, self._rest(wanted.top))

    def _rest(self, top: int) -> np.ndarray:
        """float32 [M], the log-sum-exp of all items but the ``top`` likeliest."""
        rest_M = np.array(self.rest_M)
        if top < self.provenance.top:
            for start in range(0, len(self), ENTRIES_AT_ONCE):
                rows = slice(start, start + ENTRIES_AT_ONCE)
                gaps = np.asarray(self.gaps_MK[rows, top:], np.float32)
                between = self.best_M[rows] + np.logaddexp.reduce(gaps, axis=1)
                rest_M[rows] = np.logaddexp(rest_M[rows], between)
        return rest_M


@dataclasses.dataclass(frozen=True, eq=False)
class _Listener:
    """See ``TopItemsCache.listen``."""

    cache: TopItemsCache
    wanted: Wanted
    strata_I: np.ndarray | None
    order_M: np.ndarray | None
    rest_M: np.ndarray

    def __call__(self, batch: HistoryBatch) -> TopItems:
        cache, wanted = self.cache, self.wanted
        entry_BT, where_BT = cache.entries(batch)
        self._check_targets(batch, entry_BT, where_BT)
        if self.order_M is not None:
            entry_BT = self.order_M[entry_BT]

        def read(array: np.ndarray, dtype: type = np.float32) -> np.ndarray:
            """The positions' entries, 0 where there is none."""
            result = np.zeros((*entry_BT.shape, *array.shape[1:]), dtype)
            result[where_BT] = array[entry_BT[where_BT]]
            return result

        best_BT = read(cache.best_M)
        ids_BTK = read(cache.ids_MK[:, : wanted.top], np.int32)
        newest_B = cache.targets_M[entry_BT[:, -1]]
        given: dict[str, Any] = {
            "ids_BTK": ids_BTK,
            "logits_BTK": best_BT[..., None] + read(cache.gaps_MK[:, : wanted.top]),
            "rest_BT": read(self.rest_M),
            "target_BT": read(cache.target_M),
            "where_BT": where_BT,
            "strata_BTK": self.strata_I[ids_BTK] if self.strata_I is not None else None,
            "queries_BTD": read(cache.queries_MD) if wanted.queries else None,
            "items_BD": cache.items_ID[newest_B] if wanted.items else None,
        }
        return TopItems(**given)

    def _check_targets(
        self, batch: HistoryBatch, entry_BT: np.ndarray, where_BT: np.ndarray
    ) -> None:
        """A position whose target is another one than the teacher was asked about is a bug."""
        asked_BT = where_BT & np.asarray(batch.target_where_BT)
        said = self.cache.targets_M[entry_BT[asked_BT]]
        if not np.array_equal(said, np.asarray(batch.targets_BT)[asked_BT]):
            raise ValueError("the teacher's cache and the batch disagree about the targets")


def _entries(ends_U1: np.ndarray, users_B: np.ndarray, later_B: Any, length: int) -> np.ndarray:
    """int64 [B, length], those of each user's newest targets without the later, the newest last."""
    ends_B = ends_U1[users_B + 1]
    if later_B is not None:
        ends_B = ends_B - np.asarray(later_B)
    return ends_B[:, None] - np.arange(length, 0, -1)[None]


def popularity_strata(counts_I: np.ndarray, count: int) -> np.ndarray:
    """int32 [I]: items by falling popularity in strata of as equal total interactions as can be.

    Chen et al. 2023, "Unbiased Knowledge Distillation for Recommendation", section 4.1.

    Args:
      counts_I: training interactions with each item.
      count: of strata; 0 is that of the most popular items.
    """
    order_I = np.argsort(-np.asarray(counts_I), kind="stable")
    before_I = np.cumsum(counts_I[order_I]) - counts_I[order_I]
    total = max(int(np.sum(counts_I)), 1)
    strata_I = np.empty(len(order_I), np.int32)
    strata_I[order_I] = np.minimum(before_I * count // total, count - 1)
    return strata_I


def build_top_items(
    folder: Path,
    provenance: TopItemsProvenance,
    table: HistoryTable,
    speaker: RecommenderSpeaker,
    *,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Ask a teacher about every position of ``table``; ``folder`` is there whole or not at all.

    Args:
      table: from ``table_for``.
      speaker: names ``provenance.top`` items.
      on_batch: called with finished and all batches; may raise to stop.

    Raises:
      UserError: when what the teacher says is not finite, or the disk is full.
    """
    lengths_R = np.where(_heard_of(table, provenance.users), table.lengths_N, 0)
    lengths_U = np.zeros(table.split.data.num_users, np.int64)
    np.add.at(lengths_U, table.users_R, lengths_R)
    ends_U1 = np.concatenate([[0], np.cumsum(lengths_U)])
    total, width = int(ends_U1[-1]), speaker.items_ID.shape[1]
    ids = np.uint16 if table.num_items <= 2**16 else np.int32
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        "ids_MK": (ids, (total, provenance.top)),
        "gaps_MK": (np.float16, (total, provenance.top)),
        "best_M": (np.float32, (total,)),
        "rest_M": (np.float32, (total,)),
        "target_M": (np.float32, (total,)),
        "targets_M": (ids, (total,)),
        "queries_MD": (np.float16, (total, width)),
    }
    order_R = np.argsort(lengths_R, kind="stable")  # short ones together: less padding
    order_R = order_R[lengths_R[order_R] > 0]
    with atomic_folder(folder) as scratch:
        arrays = {
            name: np.lib.format.open_memmap(scratch / f"{name}.npy", "w+", dtype, shape)
            for name, (dtype, shape) in shapes.items()
        }
        batches = [order_R[i : i + BATCH_SIZE] for i in range(0, len(order_R), BATCH_SIZE)]
        for done, rows in enumerate(batches, 1):
            longest = int(lengths_R[rows].max())
            length = min(-(-longest // 32) * 32, table.max_length)  # few shapes to compile
            batch = table.batch(rows, length, BATCH_SIZE)
            _write(arrays, ends_U1, batch, speaker(batch))
            on_batch(done, len(batches))
        for array in arrays.values():
            array.flush()
        del arrays
        np.save(scratch / "ends_U1.npy", ends_U1)
        np.save(scratch / "items_ID.npy", speaker.items_ID)
        files = {path.name: sha256_file(path) for path in sorted(scratch.glob("*.npy"))}
        made_of = fields_that_count(provenance)
        write_sealed(scratch, {"format": FORMAT, "provenance": made_of, "files": files})


def _heard_of(table: HistoryTable, most: int | None) -> np.ndarray:
    """bool [R], rows of users of whom the teacher speaks."""
    users = np.unique(table.users_R)
    if most is None or len(users) <= most:
        return np.ones(len(table), bool)
    drawn_U = np.zeros(table.split.data.num_users, bool)
    drawn_U[np.random.default_rng(DRAWN).permutation(users)[:most]] = True
    return drawn_U[table.users_R]


def _write(
    arrays: Mapping[str, np.ndarray], ends_U1: np.ndarray, batch: HistoryBatch, said: TopItems
) -> None:
    """File what a teacher said of a batch."""
    where_BT = np.asarray(said.where_BT)
    users_B = np.asarray(batch.example_ids_B)
    entries = _entries(ends_U1, users_B, batch.later_B, where_BT.shape[1])[where_BT]
    logits = np.asarray(said.logits_BTK)[where_BT]
    values = {
        "ids_MK": np.asarray(said.ids_BTK)[where_BT],
        "gaps_MK": np.maximum(logits - logits[:, :1], LEAST_GAP),
        "best_M": logits[:, 0],
        "rest_M": np.asarray(said.rest_BT)[where_BT],
        "target_M": np.asarray(said.target_BT)[where_BT],
        "targets_M": np.asarray(batch.targets_BT)[where_BT],
        "queries_MD": np.asarray(said.queries_BTD)[where_BT],
    }
    for name, value in values.items():
        kept = value.astype(arrays[name].dtype)
        if not np.isfinite(kept).all():
            raise UserError(
                f"what the teacher says is not finite ({name}); was its training stopped early, "
                "or did it diverge?"
            )
        arrays[name][entries] = kept


def open_top_items(folder: Path, provenance: TopItemsProvenance) -> TopItemsCache:
    """Open a cache, refusing it unless it is whole and of this provenance.

    Raises:
      UserError: when files are missing or damaged, or it was made of anything else.
    """
    try:
        body = read_sealed(folder, FORMAT)
        for name, expected in body["files"].items():
            if sha256_file(folder / name) != expected:
                raise ValueError(f"{name} was changed after it was written")
        theirs, ours = dict(body["provenance"]), dataclasses.asdict(provenance)
        theirs.setdefault("users", None)  # it came later
        arrays = {
            field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r", allow_pickle=False)
            for field in dataclasses.fields(TopItemsCache)
            if field.name != "provenance"
        }
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"the teacher cache {folder} is damaged ({error}). Delete that folder; it is made "
            "again."
        ) from error
    check_made_of(folder, theirs, ours)
    return TopItemsCache(provenance, **arrays)
