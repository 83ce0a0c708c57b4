"""BERTs that were made smaller than a BERT can be: heads removed, weights of 8-bit integers.

A Hugging Face BERT has ``hidden_size = heads * head size`` and float weights. What has not is saved
under a model type of its own, which ``transformers`` refuses by name, never under BERT's.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from distill_jax.core.errors import UserError, unknown
from distill_jax.models.bert import ARITHMETIC, MAX_SIZE, Bert, BertConfig
from distill_jax.models.family import Classifiers, register


@dataclasses.dataclass(frozen=True)
class CompactBertConfig(BertConfig):
    """A ``BertConfig`` with a head size of its own and a way to compute.

    Attributes:
      head_size: of each of the ``num_heads`` heads; None for BERT's, ``hidden_size / num_heads``.
      arithmetic: one of ``bert.ARITHMETIC``.
    """

    head_size: int | None = None
    arithmetic: str = "float32"

    def _check_heads(self) -> None:
        if self.arithmetic not in ARITHMETIC:
            raise unknown("arithmetic", self.arithmetic, ARITHMETIC, where="in the BERT config")
        if self.head_size is None:
            super()._check_heads()
        elif not (self.head_size > 0 and self.attention_width <= MAX_SIZE):
            raise UserError(f"BERT config: heads of size {self.head_size} cannot be.")

    @property
    def attention_width(self) -> int:
        if self.head_size is None:
            return self.hidden_size
        return self.head_size * self.num_heads


def compact(config: BertConfig, **changes: Any) -> BertConfig:
    """A BERT's config with changes that a plain one cannot have: a compact one; and a plain one
    where nothing asks for more."""
    fields = {**dataclasses.asdict(config), **changes}
    made = CompactBertConfig(**fields)
    if made.arithmetic != "float32" or made.attention_width != made.hidden_size:
        return made
    return BertConfig(**{each.name: fields[each.name] for each in dataclasses.fields(BertConfig)})


class CompactBerts(Classifiers):
    """What is left of BERTs; no student begins as one."""

    def claims(self, name: str) -> bool:
        return False

    def rounds(self, config: Any) -> bool:
        return config.arithmetic != "float32"


COMPACT_BERTS = register(
    CompactBerts(
        "compact_bert",
        CompactBertConfig,
        Bert,
        pools=True,
        compacts=True,
        embeddings=("embeddings", "word", "embedding"),
    )
)
