"""From rows of (user, item, time, rating) to ``Interactions``: order, repeats, rare ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.interactions import Interactions
from distill_jax.data.item_fields import numbered
from distill_jax.data.kinds import kind_numbers

REPEATS = ("first", "last", "keep")
SEPARATOR = " | "
"""Between the parts of an item's text."""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What is done to raw interactions before anything is learned from them.

    Attributes:
      repeats: of several interactions of a user with an item the ``first`` counts (what is
        recommended is new to the user), or the ``last``; or all are kept, and what somebody took
        may be asked for, and recommended, again.
      min_rating: interactions rated lower are dropped; None keeps all.
      min_user_count, min_item_count: users and items with fewer interactions are dropped, again
        and again until all that are left have enough (the k-core, where both are k).
      keep_unseen_items: items that have a text but no interaction stay in the catalogue.
      kinds: of feedback, which others are dropped for; the first is asked for. None for all that a
        column of kinds holds, () where it is not to be read.
      kinds_occur: whether each of them has to; else some may be without interactions.
    """

    repeats: str = "first"
    min_rating: float | None = None
    min_user_count: int = 1
    min_item_count: int = 1
    keep_unseen_items: bool = False
    kinds: tuple[str, ...] | None = None
    kinds_occur: bool = True

    def __post_init__(self) -> None:
        if self.repeats not in REPEATS:
            raise unknown("rule for repeats", self.repeats, REPEATS)
        for name in ("min_user_count", "min_item_count"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1.")


class Rows(NamedTuple):
    """Interactions as read, in the order of the file, one entry a row in every column.

    Attributes:
      parts_N: [N] 0 for train, 1 for validation, 2 for test where the files say so: a user's
        interactions are put in this order first. None where they do not.
      kinds: of feedback; None where the files do not say.
      fields: name -> what else a column says of each row, "" where it says nothing.
    """

    users: Sequence[str]
    items: Sequence[str]
    times_N: np.ndarray | None = None
    ratings_N: np.ndarray | None = None
    parts_N: np.ndarray | None = None
    kinds: Sequence[str] | None = None
    fields: Mapping[str, Sequence[str]] = MappingProxyType({})


class RawInteractions(NamedTuple):
    """What files say: rows, item name -> text, and sentences on what was left out."""

    rows: Rows
    texts: dict[str, str] | None = None
    notes: tuple[str, ...] = ()


def joined(place: Path, tables: list[Rows]) -> Rows:
    """Train, validation and test rows as one, with their parts."""

    def column(name: str) -> Any:
        columns = [getattr(table, name) for table in tables]
        if all(values is None for values in columns):
            return None
        if any(values is None for values in columns):
            word = name.removesuffix("_N").removesuffix("s")
            raise UserError(
                f"data files: some of the splits in {place} have a column {word!r} and some do "
                "not; expected it in all three or in none."
            )
        if name.endswith("_N"):
            return np.concatenate(columns)
        return [value for values in columns for value in values]

    return Rows(
        users=[user for table in tables for user in table.users],
        items=[item for table in tables for item in table.items],
        times_N=column("times_N"),
        ratings_N=column("ratings_N"),
        parts_N=np.repeat(np.arange(len(tables)), [len(table.users) for table in tables]),
        kinds=column("kinds"),
        fields={
            name: [word for table in tables for word in table.fields[name]]
            for name in tables[0].fields
        },
    )


def join_texts(texts: list[str]) -> str:
    """The parts that are not empty as one text, ``title | genres``."""
    return SEPARATOR.join(" ".join(text.split()) for text in texts if text.strip())


def build_interactions(
    name: str,
    rows: Rows,
    *,
    texts: dict[str, str] | None = None,
    preparation: Preparation | None = None,
) -> Interactions:
    """Rows as ``Interactions``; see ``build_with_parts``."""
    return build_with_parts(name, RawInteractions(rows, texts), preparation)[0]


def build_with_parts(
    name: str, raw: RawInteractions, preparation: Preparation | None = None
) -> tuple[Interactions, np.ndarray | None]:
    """What files say as ``Interactions``, with ``parts_N`` in their order.

    Users and items are numbered in the order of their names (by value if all are whole
    numbers), so that the order of the rows does not matter. Each user's interactions are put
    in the order of time; those of one time stay in the order of the rows. Ratings are filtered
    first, then kinds, then repeats (of a user, an item and a kind), then rare users and items.

    Raises:
      UserError: if nothing is left, or if parts and times contradict each other.
    """
    (rows, texts, notes), preparation = raw, preparation or Preparation()
    told = list(notes)
    user_names, users_N = _numbered(rows.users)
    item_names, items_N = _numbered(rows.items)
    kept_N = _well_rated(name, rows, preparation, told)
    kind_names, kinds_N = kind_numbers(
        name, rows.kinds, preparation.kinds, told, occur=preparation.kinds_occur
    )
    if kinds_N is not None:
        kept_N = kept_N[kinds_N[kept_N] >= 0]
        kinds_N = kinds_N if len(kind_names) > 1 else None
    keys = [column[kept_N] for column in (rows.times_N, rows.parts_N) if column is not None]
    order_N = kept_N[np.lexsort([*keys, users_N[kept_N]])]  # stable
    parts_N = None if rows.parts_N is None else rows.parts_N[order_N]
    pairs_N = users_N[order_N] * (items_N.max(initial=0) + 1) + items_N[order_N]
    if kinds_N is not None:
        pairs_N = pairs_N * len(kind_names) + kinds_N[order_N]
    order_N = order_N[_without_repeats(pairs_N, parts_N, preparation, told)]
    order_N = order_N[_frequent(users_N[order_N], items_N[order_N], preparation, told)]
    if not len(order_N):
        reasons = "; ".join(told[len(notes) :])
        because = f" ({reasons})" if reasons else ""
        raise UserError(f"data {name!r}: no interaction is left{because}.")
    _check_parts(name, rows, users_N, user_names, order_N)
    if rows.times_N is not None:
        told += _ties(users_N[order_N], rows.times_N[order_N])
    fields = _fields(rows, order_N, told)
    users_N, user_names = _compact(users_N[order_N], user_names)
    items_N, item_names = _compact(items_N[order_N], item_names)
    item_names, items_N = _catalogue(item_names, items_N, texts, preparation, told)
    counts_U = np.bincount(users_N, minlength=len(user_names))
    data = Interactions(
        name=name,
        user_names=user_names,
        item_names=item_names,
        item_texts=None if texts is None else tuple(texts.get(item, "") for item in item_names),
        offsets_U1=np.concatenate([[0], np.cumsum(counts_U)]).astype(np.int64),
        items_N=items_N.astype(np.int32),
        times_N=None if rows.times_N is None else rows.times_N[order_N],
        ratings_N=None if rows.ratings_N is None else rows.ratings_N[order_N].astype(np.float32),
        notes=tuple(told),
        repeats=preparation.repeats == "keep",
        kind_names=() if kinds_N is None else kind_names,
        kinds_N=None if kinds_N is None else kinds_N[order_N].astype(np.int32),
        **fields,
    )
    return data, None if rows.parts_N is None else rows.parts_N[order_N]


def sorted_names(names: Sequence[str]) -> list[str]:
    """Names in their order: by value if all are whole numbers, else as words."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _numbered(column: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    names = sorted_names(list(set(column)))
    number = {name: position for position, name in enumerate(names)}
    return tuple(names), np.fromiter((number[x] for x in column), np.int64, len(column))


def _well_rated(name: str, rows: Rows, preparation: Preparation, told: list[str]) -> np.ndarray:
    if preparation.min_rating is None:
        low = 0 if rows.ratings_N is None else int((rows.ratings_N <= 0).sum())
        if low:
            told.append(
                f"{low} of {len(rows.users)} interactions are rated 0 or below and count like the "
                "others: --min-rating drops them"
            )
        return np.arange(len(rows.users))
    if rows.ratings_N is None:
        raise UserError(f"data {name!r} has no ratings, which --min-rating asks for.")
    kept_N = np.flatnonzero(~(rows.ratings_N < preparation.min_rating))  # a click has no rating
    dropped = len(rows.users) - len(kept_N)
    if dropped:
        told.append(
            f"{dropped} of {len(rows.users)} interactions are rated below "
            f"{preparation.min_rating:g} and were dropped"
        )
    return kept_N


def _without_repeats(
    pairs_N: np.ndarray, parts_N: np.ndarray | None, preparation: Preparation, told: list[str]
) -> np.ndarray:
    """Positions that are left, of pairs of a user and an item in order of time."""
    last = preparation.repeats == "last"
    _, found = np.unique(pairs_N[::-1] if last else pairs_N, return_index=True)
    kept_N = np.zeros(len(pairs_N), bool)
    kept_N[len(pairs_N) - 1 - found if last else found] = True
    if kept_N.all():
        return np.arange(len(pairs_N))
    note = f"{len(pairs_N) - len(found)} of {len(pairs_N)} interactions repeat an item of the user"
    if preparation.repeats == "keep":
        told.append(f"{note}: all count, and what somebody took is recommended again")
        return np.arange(len(pairs_N))
    told.append(f"{note}: the {preparation.repeats} of them counts (--repeats)")
    if parts_N is not None and (parts_N[~kept_N] > 0).any():
        _, validation, test = np.bincount(parts_N[~kept_N], minlength=3)
        told.append(
            f"{validation} validation and {test} test interactions are among the repeats, and not "
            "asked for"
        )
    return np.flatnonzero(kept_N)


def _frequent(
    users_N: np.ndarray, items_N: np.ndarray, preparation: Preparation, told: list[str]
) -> np.ndarray:
    """Positions left when users and items with too few interactions are gone."""
    kept = np.arange(len(users_N))
    while len(kept):
        user_counts = np.bincount(users_N[kept])[users_N[kept]]
        item_counts = np.bincount(items_N[kept])[items_N[kept]]
        enough = user_counts >= preparation.min_user_count
        enough &= item_counts >= preparation.min_item_count
        if enough.all():
            break
        kept = kept[enough]
    if len(kept) < len(users_N):
        told.append(
            f"{len(users_N) - len(kept)} interactions were dropped so that every user has at "
            f"least {preparation.min_user_count} and every item {preparation.min_item_count}"
        )
    return kept


def _check_parts(
    name: str, rows: Rows, users_N: np.ndarray, user_names: tuple[str, ...], order_N: np.ndarray
) -> None:
    """A user's train rows must not be later than the validation rows, nor these than test."""
    if rows.parts_N is None or rows.times_N is None:
        return
    users, times = users_N[order_N], rows.times_N[order_N]
    back = (np.diff(times) < 0) & (np.diff(users) == 0)
    if back.any():
        user = user_names[users[int(np.flatnonzero(back)[0])]]
        raise UserError(
            f"data {name!r}: user {user!r} has a train (or validation) row that is later than a "
            "validation (or test) row. Split every user by time, or leave the time column out."
        )


def _fields(rows: Rows, order_N: np.ndarray, told: list[str]) -> dict[str, Any]:
    """What else is said of the interactions that are left, as ``Interactions`` takes it."""
    if not rows.fields:
        return {}
    made = {name: numbered([words[row] for row in order_N]) for name, words in rows.fields.items()}
    told += [f"events: field {name!r} has {what}" for name, (_, _, what) in made.items()]
    return {
        "field_names": tuple(made),
        "field_sizes": tuple(size for _, size, _ in made.values()),
        "fields_NC": np.stack([numbers for numbers, _, _ in made.values()], axis=1),
    }


def _ties(users_N: np.ndarray, times_N: np.ndarray) -> list[str]:
    tied = int(((np.diff(users_N) == 0) & (np.diff(times_N) == 0)).sum())
    if not tied:
        return []
    return [f"{tied} interactions have the time of the one before them: the file's order decides"]


def _compact(numbers_N: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers and names without those that no longer occur."""
    used, numbers_N = np.unique(numbers_N, return_inverse=True)
    return numbers_N, tuple(names[number] for number in used)


def _catalogue(
    item_names: tuple[str, ...],
    items_N: np.ndarray,
    texts: Mapping[str, str] | None,
    preparation: Preparation,
    told: list[str],
) -> tuple[tuple[str, ...], np.ndarray]:
    """The items that can be recommended, with ``items_N`` as numbers among them."""
    if texts is None:
        return item_names, items_N
    without = sum(not texts.get(item) for item in item_names)
    if without:
        told.append(f"{without} of {len(item_names)} items have no text")
    unseen = set(texts) - set(item_names)
    if not unseen:
        return item_names, items_N
    if not preparation.keep_unseen_items:
        told.append(f"{len(unseen)} items of the catalogue have no interaction and are left out")
        return item_names, items_N
    told.append(f"{len(unseen)} items of the catalogue have no interaction and can be recommended")
    names = sorted_names([*item_names, *unseen])
    number = {item: position for position, item in enumerate(names)}
    return tuple(names), np.array([number[item] for item in item_names])[items_N]
