"""Outputs of models that predict something else than one class an example.

A kind of task brings a subclass of ``Predictions``: it says which losses on outputs have a meaning
there, what the labels are and which values count. Losses that look inside the models (hidden
states, attention, relations between examples) are read as those of classifiers are.

Shapes: ``logits_BC`` of a head that reads one vector an example, or [B, T, C] of one that reads
every token; ``Batch.targets`` as ``core.types`` has them. A loss works on the last axis and gives
values of the axes before; ``where`` has the shape of the values.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, ModelShape
from distill_jax.objectives import registry
from distill_jax.objectives.feeds import Feed, Shape, check_classes, logits_of
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.readers import Loss, Options, Params, Reader, Said
from distill_jax.objectives.registry import Spec
from distill_jax.objectives.terms import Option


@dataclasses.dataclass(frozen=True)
class PredictionReader(Reader):
    """A loss on outputs.

    Attributes:
      outputs: whose methods say what is read.
      labelled: whether the loss reads labels; then only examples that have some count.
      fixed: arguments of the loss that no text may give.
    """

    outputs: Predictions
    labelled: bool
    fixed: tuple[tuple[str, Any], ...] = ()

    @property
    def structure(self) -> tuple[str, ...]:
        return (self.outputs.says, *(f"{key}={value!r}" for key, value in self.fixed))

    def where(self, batch: Batch, teacher: Any) -> Array:
        where = self.outputs.where(batch, self.labelled)
        heard_B = None if teacher is None else teacher.heard_B
        return where if heard_B is None else where & heard_B

    def values(self, loss: Loss, params: Params, said: Said, teacher: Any, draw: Any) -> Array:
        sides = [said.output] if teacher is None else [said.output, teacher]
        loss = functools.partial(loss, **dict(self.fixed))
        return self.outputs.values(loss, sides, said.batch, labelled=self.labelled)


@dataclasses.dataclass(frozen=True)
class Predictions(Outputs):
    """What a model says that predicts no single class. Subclasses are frozen and hashable.

    Attributes:
      losses: on outputs that have a meaning here, by name; others are refused.
      instead: what to write for a loss that has none here, by its name.
      says: what the outputs are, for people.
    """

    name: ClassVar[str] = "predictions"
    losses: ClassVar[tuple[str, ...]] = ()
    instead: ClassVar[Mapping[str, str]] = {}
    says: ClassVar[str] = "predictions"

    def where(self, batch: Batch, labelled: bool) -> Array:
        """Which values count, bool, of the shape of the loss's values; by default [B].

        Args:
          labelled: whether the loss reads labels.
        """
        return batch.where_B & batch.label_where_B if labelled else batch.where_B

    def labels(self, batch: Batch) -> Any:
        """What a labelled loss gets after the outputs; by default the targets."""
        return batch.targets

    def fixed(self, spec: Spec) -> Mapping[str, Any]:
        """Arguments of a loss that no text may give, ``binary`` of ``labels`` say."""
        return {}

    def values(self, loss: Loss, sides: list[Any], batch: Batch, *, labelled: bool) -> Array:
        """A loss's values, of the shape of ``where``.

        Args:
          sides: the student's output, and the teacher's where the loss reads one.
        """
        args: list[Any] = [logits_of(side) for side in sides]
        if labelled:
            args.append(self.labels(batch))
        return loss(*args, where=self.where(batch, labelled))

    def reads(self, spec: Spec) -> bool:
        if spec.name in self.losses:
            return True
        on_outputs = spec.feed.reads_logits or spec.feed.labelled
        return "classes" in spec.feed.outputs and not on_outputs

    def names(self) -> tuple[str, ...]:
        """Every loss of classifiers may be written; which have a meaning is said in words."""
        return tuple(dict.fromkeys((*self.losses, *registry.names("classes"))))

    def options_of(self, feed: Feed) -> Mapping[str, Option]:
        on_outputs = feed.reads_logits or feed.labelled
        return {} if on_outputs else feed.options()

    def refusal(self, spec: Spec) -> str:
        word = self.instead.get(spec.name)
        hint = f" Write {word}." if word else ""
        there = ", ".join(self.losses)
        return f"this loss has no meaning for {self.says}.{hint} On outputs there are: {there}."

    def fit(self, spec: Spec, given: Options, student: ModelShape, teacher: Shape) -> Reader:
        if spec.name not in self.losses:
            if given.get("on") == "logits":
                self.check_vectors(spec)
            return spec.feed.bind(given, student, teacher)
        if spec.feed.needs_teacher:
            check_classes(student, teacher)
        return self.reader(spec, given, student)

    def reader(self, spec: Spec, given: Options, student: ModelShape) -> Reader:
        """How a loss on outputs is read.

        Raises:
          UserError: for options that do not fit.
        """
        return PredictionReader(self, spec.feed.labelled, tuple(self.fixed(spec).items()))

    def check_vectors(self, spec: Spec) -> None:
        """Raises ``UserError`` where an example's outputs are no vector that relations between
        examples can be taken of (``on='logits'``)."""


def refuse_vectors(spec: Spec) -> None:
    """For outputs that are said of every token."""
    raise UserError(
        f"{spec.name}(on='logits') compares one vector an example; these outputs are one a token: "
        "on='mean' compares hidden states."
    )
