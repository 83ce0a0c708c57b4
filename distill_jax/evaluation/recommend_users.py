"""Lists for a whole base of users, window by window; what is held does not grow with them.

Users with a vector of their own in the model are asked by it, others by what they took, and those
of whom nothing is known get what is popular.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.interactions import Interactions, histories_of
from distill_jax.data.people import Person
from distill_jax.evaluation.item_catalogue import Catalogue
from distill_jax.evaluation.open_recommender import OpenRecommender
from distill_jax.evaluation.recommend import recommend
from distill_jax.evaluation.stream import ahead, windows_of
from distill_jax.models.recommenders.popularity import Popularity

By = Literal["user", "history", "popularity"]
"""What a list rests on: the user's own vector, a history, or nothing that is known of the user."""
Event = tuple[int, int]
"""An item, and of which kind of feedback it is, 0 for what is recommended."""
WINDOW = 4096


@dataclasses.dataclass(frozen=True, eq=False)
class Taken:
    """What people took, from interactions, in a catalogue's numbers.

    Attributes:
      data: the interactions.
      items_I: int32 [items of the data], their numbers in the catalogue; -1 for none.
    """

    data: Interactions
    items_I: np.ndarray

    def of(self, user: str) -> list[Event]:
        """What a user did, oldest first; nothing where the data does not know the user."""
        number = self._numbers.get(user)
        if number is None:
            return []
        start, end = self.data.offsets_U1[number : number + 2]
        items = self.items_I[self.data.items_N[start:end]]
        kinds = np.zeros_like(items)
        if self.data.kinds_N is not None:
            kinds = self.data.kinds_N[start:end]
        known = items >= 0
        return list(zip(items[known].tolist(), kinds[known].tolist(), strict=True))

    @property
    def counts_I(self) -> np.ndarray:
        """int64 [I], interactions with each item of the catalogue, of the kind that is recommended,
        up to the last item that occurs."""
        items_N = self.items_I[self.data.items_N[self.data.asked_N]]
        return np.bincount(items_N[items_N >= 0])

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.data.user_names)}


def taken_from(data: Interactions, catalogue: Catalogue) -> Taken:
    """Interactions read with a model's catalogue.

    Raises:
      UserError: where they share no item.
    """
    number = {name: item for item, name in enumerate(catalogue.names)}
    items_I = np.array([number.get(name, -1) for name in data.item_names], np.int32)
    if items_I.max() < 0:
        raise UserError(
            f"no item of the interactions {data.name!r} ({data.item_names[0]!r}, ...) is in the "
            f"model's catalogue ({catalogue.names[0]!r}, ...)."
        )
    return Taken(data, items_I)


def shown_items(
    catalogue: Catalogue, only: Sequence[int] | None, without: Sequence[int] = ()
) -> np.ndarray:
    """bool [I], the items that may be in a list.

    Raises:
      UserError: where none is left.
    """
    shown_I = np.full(len(catalogue), only is None)
    if only is not None:
        shown_I[list(only)] = True
    shown_I[list(without)] = False
    if not shown_I.any():
        raise UserError("no item of the catalogue is left to recommend.")
    return shown_I


@dataclasses.dataclass
class Told:
    """What was met on the way.

    Attributes:
      by: users by what their lists rest on.
      empty: users for whom nothing was left.
      unknown: words of histories that name no item, or several.
      example: the first of them.
      doubts: words that are an item's id and another one's title.
      doubt: what is said of the first of them.
    """

    by: dict[By, int] = dataclasses.field(
        default_factory=lambda: {"user": 0, "history": 0, "popularity": 0}
    )
    empty: int = 0
    unknown: int = 0
    example: str = ""
    doubts: int = 0
    doubt: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
    """Some users' lists.

    Attributes:
      users: their names, or rows of those without.
      by: what each list rests on.
      top_EK: int32 [E, K], items, best first; -1 where too few are left.
      scores_EK: float32 [E, K], of the model; interactions where the list is what is popular.
    """

    users: list[str]
    by: list[By]
    top_EK: np.ndarray
    scores_EK: np.ndarray


class UserLists:
    """Asks an opened recommender about people.

    Args:
      taken: what people took who are known by name alone.
      shown_I: bool, the items that may be in a list; None for all.
      with_seen: whether what somebody took may be; None for what the run was evaluated with.

    Raises:
      UserError: where nothing says what is popular.
    """

    def __init__(
        self,
        opened: OpenRecommender,
        k: int,
        *,
        taken: Taken | None = None,
        shown_I: np.ndarray | None = None,
        with_seen: bool | None = None,
    ) -> None:
        counts_I = opened.audience.counts_I
        if counts_I is None and taken is not None:
            counts_I = np.zeros(len(opened.catalogue), np.int64)
            counts_I[: len(taken.counts_I)] = taken.counts_I
        if counts_I is None:
            raise UserError(
                "this run does not say what is popular, for users of whom nothing is known: give "
                "the interactions it was trained on (--interactions)."
            )
        self.told = Told()
        self._opened, self._k, self._taken = opened, k, taken
        self._shown_I = shown_I
        self._with_seen = opened.audience.repeats if with_seen is None else with_seen
        self._popular = recommend(
            Popularity(counts_I.astype(np.float32)).scores,
            histories_of([[]], len(opened.catalogue)),
            k,
            shown_I=shown_I,
        )

    def windows(self, people: Iterable[Person]) -> Iterator[Lists]:
        """Lists in the order of the people, who are read ahead by a thread."""
        read = ahead((some, [*map(self._items, some)]) for some in windows_of(people, WINDOW))
        return ahead(self._lists(some, items) for some, items in read)

    def _items(self, person: Person) -> list[Event]:
        items: list[Event] = []
        catalogue, audience = self._opened.catalogue, self._opened.audience
        for word, kind in map(audience.event, catalogue.words(person.history, audience.kinds)):
            if doubt := catalogue.doubt(word):
                self.told.doubts += 1
                self.told.doubt = self.told.doubt or doubt
            found = catalogue.candidates(word)
            if len(found) == 1:
                items.append((found[0], kind))
            else:
                self.told.unknown += 1
                self.told.example = self.told.example or word
        if items or self._taken is None:
            return items
        return self._taken.of(person.user)

    def _lists(self, people: list[Person], events: list[list[Event]]) -> Lists:
        own = [self._opened.audience.number(person.user) for person in people]
        by: list[By] = [
            "user" if number >= 0 else "history" if taken else "popularity"
            for number, taken in zip(own, events, strict=True)
        ]
        (popular_1K,), (counts_1K,) = self._popular
        top_EK = np.repeat(popular_1K[None], len(people), axis=0)
        scores_EK = np.repeat(counts_1K[None], len(people), axis=0)
        rows = [row for row, why in enumerate(by) if why != "popularity"]
        if rows:
            histories = histories_of(
                [[item for item, _ in events[row]] for row in rows],
                len(self._opened.catalogue),
                [own[row] for row in rows],
                [[kind for _, kind in events[row]] for row in rows]
                if self._opened.audience.kinds
                else None,
            )
            top_EK[rows], scores_EK[rows] = recommend(
                self._opened.model.scorer,
                histories,
                self._k,
                shown_I=self._shown_I,
                with_seen=self._with_seen,
            )
        for why in by:
            self.told.by[why] += 1
        self.told.empty += int((top_EK[:, 0] < 0).sum())
        return Lists([person.label for person in people], by, top_EK, scores_EK)
