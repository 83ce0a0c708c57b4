"""Words change places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distill_jax.data.augment.base import Augment, Draw, Tools, Words, check_rate, register


@register
@dataclass(frozen=True)
class Swap(Augment):
    """Two words change places, ``rate`` times the number of words, once at least.

    Wei and Zou 2019, "EDA: Easy Data Augmentation Techniques", section 2 (random swap).
    """

    kind: ClassVar[str] = "swap"

    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.kind, self.rate)

    def change(self, words: Words, draw: Draw, tools: Tools) -> Words:
        words, count = list(words), max(1, round(self.rate * len(words)))
        first, second = ((draw.unit(count, what) * len(words)).astype(int) for what in (0, 1))
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            words[one], words[other] = words[other], words[one]
        return words
