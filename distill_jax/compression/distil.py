"""``distil``: the student goes on learning from the same teacher; what is pruned stays away."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from distill_jax.compression.steps import Step, StepContext, Student, register
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.terms import Option
from distill_jax.tasks.classification.cells import TrainingConfig
from distill_jax.tasks.kinds.kinds import all_names, kind_named


class _OfAnyKind:
    """The losses of all kinds of tasks: a step's text does not say of which it is. Options are
    those of classes where they differ."""

    def names(self) -> tuple[str, ...]:
        known = (kind_named(name).outputs.names() for name in all_names())
        return tuple(dict.fromkeys(itertools.chain(*known)))

    def options(self, name: str) -> Mapping[str, Option]:
        outputs = (kind_named(each).outputs for each in reversed(all_names()))
        able = (each.options(name) for each in outputs if name in each.names())
        return {key: option for own in able for key, option in own.items()}


@dataclass(frozen=True)
class Training(Step):
    """A step that trains. Its settings are those of the run's last stage where it names none.

    Attributes:
      objective: as text; empty for the run's own.
      epochs: passes over the training examples; 0 for as many as the run took.
      steps: optimiser steps; 0 leaves them to ``epochs``.
      rate: peak learning rate; 0 for the run's.
    """

    trains: ClassVar[bool] = True

    objective: str = ""
    epochs: float = 0.0
    steps: int = 0
    rate: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("epochs", "steps", "rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} of {self.kind} must not be negative")
        if self.objective:
            object.__setattr__(self, "objective", str(parse(self.objective, _OfAnyKind())))

    def check(self, setup: Any) -> None:
        super().check(setup)
        if self.objective:
            setup.kind.parse(self.objective)

    @property
    def objectives(self) -> tuple[str, ...]:
        return (self.objective,) if self.objective else ()

    def settings(self, own: TrainingConfig) -> TrainingConfig:
        """How it trains, where the run's last stage trained as ``own`` says."""
        if self.epochs or self.steps:
            epochs = self.epochs or own.epochs
            own = dataclasses.replace(own, epochs=epochs, steps=self.steps, min_steps=0)
        return own.at_rate(self.rate) if self.rate else own


@register
@dataclass(frozen=True)
class Distil(Training):
    """See ``Training``."""

    kind: ClassVar[str] = "distil"

    def apply(self, student: Student, context: StepContext) -> Student:
        return context.train(student, self.objective, self.settings(context.training))
