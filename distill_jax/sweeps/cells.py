"""A cell: one entry of a table, as data. Its hash is its identity in the ledger."""

import math
from dataclasses import dataclass, field

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.training.optimizer import OptimizerConfig

RECIPE = 1
"""Raised when the same cell would come out differently than before, so that old rows retire."""

TEACHER = "teacher"
"""The name, among the students, of the teacher that is fine-tuned."""


@dataclass(frozen=True)
class DataConfig:
    """Which examples, and how many of them have labels.

    Attributes:
      name: ``review_snippets/movie``, ``shopping_reviews_zh``, ``files:FOLDER``, ``tfds:NAME``.
      text, text_b, label: columns of the user's own files and of TFDS sets.
      label_fraction: share of the training labels that is used; the sentences of the rest are
        the transfer set, on which only the teacher speaks.
      max_length: tokens after which a text is cut.
    """

    name: str = "review_snippets/movie"
    text: str = "sentence"
    text_b: str | None = None
    label: str = "label"
    label_fraction: float = 0.1
    max_length: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.label_fraction <= 1:
            raise UserError(f"the label fraction must be in (0, 1], not {self.label_fraction}")
        if not 4 <= self.max_length <= 512:
            raise UserError(f"the maximal length must be from 4 to 512, not {self.max_length}")


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Attributes:
      epochs: passes over the training sentences of the cell; decides the number of steps.
      steps: optimiser steps; 0 leaves it to ``epochs``.
      evaluations: how often the validation split is looked at, evenly spread.
      batch_size: examples a step.
      max_shapes: the most lengths that batches are padded to; each is a compilation. As many
        are used as keep the padding under a tenth.
      optimizer: AdamW's settings.
    """

    epochs: float = 2.0
    steps: int = 0
    evaluations: int = 4
    batch_size: int = 64
    max_shapes: int = 16
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if not 0 < self.epochs < math.inf or self.steps < 0:
            raise UserError("epochs must be positive, steps 0 (epochs decide) or positive")
        if min(self.evaluations, self.batch_size, self.max_shapes) < 1:
            raise UserError("evaluations, batch size and max_shapes must be at least 1")

    def total_steps(self, examples: int) -> int:
        """Optimiser steps over a training set of so many examples."""
        return self.steps or max(1, round(self.epochs * -(-examples // self.batch_size)))


@dataclass(frozen=True)
class Cell:
    """One training run of a table.

    Attributes:
      data: what is learnt from; ``data_digest`` its content.
      student: preset, or ``teacher`` for the fine-tuning of the teacher itself.
      objective: canonical text.
      teacher: content digest of the teacher who speaks, or of the checkpoint fine-tuned.
      training: steps, batch, optimiser.
      seed: of initialisation, dropout and data order.
      teacher_dtype: of the teacher's token-level outputs; live ones are float32.
      plugin: SHA-256 of the user's file of losses, if there is one.
    """

    data: DataConfig
    data_digest: str
    student: str
    objective: str
    teacher: str
    training: TrainingConfig
    seed: int
    teacher_dtype: str = "float32"
    plugin: str | None = None

    @property
    def hash(self) -> str:
        """Content digest. What the data is called does not count, its content does."""
        fields = {name: value for name, value in vars(self).items() if name != "data"}
        return digest({"recipe": RECIPE, **fields})
