"""Words give way to others: what synonyms, neighbours and the words of a language model share."""

from __future__ import annotations

import string
from dataclasses import dataclass

from distill_jax.core.errors import UserError
from distill_jax.data.augment.base import Augment, Draw, Near, Words, check_rate

MOST_OTHERS = 1000
_EDGES = string.punctuation + "“”‘’„«»…–—"


@dataclass(frozen=True)
class Replacing(Augment):
    """Each word gives way, with probability ``rate``, to one of ``k`` others."""

    rate: float = 0.4
    k: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.kind, self.rate)
        if not 1 <= self.k <= MOST_OTHERS:
            raise UserError(f"k of {self.kind} must be from 1 to {MOST_OTHERS}, not {self.k}")


def replaced(words: Words, near: Near, rate: float, draw: Draw) -> Words:
    """Words, each that ``near`` has replaced by one of its others with probability ``rate``.

    Punctuation around a word stays, and a capital at its beginning.
    """
    unit, chosen = draw.unit(len(words)), draw.unit(len(words), 1)
    found = []
    for word, own, which in zip(words, unit, chosen, strict=True):
        core = core_of(word)
        others = near.get(core.casefold(), ())
        if own >= rate or not others:
            found.append(word)
            continue
        other = others[int(which * len(others))]
        if core[:1].isupper():
            other = other[:1].upper() + other[1:]
        found.append(word.replace(core, other, 1))
    return found


def core_of(word: str) -> str:
    """The word without the punctuation around it."""
    return word.strip(_EDGES)
