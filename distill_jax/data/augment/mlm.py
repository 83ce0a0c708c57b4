"""Words give way to what the teacher's masked language model expects in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.augment.base import Draw, Tools, Words, register
from distill_jax.data.augment.replace import Replacing


@register
@dataclass(frozen=True)
class Mlm(Replacing):
    """Each word gives way, with probability ``rate``, to one of the ``k`` that a masked language
    model expects most there.

    Jiao et al. 2020, "TinyBERT: Distilling BERT for Natural Language Understanding", algorithm 1
    (p_t = 0.4, K = 15). There one word is masked at a time; here all of a text that give way are
    masked at once, what another kind has masked too, and each is one token.
    """

    kind: ClassVar[str] = "mlm"

    def check(self, tools: Tools) -> None:
        if tools.fill is None:
            raise UserError(
                f"mlm: the checkpoint {tools.teacher} has no head of a masked language model "
                "(cls.predictions); take neighbours, or a teacher saved with that head"
            )

    def change_all(
        self,
        texts: Sequence[Words],
        draws: Sequence[Draw],
        ids: Sequence[str],
        copy: int,
        tools: Tools,
    ) -> list[Words | None]:
        assert tools.fill is not None
        places = [
            np.flatnonzero((draw.unit(len(words)) < self.rate) | _masked(words, tools)).tolist()
            for words, draw in zip(texts, draws, strict=True)
        ]
        found: list[Words | None] = []
        filled = tools.fill(texts, places, self.k)
        for words, draw, own, expected in zip(texts, draws, places, filled, strict=True):
            which = draw.unit(len(words), 1)
            copied = list(words)
            for place, choices in zip(own, expected, strict=True):
                if choices:
                    copied[place] = choices[int(which[place] * len(choices))]
            found.append(copied)
        return found


def _masked(words: Words, tools: Tools) -> np.ndarray:
    """Words that a tokeniser reads as a mask, or as one and something around it."""
    assert tools.mask is not None
    return np.array([tools.mask in word for word in words])
