"""Words are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distill_jax.data.augment.base import Augment, Draw, Tools, Words, check_rate, register


@register
@dataclass(frozen=True)
class Delete(Augment):
    """Each word is left out with probability ``rate``; one stays at least.

    Wei and Zou 2019, "EDA: Easy Data Augmentation Techniques", section 2 (random deletion).
    """

    kind: ClassVar[str] = "delete"

    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.kind, self.rate)

    def change(self, words: Words, draw: Draw, tools: Tools) -> Words:
        unit = draw.unit(len(words))
        kept = [word for word, own in zip(words, unit, strict=True) if own >= self.rate]
        return kept or [words[int(unit.argmax())]]
