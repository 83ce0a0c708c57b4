"""Queries, products and how relevant a product is to a query, as plain tuples and arrays.

Suffixes: Q queries, I products ("items"), J judgements, one query's after the other's.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping

import numpy as np

from distill_jax.core.digests import digest, digest_arrays, digest_strings, unit_interval
from distill_jax.core.errors import UserError
from distill_jax.data.table import SPLITS, fold

TRANSFER = "transfer"
"""The split of queries without judgements: only a teacher speaks on them."""
VALIDATION_SHARE = 0.1
"""Of the training queries, where none is meant for validation."""
_RANK = {split: place for place, split in enumerate((*reversed(SPLITS), TRANSFER))}
"""Of several splits a query stays in the first, which must not be learnt from."""


@dataclasses.dataclass(frozen=True, eq=False)
class SearchData:
    """A catalogue, queries to it, and judgements.

    Attributes:
      name: what ``--data`` was given.
      query_ids, queries: Q unique ids and texts.
      item_ids, items: I unique ids and texts, every product that can be found.
      offsets_Q1: int64 [Q + 1]; query q's judgements are ``offsets_Q1[q] : offsets_Q1[q + 1]``.
      items_J: int32 [J], the judged products, each once a query.
      gains_J: float32 [J], how relevant: 0 is judged and irrelevant, NaN is a pair that was given
        without a judgement (for a teacher to speak on). What no pair names is irrelevant.
      splits: query numbers (int32, ascending) by split: train, validation, test, and transfer.
      notes: what was decided on the user's behalf, a sentence each.
    """

    name: str
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    item_ids: tuple[str, ...]
    items: tuple[str, ...]
    offsets_Q1: np.ndarray
    items_J: np.ndarray
    gains_J: np.ndarray
    splits: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for ids, texts in ((self.query_ids, self.queries), (self.item_ids, self.items)):
            if len(ids) != len(texts) or len(set(ids)) != len(ids):
                raise ValueError("ids must be unique, one a text")
        if len(self.offsets_Q1) != len(self.queries) + 1 or self.offsets_Q1[-1] != len(
            self.items_J
        ):
            raise ValueError("offsets do not fit queries and judgements")
        for split in SPLITS:
            if not len(self.splits[split]):
                raise UserError(f"data {self.name!r}: no query in the {split} split.")
        taken = np.concatenate([*self.splits.values()])
        if len(np.unique(taken)) != len(taken):
            raise ValueError("a query is in two splits")

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the content; the name does not enter."""
        arrays = {"offsets": self.offsets_Q1, "items": self.items_J, "gains": self.gains_J}
        return digest(
            {
                "queries": digest_strings([*self.query_ids, *self.queries]),
                "items": digest_strings([*self.item_ids, *self.items]),
                "arrays": digest_arrays(arrays),
                "splits": digest_arrays(self.splits),
            }
        )

    def judged(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """(products, gains) of a query, the most relevant first, then by product number."""
        items, gains = self._pairs(query)
        items, gains = items[~np.isnan(gains)], gains[~np.isnan(gains)]
        order = np.lexsort((items, -gains))
        return items[order], gains[order]

    def unjudged(self, query: int) -> np.ndarray:
        """Products that stand beside a query without a judgement, int32."""
        items, gains = self._pairs(query)
        return items[np.isnan(gains)]

    def _pairs(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.offsets_Q1[query], self.offsets_Q1[query + 1])
        return self.items_J[part], self.gains_J[part]

    def hide_labels(self, fraction: float) -> SearchData:
        """The same data where only a fixed share of the training queries keeps its judgements.

        The others join the transfer set. The choice is a hash of the query's id: it is the same
        for every seed, and a smaller share is a part of a larger one.
        """
        if not 0 < fraction <= 1:
            raise UserError(f"the share of labelled queries must be in (0, 1], not {fraction}.")
        train = self.splits["train"]
        draws = np.array([unit_interval(f"labels/{self.query_ids[q]}") for q in train])
        keep = np.zeros(len(train), bool)
        keep[np.argsort(draws, kind="stable")[: max(round(fraction * len(train)), 1)]] = True
        others = np.concatenate([self.splits.get(TRANSFER, np.zeros(0, np.int32)), train[~keep]])
        splits = {**self.splits, "train": train[keep], TRANSFER: np.sort(others).astype(np.int32)}
        note = f"judgements of {keep.sum()} of {len(train)} training queries are used"
        return dataclasses.replace(self, splits=splits, notes=(*self.notes, note))


@dataclasses.dataclass(frozen=True)
class Judgement:
    """One row of judgements on its way into a ``SearchData``.

    Attributes:
      query, item: texts.
      item_id: of the product; two products may have one text.
      gain: None for a pair that nobody judged.
      split: where the query belongs.
    """

    query: str
    item_id: str
    item: str
    gain: float | None
    split: str


@dataclasses.dataclass
class _Known:
    """Judgements as they come, by folded query.

    Attributes:
      items: id -> text.
      texts, split_of, gains: query -> its text, where it belongs, id of a product -> gain.
      moved: queries that stood in several splits.
    """

    items: dict[str, str]
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    split_of: dict[str, str] = dataclasses.field(default_factory=dict)
    gains: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    moved: set[str] = dataclasses.field(default_factory=set)

    def add(self, row: Judgement) -> None:
        """File one more."""
        key = fold(row.query)
        self.texts.setdefault(key, " ".join(row.query.split()))
        self.items.setdefault(row.item_id, row.item)
        before = self.split_of.setdefault(key, row.split)
        if before != row.split:
            if TRANSFER not in (before, row.split):
                self.moved.add(key)
            self.split_of[key] = min(before, row.split, key=_RANK.__getitem__)
        gains = self.gains.setdefault(key, {})
        gain = math.nan if row.gain is None else row.gain
        known = gains.get(row.item_id, math.nan)
        gains[row.item_id] = known if gain <= known or math.isnan(gain) else gain


def build_search_data(
    name: str,
    judgements: Iterable[Judgement],
    *,
    more_items: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
) -> SearchData:
    """Data from judgements in any order.

    Queries that differ in case and white space only are one query; of several judgements of a pair
    the highest counts. A query of several splits
    stays in the one that must not be learnt from (test, then validation). Where no query is meant
    for validation, a fixed share of the training queries (a hash of the query) becomes it.

    Args:
      more_items: id -> text of products that nobody judged; they can be found all the same.

    Raises:
      UserError: for a split without queries.
    """
    known = _Known(items=dict(more_items or {}))
    for row in judgements:
        known.add(row)
    notes_ = [*notes]
    if known.moved:
        notes_.append(
            f"{len(known.moved)} queries stood in several splits and count for one of them only"
        )
    split_of = known.split_of
    if "validation" not in split_of.values():
        for key, split in split_of.items():
            if split == "train" and unit_interval(f"validation/{key}") < VALIDATION_SHARE:
                split_of[key] = "validation"
        notes_.append(f"{100 * VALIDATION_SHARE:g}% of the training queries became validation")
    number = {item_id: n for n, item_id in enumerate(known.items)}
    judged = [sorted((number[i], g) for i, g in own.items()) for own in known.gains.values()]
    splits = {
        split: np.array(
            [n for n, key in enumerate(known.texts) if split_of[key] == split], np.int32
        )
        for split in (*SPLITS, TRANSFER)
    }
    pairs = [pair for own in judged for pair in own]
    return SearchData(
        name=name,
        query_ids=tuple(known.texts),
        queries=tuple(known.texts.values()),
        item_ids=tuple(known.items),
        items=tuple(known.items.values()),
        offsets_Q1=np.append(0, np.cumsum([len(own) for own in judged])).astype(np.int64),
        items_J=np.array([item for item, _ in pairs], np.int32),
        gains_J=np.array([gain for _, gain in pairs], np.float32),
        splits=splits,
        notes=tuple(notes_),
    )
