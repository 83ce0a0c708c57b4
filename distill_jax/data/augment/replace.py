"""Words give way to others of a list: what synonyms and neighbours have in common."""

from __future__ import annotations

import string

from distill_jax.data.augment.base import Draw, Near, Words

_EDGES = string.punctuation + "“”‘’„«»…–—"


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
