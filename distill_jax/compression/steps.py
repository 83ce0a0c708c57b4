"""Steps: stages of a cell that make a finished student smaller. A kind is one file.

Such a file has a frozen dataclass under ``register``, whose fields are the options that its text
may name, ``prune(0.5, by='movement')``, and is named in ``kinds``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from distill_jax.core.calls import written
from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch
from distill_jax.engine.cell import Stage
from distill_jax.engine.engine import Engine
from distill_jax.models.family import ModelConfig
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tasks.classification.cells import TrainingConfig
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.splits import Splits
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.pruning import Pruning
from distill_jax.training.state import Params

Words = Callable[[ResolvedObjective, Splits], TeacherOutputs | None]
"""(objective, examples) -> what teachers say of them; None where it listens to none."""


@dataclasses.dataclass(frozen=True, eq=False)
class Student:
    """What goes from step to step.

    Attributes:
      splits: the examples as its tokeniser reads them.
      pruning: how weights are to go in the next training; None for what is gone already, no more.
      notes: what a step has to tell, a line each.
      metrics: what a step measured beside what is measured of every student.
      fingerprints: digests of what a step stood on beside what every student stands on.
    """

    config: ModelConfig
    params: Params
    tokenizer_file: Path | None
    splits: Splits
    pruning: Pruning | None = None
    notes: tuple[str, ...] = ()
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    fingerprints: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def but(self, **changes: Any) -> Student:
        """The same with some fields replaced."""
        return dataclasses.replace(self, **changes)


class StepContext(Protocol):
    """What a step may use while it is applied, see ``context``."""

    @property
    def training(self) -> TrainingConfig:
        """How the run was trained that all began with."""

    @property
    def folder(self) -> Path:
        """Where a step may put files that it needs."""

    @property
    def engine(self) -> Engine:
        """What trains and evaluates."""

    @property
    def run(self) -> ClassifierRun:
        """That all began with."""

    def train(
        self,
        student: Student,
        objective: str,
        training: TrainingConfig,
        words: Words | None = None,
    ) -> Student:
        """The student after training; an empty objective is the run's own.

        Args:
          words: what teachers say of the student's examples; None for the run's teachers.
        """

    def logits(self, student: Student, split: str) -> np.ndarray:
        """What a student says of ``validation``, say: [N, C]."""

    def gradients(self, student: Student, batches: int) -> list[Params]:
        """Of the run's objective on the first batches of the training examples, dropout on."""

    def batches(self, student: Student, count: int) -> list[Batch]:
        """Training examples, spread evenly."""


@dataclasses.dataclass(frozen=True)
class Step(Stage, ABC):
    """A stage that is done to a finished student.

    Attributes:
      trains: whether it takes optimiser steps.
      waits: whether it is carried out over the steps of the one after it.
      last: whether nothing may come after it.
      names_first: whether its first option is named in its text even where it is at default.
    """

    trains: ClassVar[bool] = False
    last: ClassVar[bool] = False
    names_first: ClassVar[bool] = False

    @property
    def waits(self) -> bool:
        return False

    def check(self, setup: Any) -> None:
        if setup.Training is not TrainingConfig:
            raise UserError(f"{self.kind} is for classifiers")

    @abstractmethod
    def apply(self, student: Student, context: StepContext) -> Student:
        """The student after it.

        Raises:
          UserError: a student that cannot have it done.
        """

    def __str__(self) -> str:
        """As the grammar reads it."""
        return written(self, names_first=self.names_first)


_KINDS: dict[str, type[Step]] = {}
S = TypeVar("S", bound=type[Step])


def register(kind: S) -> S:
    """Make a kind of steps known under its name."""
    _KINDS[kind.kind] = kind
    return kind


def registered() -> dict[str, type[Step]]:
    """The kinds that are known so far, by name."""
    return dict(_KINDS)


def check_order(steps: Sequence[Step]) -> None:
    """Raises ``UserError`` for steps that cannot follow one another."""
    for number, step in enumerate(steps):
        after = steps[number + 1] if number + 1 < len(steps) else None
        if step.waits and not (after and after.trains):
            raise UserError(
                f"{step} goes step by step while the student is trained: distil must follow it"
            )
        if step.last and after:
            raise UserError(f"{step} ends in integers, which nothing can follow: {after} cannot")
