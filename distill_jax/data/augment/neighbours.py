"""Words give way to words of like embeddings in the teacher's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from distill_jax.core.errors import UserError
from distill_jax.data.augment.base import Draw, Tools, Words, register
from distill_jax.data.augment.replace import Replacing, core_of, replaced


@register
@dataclass(frozen=True)
class Neighbours(Replacing):
    """Each word gives way to one of the ``k`` of nearest embeddings with probability ``rate``.

    Jiao et al. 2020, "TinyBERT: Distilling BERT for Natural Language Understanding", algorithm 1
    (p_t = 0.4, K = 15), which takes GloVe's vectors, and those only for words of several pieces.
    Here they are the teacher's own embeddings of tokens, by cosine; words of several pieces stay.
    """

    kind: ClassVar[str] = "neighbours"

    def check(self, tools: Tools) -> None:
        if tools.near is None:
            raise UserError(
                f"neighbours: {tools.teacher} does not say where it has embeddings of tokens"
            )

    def change_all(
        self,
        texts: Sequence[Words],
        draws: Sequence[Draw],
        ids: Sequence[str],
        copy: int,
        tools: Tools,
    ) -> list[Words | None]:
        assert tools.near is not None
        known = dict.fromkeys(core_of(word).casefold() for words in texts for word in words)
        near = tools.near(tuple(known), self.k)
        pairs = zip(texts, draws, strict=True)
        return [replaced(words, near, self.rate, draw) for words, draw in pairs]
