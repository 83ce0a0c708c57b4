"""Words give way to the teacher's mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distill_jax.core.errors import UserError
from distill_jax.data.augment.base import Augment, Draw, Tools, Words, check_rate, register


@register
@dataclass(frozen=True)
class Mask(Augment):
    """Each word becomes the mask with probability ``rate``.

    Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks",
    section 3.3 (masking, p_mask = 0.1).
    """

    kind: ClassVar[str] = "mask"

    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.kind, self.rate)

    def check(self, tools: Tools) -> None:
        if tools.mask is None:
            raise UserError(
                f"mask: the tokeniser of {tools.teacher} reads no text as its mask; take delete"
            )

    def change(self, words: Words, draw: Draw, tools: Tools) -> Words:
        assert tools.mask is not None
        unit = draw.unit(len(words))
        return [
            tools.mask if own < self.rate else word for word, own in zip(words, unit, strict=True)
        ]
