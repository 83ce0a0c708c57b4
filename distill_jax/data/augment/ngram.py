"""A piece of a text stands for all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distill_jax.core.errors import UserError
from distill_jax.data.augment.base import Augment, Draw, Tools, Words, check_rate, register


@register
@dataclass(frozen=True)
class Ngram(Augment):
    """With probability ``rate`` n words in a row are kept, n uniform from 1 to ``longest``.

    Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks",
    section 3.3 (n-gram sampling, p_ng = 0.25, n from 1 to 5).
    """

    kind: ClassVar[str] = "ngram"

    rate: float = 0.25
    longest: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.kind, self.rate)
        if self.longest < 1:
            raise UserError(f"longest of ngram must be at least 1, not {self.longest}")

    def change(self, words: Words, draw: Draw, tools: Tools) -> Words:
        if draw.unit(1)[0] >= self.rate:
            return words
        count = min(1 + draw.below(self.longest, 1), len(words))
        start = draw.below(len(words) - count + 1, 2)
        return words[start : start + count]
