"""Who took which item when: one ragged table of users, and what is asked of a recommender.

Shapes: U users, I items, N interactions, E cases (one question to a recommender each),
S interactions of several histories one after another.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from distill_jax.core.digests import digest, digest_arrays, digest_strings
from distill_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Interactions:
    """Interactions of users with items, in chronological order inside each user.

    Attributes:
      name: what ``--data`` was given, of a path its last part.
      user_names: U unique names.
      item_names: I unique names; the number of an item is its position here, from 0.
      item_texts: I texts (``title | genres`` or any other), "" for an item that has none; None
        where the data has no texts.
      offsets_U1: int64 [U + 1]; user u has the interactions ``offsets[u]:offsets[u + 1]``.
      items_N: int32 [N] item numbers.
      times_N: [N] seconds, ascending inside a user; None where only the order is known.
      ratings_N: float32 [N], or None.
      notes: what was decided about the data on the user's behalf, one sentence each.
      repeats: whether a user takes items again: what is in a history competes and may be shown.
      kind_names: the kinds of feedback (``buy``, ``cart``, ``click``), the first of which is asked
        for and recommended; () where all interactions are of one kind.
      field_names: what else is said of each interaction, for models that may read it.
      field_sizes: numbers that each of these fields has, 0 (unknown) among them.
      fields_NC: int32 [N, C], its number; None for ().
      kinds_N: int32 [N], the kind of each interaction by its place in ``kind_names``; None for ().
    """

    name: str
    user_names: tuple[str, ...]
    item_names: tuple[str, ...]
    item_texts: tuple[str, ...] | None
    offsets_U1: np.ndarray
    items_N: np.ndarray
    times_N: np.ndarray | None = None
    ratings_N: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    repeats: bool = False
    kind_names: tuple[str, ...] = ()
    kinds_N: np.ndarray | None = None
    field_names: tuple[str, ...] = ()
    field_sizes: tuple[int, ...] = ()
    fields_NC: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not len(self.items_N):
            raise UserError(f"data {self.name!r}: there is no interaction.")
        for names, kind in ((self.user_names, "user"), (self.item_names, "item")):
            if len(set(names)) != len(names):
                raise ValueError(f"{kind} names are not unique")
        if self.item_texts is not None and len(self.item_texts) != self.num_items:
            raise ValueError(f"{len(self.item_texts)} texts for {self.num_items} items")
        if len(self.offsets_U1) != self.num_users + 1 or (np.diff(self.offsets_U1) < 0).any():
            raise ValueError("offsets must ascend, one more than there are users")
        if self.offsets_U1[0] != 0 or self.offsets_U1[-1] != len(self):
            raise ValueError("offsets must run from 0 to the number of interactions")
        if self.items_N.min() < 0 or self.items_N.max() >= self.num_items:
            raise ValueError(f"item numbers must lie in 0..{self.num_items - 1}")
        if (self.kinds_N is None) != (len(self.kind_names) < 2):
            raise ValueError("kinds of interactions need two names or more, and names need kinds")
        for column in (self.times_N, self.ratings_N, self.kinds_N, self.fields_NC):
            if column is not None and len(column) != len(self):
                raise ValueError(f"a column has {len(column)} entries, expected {len(self)}")
        if self.times_N is not None:
            inside_user = np.ones(len(self), bool)
            inside_user[self.offsets_U1[:-1][self.lengths_U > 0]] = False
            if (np.diff(self.times_N)[inside_user[1:]] < 0).any():
                raise ValueError("interactions of a user are not in chronological order")

    def __len__(self) -> int:
        return len(self.items_N)

    @property
    def num_users(self) -> int:
        return len(self.user_names)

    @property
    def num_items(self) -> int:
        return len(self.item_names)

    @property
    def lengths_U(self) -> np.ndarray:
        """int64 [U], interactions of each user."""
        return np.diff(self.offsets_U1)

    @property
    def users_N(self) -> np.ndarray:
        """int32 [N], whose each interaction is."""
        return np.repeat(np.arange(self.num_users, dtype=np.int32), self.lengths_U)

    @property
    def asked_N(self) -> np.ndarray:
        """bool [N], the interactions that a recommender may be asked for: of the first kind."""
        if self.kinds_N is None:
            return np.ones(len(self), bool)
        return self.kinds_N == 0

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the content; the name and the notes do not enter."""
        arrays = {
            "offsets": self.offsets_U1,
            "items": self.items_N,
            "times": self.times_N,
            "ratings": self.ratings_N,
            "kinds": self.kinds_N,
            "fields": self.fields_NC,
        }
        return digest(
            {
                "users": digest_strings(self.user_names),
                "items": digest_strings(self.item_names),
                "texts": None if self.item_texts is None else digest_strings(self.item_texts),
                "arrays": digest_arrays({k: v for k, v in arrays.items() if v is not None}),
                **({"repeats": True} if self.repeats else {}),
                **({"kinds": digest_strings(self.kind_names)} if self.kind_names else {}),
                **({"fields": [self.field_names, self.field_sizes]} if self.field_names else {}),
            }
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Histories:
    """What E users took, oldest first: all that a recommender is told.

    Attributes:
      users_E: int32 [E] numbers of the users, -1 for somebody who is not in the data.
      offsets_E1: int64 [E + 1] into ``items_S``.
      items_S: int32 [S] item numbers.
      num_items: size of the catalogue, I.
      kinds_S: int32 [S], the kind of each interaction, 0 for what is recommended; None where there
        is one kind.
      fields_SC: int32 [S, C], of each interaction, see ``Interactions``; None where nobody says.
    """

    users_E: np.ndarray
    offsets_E1: np.ndarray
    items_S: np.ndarray
    num_items: int
    kinds_S: np.ndarray | None = None
    fields_SC: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users_E)

    @property
    def lengths_E(self) -> np.ndarray:
        return np.diff(self.offsets_E1)

    @property
    def rows_S(self) -> np.ndarray:
        """int64 [S], the history that each item belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths_E)

    def take(self, rows: np.ndarray) -> "Histories":
        """The histories at these rows, in this order."""
        return _gather(
            self.users_E[rows],
            self.items_S,
            self.offsets_E1[:-1][rows],
            self.lengths_E[rows],
            self.num_items,
            self.kinds_S,
            self.fields_SC,
        )

    def part(self, start: int, stop: int) -> "Histories":
        """The histories ``start:stop``."""
        return self.take(np.arange(start, min(stop, len(self))))

    def padded(self, length: int) -> np.ndarray:
        """int32 [E, length]: the newest items, left-padded; item number + 1, 0 is padding."""
        return self._padded(self.items_S + 1, length)

    def padded_kinds(self, length: int) -> np.ndarray | None:
        """int32 [E, length]: the kinds of ``padded``, 0 at padding; None where there is one."""
        return None if self.kinds_S is None else self._padded(self.kinds_S, length)

    def padded_fields(self, length: int) -> np.ndarray | None:
        """int32 [E, length, C]: the fields of ``padded``, 0 at padding; None without any."""
        return None if self.fields_SC is None else self._padded(self.fields_SC, length)

    def _padded(self, values_S: np.ndarray, length: int) -> np.ndarray:
        column_S = np.arange(len(values_S)) - self.offsets_E1[1:][self.rows_S] + length
        kept_S = column_S >= 0
        values_ET = np.zeros((len(self), length, *values_S.shape[1:]), np.int32)
        values_ET[self.rows_S[kept_S], column_S[kept_S]] = values_S[kept_S]
        return values_ET

    @property
    def taken_S(self) -> np.ndarray:
        """bool [S], what is not recommended again: interactions of the kind that is."""
        if self.kinds_S is None:
            return np.ones(len(self.items_S), bool)
        return self.kinds_S == 0

    def matrix(self) -> sparse.csr_array:
        """float32 [E, I]: 1 where the history holds the item, however often."""
        ones_S = np.ones(len(self.items_S), np.float32)
        shape = (len(self), self.num_items)
        matrix = sparse.csr_array((ones_S, self.items_S, self.offsets_E1), shape=shape)
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix


def histories_of(
    rows: Sequence[Sequence[int]],
    num_items: int,
    users: Sequence[int] | None = None,
    kinds: Sequence[Sequence[int]] | None = None,
) -> Histories:
    """Histories from lists of item numbers, oldest first.

    Args:
      users: numbers of the users; None for people who are not in the data.
      kinds: of the interactions, a list a row; None where there is one kind.
    """
    lengths = [len(row) for row in rows]
    return Histories(
        users_E=np.full(len(rows), -1, np.int32) if users is None else np.array(users, np.int32),
        offsets_E1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items_S=np.array([item for row in rows for item in row], np.int32),
        num_items=num_items,
        kinds_S=None if kinds is None else np.array([k for row in kinds for k in row], np.int32),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Cases:
    """What is asked: after this history, which item comes next?

    Attributes:
      users_E: int32 [E] user numbers, ascending.
      ends_E: int64 [E]; the history is ``items_N[offsets[user]:end]``, the target
        ``items_N[end]``.
    """

    users_E: np.ndarray
    ends_E: np.ndarray

    def __len__(self) -> int:
        return len(self.users_E)

    def take(self, rows: np.ndarray) -> "Cases":
        """The cases at these rows."""
        return Cases(self.users_E[rows], self.ends_E[rows])

    def targets_E(self, data: Interactions) -> np.ndarray:
        """int32 [E], the items to be found."""
        return data.items_N[self.ends_E]

    def histories(self, data: Interactions, learned_U: np.ndarray | None = None) -> Histories:
        """What each case tells of its user.

        Args:
          learned_U: bool [U], users whom a model knows; the others' numbers become -1, as those of
            people who are not in the data. None where all are known.
        """
        starts_E, users_E = data.offsets_U1[self.users_E], self.users_E
        if learned_U is not None:
            users_E = np.where(learned_U[users_E], users_E, np.int32(-1))
        lengths_E = self.ends_E - starts_E
        return _gather(
            users_E,
            data.items_N,
            starts_E,
            lengths_E,
            data.num_items,
            data.kinds_N,
            data.fields_NC,
        )


def _gather(
    users_E: np.ndarray,
    items_N: np.ndarray,
    starts_E: np.ndarray,
    lengths_E: np.ndarray,
    num_items: int,
    kinds_N: np.ndarray | None,
    fields_NC: np.ndarray | None,
) -> Histories:
    """Histories ``items_N[start:start + length]``."""
    offsets_E1 = np.concatenate([[0], np.cumsum(lengths_E)]).astype(np.int64)
    shift_S = np.repeat(starts_E - offsets_E1[:-1], lengths_E)
    place_S = np.arange(offsets_E1[-1]) + shift_S
    kinds_S = None if kinds_N is None else kinds_N[place_S]
    fields_SC = None if fields_NC is None else fields_NC[place_S]
    return Histories(users_E, offsets_E1, items_N[place_S], num_items, kinds_S, fields_SC)


@dataclasses.dataclass(frozen=True, eq=False)
class RankingSplit:
    """Interactions with what may be learned from and what is asked.

    Attributes:
      data: all interactions.
      train_ends_U: int64 [U]; training uses ``items_N[offsets[u]:train_ends[u]]``, nothing else.
      validation, test: cases whose targets lie behind ``train_ends_U``.
      protocol: one sentence, printed with every number.
      asked: whose the cases are, where training leaves out some of what lies between: the same
        users and items; None for ``data``.
      known_U: bool [U], users whom a model knows from before; None for nobody.
    """

    data: Interactions
    train_ends_U: np.ndarray
    validation: Cases
    test: Cases
    protocol: str
    asked: Interactions | None = None
    known_U: np.ndarray | None = None

    def __post_init__(self) -> None:
        starts_U = self.data.offsets_U1[:-1]
        if ((self.train_ends_U < starts_U) | (self.train_ends_U > self.data.offsets_U1[1:])).any():
            raise ValueError("train_ends_U must lie inside each user's interactions")
        for name, cases in (("validation", self.validation), ("test", self.test)):
            if not len(cases):
                because = f" ({'; '.join(self.data.notes)})" if self.data.notes else ""
                raise UserError(f"data {self.data.name!r}: the {name} split has no case{because}.")
            ends_E, users_E = cases.ends_E, cases.users_E
            if self.asked is None and (ends_E < self.train_ends_U[users_E]).any():
                raise ValueError(f"a {name} target lies in the training part")
            if (ends_E >= self.asked_data.offsets_U1[users_E + 1]).any():
                raise ValueError(f"a {name} target lies behind its user's interactions")

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the data and of which part of it is what."""
        arrays = {
            "train_ends": self.train_ends_U,
            "validation_users": self.validation.users_E,
            "validation_ends": self.validation.ends_E,
            "test_users": self.test.users_E,
            "test_ends": self.test.ends_E,
        }
        names = {"data": self.data.digest, "arrays": digest_arrays(arrays)}
        return digest(names if self.asked is None else {**names, "asked": self.asked.digest})

    @property
    def asked_data(self) -> Interactions:
        """Whose the cases are."""
        return self.data if self.asked is None else self.asked

    @property
    def learned_U(self) -> np.ndarray:
        """bool [U], users of whom something is or was learned: others are nobody to a model."""
        learned_U = self.train_ends_U > self.data.offsets_U1[:-1]
        return learned_U if self.known_U is None else learned_U | self.known_U

    @functools.cached_property
    def train_where_N(self) -> np.ndarray:
        """bool [N], the interactions that may be learned from."""
        return np.arange(len(self.data)) < self.train_ends_U[self.data.users_N]

    @functools.cached_property
    def train_counts_I(self) -> np.ndarray:
        """int64 [I], training interactions with each item."""
        items = self.data.items_N[self.train_where_N]
        return np.bincount(items, minlength=self.data.num_items)

    @property
    def target_counts_I(self) -> np.ndarray:
        """int64 [I], those of the kind that is recommended: what is popular."""
        items = self.data.items_N[self.train_where_N & self.data.asked_N]
        return np.bincount(items, minlength=self.data.num_items)

    def train_histories(self) -> Histories:
        """The training part of every user, of some nothing."""
        return Cases(np.arange(self.data.num_users, dtype=np.int32), self.train_ends_U).histories(
            self.data
        )

    def train_matrix(self) -> sparse.csr_array:
        """float32 [U, I]: 1 where the user took the item in training."""
        return self.train_histories().matrix()
