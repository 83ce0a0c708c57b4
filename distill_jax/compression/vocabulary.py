"""``vocabulary``: embeddings of the tokens that the training texts hold, and a tokeniser of them.

Texts whose tokens are all left have the same embeddings, and the same logits, as before; see
``models.vocabularies``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from flax.traverse_util import flatten_dict

from distill_jax.compression.steps import Step, StepContext, Student, register
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.data.augment.base import Tools
from distill_jax.data.augment.tokens import mask_of
from distill_jax.models.family import family_of
from distill_jax.models.hf_tokenizer import TOKENIZER
from distill_jax.models.vocabularies import occurring_tokens, with_embeddings, write_trimmed
from distill_jax.tasks.classification.splits import Splits, load_texts, prepare_texts


@register
@dataclass(frozen=True)
class Vocabulary(Step):
    """Tokens that do not occur in the training texts are dropped, with their embeddings.

    Attributes:
      min_count: how often a token has to occur, in the training and the transfer texts.
      characters: keep all single characters and their continuations too, so that any word of
        characters that the tokeniser knew can still be split.
    """

    kind: ClassVar[str] = "vocabulary"

    min_count: int = 1
    characters: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_count < 1:
            raise UserError(f"min_count must be at least 1, not {self.min_count}")

    def apply(self, student: Student, context: StepContext) -> Student:
        config: Any = student.config
        path = family_of(config).embeddings
        if student.tokenizer_file is None or not path:
            raise UserError("vocabulary is for students of texts that have embeddings of tokens")
        count = config.token_range.tokens
        table: Any = student.splits.everything
        tokens_R = occurring_tokens(
            student.tokenizer_file,
            np.bincount(table.tokens_S, minlength=count),
            min_count=self.min_count,
            characters=self.characters,
        )
        file = context.folder / TOKENIZER
        write_trimmed(student.tokenizer_file, tokens_R, file)
        embeddings_VD = np.asarray(flatten_dict(student.params)[path])
        splits = read_with(student.splits, file)
        notes = [f"{len(tokens_R):,} of {count:,} tokens are left"]
        notes += list(_coverage(student.splits, splits))
        return student.but(
            config=dataclasses.replace(config, vocab_size=len(tokens_R)),
            params=with_embeddings(student.params, path, embeddings_VD[tokens_R]),
            tokenizer_file=file,
            splits=splits,
            notes=tuple(notes),
        )


def read_with(splits: Splits, tokenizer_file: Path) -> Splits:
    """The same examples as another tokeniser reads them, the same labels chosen."""
    mask = mask_of(tokenizer_file) if splits.config.augment else None
    tools = Tools("the run that is compressed", mask=mask[0] if mask else None)
    return prepare_texts(splits.config, load_texts(splits.config), tokenizer_file, tools)


def _coverage(before: Splits, after: Splits) -> Iterable[str]:
    """How the held-out texts fare, a line each."""
    for name, table in (("validation", "validation"), ("test", "test")):
        own, now = getattr(before, table), getattr(after, table)
        lengths = dict(zip(own.ids, own.lengths_N.tolist(), strict=True))
        found = zip(now.ids, now.lengths_N.tolist(), strict=True)  # of windows there may be more
        same = sum(lengths.get(example) == length for example, length in found)
        unknown = 100 * after.coverage[name].unknown
        longer = now.lengths_N.sum() / own.lengths_N.sum() - 1
        yield (
            f"{name}: {100 * same / len(own):.1f}% of the texts have as many tokens as before, "
            f"{100 * longer:+.2f}% tokens in all, {unknown:.2f}% of them unknown"
        )
