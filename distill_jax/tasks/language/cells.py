"""What a cell of language models is: texts, tokeniser, model, teacher, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.engine.cell import Cell
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.vocabulary import VOCABULARY
from distill_jax.training.optimizer import OptimizerConfig

RECIPE = 1
"""Raised when the same cell would come out differently than before, so that old rows retire."""

Asks = Literal["masked", "next"]
"""The question: which words were hidden, or which token comes next."""


@dataclass(frozen=True)
class LanguageDataConfig:
    """Which texts, and how they are cut into tokens and words.

    Attributes:
      name: see ``data.corpus.load_corpus``.
      text: column of the user's own files and of TFDS sets.
      max_length: tokens after which a text is cut; where the next token is asked for, after which
        it is read on in another window.
      vocab_size: of the tokeniser that is trained on the training texts; not read where the model
        starts from another, or has a teacher: then it reads their tokens.
      lowercase: of that tokeniser: letters lose case and accents.
      words: what is hidden as a whole: ``pieces``, the tokens of a word (of Chinese each
        character); ``spaces``, what stands between spaces.
      mask_share: of a text's tokens that are asked for.
    """

    name: str = "review_snippets/movie"
    text: str = "sentence"
    max_length: int = 128
    vocab_size: int = 8000
    lowercase: bool = True
    words: Literal["pieces", "spaces"] = "pieces"
    mask_share: float = 0.15

    def __post_init__(self) -> None:
        check_fields(self)
        if not 4 <= self.max_length <= 512:
            raise UserError(f"the maximal length must be from 4 to 512, not {self.max_length}")
        if not 0 < self.mask_share < 1:
            raise UserError(f"the mask share must be in (0, 1), not {self.mask_share}")


@dataclass(frozen=True)
class LanguageTraining:
    """How a language model is trained.

    Attributes:
      epochs: passes over the training texts; decides the number of steps.
      steps: optimiser steps; 0 leaves it to ``epochs``.
      evaluations: how often the validation split is looked at, evenly spread.
      batch_size: texts a step.
      max_shapes: the most lengths that batches are padded to; each is a compilation.
      optimizer: AdamW's settings.
    """

    epochs: float = 3.0
    steps: int = 0
    evaluations: int = 4
    batch_size: int = 64
    max_shapes: int = 4
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=5e-4))

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.epochs < math.inf:
            raise UserError(f"epochs must be positive, not {self.epochs:g}")
        if self.steps < 0 or min(self.evaluations, self.batch_size, self.max_shapes) < 1:
            raise UserError(
                "steps must not be negative; evaluations, batch size and shapes at least 1"
            )

    def total_steps(self, texts: int) -> int:
        """Optimiser steps over so many training texts."""
        return self.steps or max(1, round(self.epochs * -(-texts // self.batch_size)))


@dataclass(frozen=True)
class LanguageSetup:
    """What a cell of language models is.

    Attributes:
      asks: the question.
      student: size of a model that starts by chance: ``4x256``, ``2x128x2``, ``tiny``.
      start: a folder (of hidden words also a hub id) whose model and tokeniser it goes on from.
      teacher: likewise, of the model that it hears.
    """

    Training: ClassVar[type] = LanguageTraining

    data: LanguageDataConfig = field(default_factory=LanguageDataConfig)
    asks: Asks = "masked"
    student: str = "4x256"
    start: str = ""
    teacher: str = ""

    def __post_init__(self) -> None:
        check_fields(self)

    def settled(self, cell: LanguageCell) -> LanguageCell:
        """The objective in canonical form.

        Raises:
          UserError: for one that needs a teacher and has none.
        """
        if len(cell.making) > 1:
            raise UserError("a language model is trained in one stage")
        if self.start:  # its size is what it starts from
            cell = cell.but(student="start")
        return cell.but(objective=str(parse(cell.objective, VOCABULARY)))

    def identity(self, cell: LanguageCell) -> dict[str, Any]:
        """All that decides the run: contents of texts, tokens, start and teacher; not their names,
        and not how the tokeniser came about."""
        return {"recipe": RECIPE, "kind": "language", **cell.counted("data", "start", "teacher")}


LanguageCell = Cell[LanguageSetup]
