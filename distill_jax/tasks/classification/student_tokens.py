"""Students whose tokeniser is not their teacher's: a smaller vocabulary, where logits alone are
compared.

The teacher is asked about its own tokens of the same examples, and its words are found by example.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError
from distill_jax.core.files import home
from distill_jax.core.types import Capture
from distill_jax.data.wordpiece import kept_wordpiece
from distill_jax.models.family import family_of
from distill_jax.models.hf_tokenizer import TOKENIZER, load_tokenizer
from distill_jax.models.starts import Blend, parse_start
from distill_jax.models.vocabularies import (
    occurring_tokens,
    transferred_embeddings,
    with_embeddings,
    write_trimmed,
)
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tasks.classification.cells import OCCURRING, ClassifierCell, TeacherConfig
from distill_jax.tasks.classification.models import Checkpoint
from distill_jax.tasks.classification.splits import Splits, load_texts, prepare_texts


@dataclass(frozen=True, eq=False)
class Reading:
    """How a student reads the examples.

    Attributes:
      splits: in its tokens.
      checkpoint: what it starts from, with embeddings of these tokens.
    """

    splits: Splits
    checkpoint: Checkpoint

    @property
    def told(self) -> str:
        """For people."""
        unknown = 100 * self.splits.coverage["test"].unknown
        count = self.checkpoint.config.token_range.tokens
        return f"a vocabulary of its own, {count:,} tokens; {unknown:.1f}% of the test's are [UNK]"


def own_reading(vocabulary: str, splits: Splits, checkpoint: Checkpoint) -> Reading:
    """The examples in a student's own tokens, and what it starts from.

    Args:
      vocabulary: a number of tokens, or ``OCCURRING``, see ``ClassifierSetup``.
      splits, checkpoint: the teacher's.

    Raises:
      UserError: for a teacher without tokens.
    """
    old, config = checkpoint.tokenizer_file, checkpoint.config
    path = family_of(config).embeddings
    if old is None or not path:
        raise UserError("--student-vocab is for students of a teacher that reads tokens of texts")
    table_VD = np.asarray(flatten_dict(checkpoint.params)[path])
    if vocabulary == OCCURRING:
        table: Any = splits.everything
        tokens_R = occurring_tokens(old, np.bincount(table.tokens_S, minlength=len(table_VD)))
        file = _trimmed(old, tokens_R)
        table_RD = table_VD[tokens_R]
    else:
        file = _trained(int(vocabulary), splits, old)
        table_RD = transferred_embeddings(table_VD, old, file)
    own = dataclasses.replace(
        checkpoint,
        config=dataclasses.replace(config, vocab_size=len(table_RD)),
        params=with_embeddings(checkpoint.params, path, table_RD),
        tokenizer_file=file,
    )
    return Reading(prepare_texts(splits.config, load_texts(splits.config), file), own)


def check_own_tokens(cell: ClassifierCell, resolved: ResolvedObjective) -> None:
    """Raises ``UserError`` for an objective that compares what a student with tokens of its own
    says of them, or a teacher that would be asked about them."""
    if not cell.setup.vocabulary:
        return
    start = parse_start(cell.setup.start)
    if isinstance(start, Blend) and start.trained:
        raise UserError(
            f"--student-start {cell.setup.start}: with --student-vocab the student's tokens are "
            "not its teacher's, of which it would be made; a share of the checkpoint is there"
        )
    if not resolved.needs_teacher:
        return
    everywhere = resolved.student.per_token  # outputs are of tokens, logits too
    compares = [
        term.label
        for term in resolved.terms
        if everywhere or any(_tokenwise(reader.teacher_capture) for reader in term.readers)
    ]
    if compares:
        raise UserError(
            f"{', '.join(compares)} of {resolved.objective} compares tokens, and with "
            f"--student-vocab {cell.setup.vocabulary} the student's are not its teacher's: distil "
            "by logits (kl, mse_logits), or leave the flag out"
        )
    if any(_is_live(teacher) for teacher in cell.setup.teachers):
        raise UserError(
            "--student-vocab needs --teacher-outputs cache: a live teacher would be asked about "
            "the student's tokens"
        )


def _tokenwise(capture: Any) -> bool:
    return capture is not None and capture != Capture()


def _is_live(teacher: TeacherConfig) -> bool:
    return teacher.outputs == "live"


def _trimmed(old: Path, tokens_R: np.ndarray) -> Path:
    """The tokeniser of some tokens, kept by what it is made of."""
    name = digest({"trimmed": sha256_file(old), "tokens": tokens_R.tolist()})
    file = home() / "tokenizers" / name / TOKENIZER
    if not file.is_file():
        write_trimmed(old, tokens_R, file)
    return file


def _trained(size: int, splits: Splits, old: Path) -> Path:
    """A tokeniser of the training texts, that treats case as the teacher's does."""
    train = load_texts(splits.config).splits["train"]
    texts = train.texts if train.texts_b is None else (*train.texts, *train.texts_b)
    normalizer = load_tokenizer(old).normalizer
    lowercase = normalizer is not None and normalizer.normalize_str("A") == "a"
    return kept_wordpiece(texts, size, lowercase=lowercase, home=home())
