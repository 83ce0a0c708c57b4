"""Whom a recommender knows, and what people take whom nobody knows."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic

FILE = "audience.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Audience:
    """What a run keeps of those it learned from.

    Attributes:
      counts_I: int64 [I], training interactions with each item (of the kind that is recommended);
        None where the run does not say.
      users: U names of those who have a vector of their own in the model, by number; None for one
        whose vector was never trained. () for models that know people by their histories alone.
      repeats: whether items are taken again, and may be shown again.
      kinds: of feedback that it was told apart, the first is recommended; () for one.
    """

    counts_I: np.ndarray | None = None
    users: tuple[str | None, ...] = ()
    repeats: bool = False
    kinds: tuple[str, ...] = ()

    def event(self, word: str) -> tuple[str, int]:
        """An item's word and the kind of feedback that stands before it, ``click:Alien``.

        Without one it is of the kind that is recommended.
        """
        kind, colon, rest = word.partition(":")
        if colon and kind.strip() in self.kinds:
            return rest.strip(), self.kinds.index(kind.strip())
        return word, 0

    def number(self, user: str) -> int:
        """Of a user with a trained vector; -1 for anybody else."""
        return self._numbers.get(user, -1)

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.users) if name is not None}


def save_audience(folder: Path, audience: Audience) -> None:
    """Write ``audience.json`` into a model's folder."""
    counts = None if audience.counts_I is None else audience.counts_I.tolist()
    body = {"counts": counts, "users": list(audience.users), "repeats": audience.repeats}
    if audience.kinds:
        body["kinds"] = list(audience.kinds)
    write_atomic(folder / FILE, json.dumps(body, ensure_ascii=False) + "\n")


def load_audience(folder: Path, num_items: int) -> Audience:
    """What ``save_audience`` wrote; an empty one where there is nothing.

    Raises:
      UserError: when it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return Audience()
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        counts_I = None if body["counts"] is None else np.array(body["counts"], np.int64)
        users = tuple(None if user is None else str(user) for user in body["users"])
        repeats = body.get("repeats", False)
        if not isinstance(repeats, bool):
            raise ValueError("'repeats' is neither true nor false")
        kinds = tuple(body.get("kinds", ()))
        if not all(isinstance(kind, str) for kind in kinds) or len(kinds) == 1:
            raise ValueError("'kinds' are not names of several")
    except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if counts_I is not None and (counts_I.shape != (num_items,) or counts_I.min(initial=0) < 0):
        raise UserError(f"{path} is damaged: not a count for each of {num_items} items")
    return Audience(counts_I, users, repeats, kinds)
