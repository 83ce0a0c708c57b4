"""What every kind of augmentation is: words of an example in, words of a copy out.

A kind is one file: a frozen dataclass under ``register``, whose fields are the options that its
text may name, ``delete(0.1)``; it is named in ``kinds``. What it makes is a pure function of the
example's id, the seed, the number of the copy, and what it reads (a list of synonyms, say).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import numpy as np

from distill_jax.core.calls import written
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.data.draws import draw_unit

Words = list[str]
Near = Mapping[str, tuple[str, ...]]
"""Word -> words that may stand for it, the nearest first."""
_WORD = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]|[^\s\u3400-\u9fff\uf900-\ufaff]+")
MOST_COPIES = 1000


def words_of(text: str) -> Words:
    """What is between white space; of Chinese characters each one."""
    return _WORD.findall(text)


@dataclass(frozen=True)
class Draw:
    """Random numbers of one text of one copy, for one kind: the same whenever they are asked for.

    Attributes:
      names: whole numbers that say whose they are.
    """

    names: tuple[int, ...]

    @classmethod
    def of(cls, example: str, *names: int) -> Draw:
        """Of an example by its id."""
        word = hashlib.sha256(example.encode()).digest()[:8]
        return cls((int.from_bytes(word, "little", signed=True), *names))

    def unit(self, count: int, what: int = 0) -> np.ndarray:
        """float64 [count] in [0, 1).

        Args:
          what: another one gives other numbers.
        """
        return draw_unit(*self.names, what, np.arange(count))

    def below(self, limit: int, what: int = 0) -> int:
        """A whole number in ``0..limit-1``."""
        return int(self.unit(1, what)[0] * limit)


@dataclass(frozen=True)
class Tools:
    """What kinds may use that belongs to a teacher; None where it has no such thing.

    Attributes:
      teacher: its name, for people.
      mask: the text that its tokeniser reads as its mask.
      near: (words, k) -> of each that it has a vector for, the k nearest others.
      fill: (texts as words, places, k) -> at each place of each text, the k words that its masked
        language model expects most there.
    """

    teacher: str = ""
    mask: str | None = None
    near: Callable[[Sequence[str], int], Near] | None = None
    fill: Callable[[Sequence[Words], Sequence[Sequence[int]], int], list[list[Words]]] | None = None


@dataclass(frozen=True)
class Augment:
    """One kind.

    Attributes:
      kind: its name.
      pairs: whether it can be done to each text of a pair.
      copies: of each example; 0 for what other kinds of the same augmentation say, or one.
      seed: another one gives other copies.
    """

    kind: ClassVar[str] = ""
    pairs: ClassVar[bool] = True

    copies: int = field(default=0, kw_only=True)
    seed: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.copies <= MOST_COPIES:
            raise UserError(
                f"copies of {self.kind} must be from 1 to {MOST_COPIES}, not {self.copies}"
            )
        if not 0 <= self.seed < 2**32:
            raise UserError(f"the seed of {self.kind} must be from 0 to 4294967295")

    def check(self, tools: Tools) -> None:
        """Raises ``UserError`` where what it needs is not there."""

    def change(self, words: Words, draw: Draw, tools: Tools) -> Words | None:
        """A copy's words; None where there is no copy.

        Args:
          words: at least one.
        """
        raise NotImplementedError

    def change_all(
        self,
        texts: Sequence[Words],
        draws: Sequence[Draw],
        ids: Sequence[str],
        copy: int,
        tools: Tools,
    ) -> list[Words | None]:
        """``change`` for many texts.

        Args:
          ids: of the examples.
          copy: which copy of each, from 1.
        """
        pairs = zip(texts, draws, strict=True)
        return [self.change(words, draw, tools) for words, draw in pairs]

    def __str__(self) -> str:
        """As the grammar reads it."""
        return written(self, names_first=True)


def check_rate(kind: str, rate: float, name: str = "rate") -> None:
    """Raises ``UserError`` for what is no share above 0."""
    if not 0 < rate <= 1:
        raise UserError(f"{name} of {kind} must be in (0, 1], not {rate}")


_KINDS: dict[str, type[Augment]] = {}
Kind = TypeVar("Kind", bound=type[Augment])


def register(kind: Kind) -> Kind:
    """Make a kind of augmentation known under its name."""
    _KINDS[kind.kind] = kind
    return kind


def registered() -> dict[str, type[Augment]]:
    """The kinds that are known so far, by name."""
    return dict(_KINDS)
