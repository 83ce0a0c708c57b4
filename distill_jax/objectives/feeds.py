"""How losses are fed: which arrays of the models a kind of loss reads, which parameters it owns.

A ``Feed`` is one kind (on logits, on hidden states, ...). Fitted to two models it becomes a
``Bound``: layers, widths and options are then checked and fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, Capture, ModelOutput, ModelShape
from distill_jax.losses import standardize_logits
from distill_jax.objectives.projections import init_projection
from distill_jax.objectives.terms import Option

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call of a loss."""

Pairs = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Bound:
    """A feed fitted to two models.

    Attributes:
      options: the feed's static options, by name.
      pairs: (student layer, teacher layer), in the user's order; () for losses on outputs.
      projection: (student width, teacher width) of its learned maps, None without.
      notes: what was decided, for people.
    """

    feed: Feed
    options: tuple[tuple[str, Any], ...] = ()
    pairs: Pairs = ()
    projection: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()

    @property
    def student_capture(self) -> Capture:
        """What must be kept of the student's output."""
        return self.feed.capture(student for student, _ in self.pairs)

    @property
    def teacher_capture(self) -> Capture:
        """What must be kept of the teacher's output."""
        return self.feed.capture(teacher for _, teacher in self.pairs)

    @property
    def structure(self) -> tuple[str, ...]:
        """The static facts that decide what is compiled, as text."""
        facts = [f"{key}={value!r}" for key, value in self.options]
        facts += [f"{student}<-{teacher}" for student, teacher in self.pairs]
        if self.projection:
            facts.append(f"projection {self.projection[0]}->{self.projection[1]}")
        return tuple(facts)

    def option(self, name: str) -> Any:
        """The value of a static option."""
        return dict(self.options)[name]


@dataclasses.dataclass(frozen=True)
class Feed:
    """One way of feeding a loss. Subclasses say what they read and how.

    Attributes:
      labelled: whether only examples with a label count.
      needs_teacher: whether the loss looks at the teacher at all.

    A ``random`` feed's loss takes ``draw``, uint32 [2]: the seed and the step.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    reads_logits: ClassVar[bool] = False
    random: ClassVar[bool] = False
    labelled: bool = False
    needs_teacher: bool = True

    def options(self) -> dict[str, Option]:
        """The static options that the feed adds to those of the loss."""
        return {}

    def capture(self, layers: Iterable[int]) -> Capture:
        """The parts of a model's output that it reads at ``layers``."""
        wanted = tuple(sorted(set(layers)))
        return Capture(**dict.fromkeys(self.kinds, wanted))

    def where_B(self, batch: Batch) -> Array:
        """The examples that count, bool [B]."""
        return batch.where_B & batch.label_where_B if self.labelled else batch.where_B

    def bind(
        self, options: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
    ) -> Bound:
        """Fits the feed to two models.

        Args:
          options: every static option of the term, the loss's own among them.
          student: the student's shape.
          teacher: the teacher's; None only for losses that need none.

        Raises:
          UserError: if the loss cannot be computed between them.
        """
        raise NotImplementedError

    def init_params(self, bound: Bound, rng: Array) -> dict[str, Any]:
        """The parameters that the loss owns, float32; {} when none."""
        if bound.projection is None:
            return {}
        keys = jax.random.split(rng, len(bound.pairs))
        return {
            projection_name(pair): init_projection(key, *bound.projection)
            for key, pair in zip(keys, bound.pairs, strict=True)
        }

    def calls(
        self,
        bound: Bound,
        params: Mapping[str, Any],
        student: ModelOutput,
        teacher: ModelOutput | None,
        batch: Batch,
    ) -> list[Call]:
        """The calls of the loss whose values [B] are averaged."""
        raise NotImplementedError


def projection_name(pair: tuple[int, int]) -> str:
    """What the projection of a pair of layers is called among the parameters."""
    return f"projection_{pair[0]}_{pair[1]}"


def teacher_of(teacher: Any) -> Any:
    """The teacher, which ``resolve`` has made sure of."""
    if teacher is None:
        raise UserError("this loss needs a teacher, and there is none.")
    return teacher


def logits_of(output: ModelOutput) -> Array:
    """The logits [B, C] of a model that has some."""
    if output.logits_BC is None:
        raise UserError("a loss on logits needs a model with a head: there are no logits.")
    return output.logits_BC


def check_classes(student: ModelShape, teacher: ModelShape | None) -> None:
    """Raises ``UserError`` unless both have the same number of outputs."""
    if teacher and student.num_labels != teacher.num_labels:
        raise UserError(
            f"the student has {student.num_labels} classes, the teacher {teacher.num_labels}: "
            "a loss on logits needs the same classes in the same order."
        )


def notes_of_two(idle: str, student: ModelShape) -> tuple[str, ...]:
    """The note on what a loss leaves idle with two classes, where there are two."""
    return (f"with two classes {idle}",) if idle and student.num_labels == 2 else ()


@dataclasses.dataclass(frozen=True)
class LogitFeed(Feed):
    """Losses on logits [B, C]: ``f(student[, teacher][, labels])``.

    Attributes:
      min_classes: 2 for losses that compare distributions over classes.
      of_two: which part of the loss two classes leave idle, for people; "" where none is.
    """

    reads_logits: ClassVar[bool] = True
    min_classes: int = 2
    of_two: str = ""

    def options(self) -> dict[str, Option]:
        if not self.needs_teacher:
            return {}
        return {"standardize": Option(False, choices=(False, True))}

    def bind(
        self, options: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
    ) -> Bound:
        if self.needs_teacher:
            check_classes(student, teacher)
        if student.num_labels < self.min_classes:
            raise UserError(
                "it compares distributions over classes, and the models have "
                f"{student.num_labels} output: use mse_regression."
            )
        weights = options.get("class_weights", ())
        if weights and (len(weights) != student.num_labels or not any(weights)):
            raise UserError(
                f"class_weights needs a number for each of {student.num_labels} classes, not all 0."
            )
        standardize = bool(options.get("standardize", False))
        if standardize and student.num_labels == 2:
            raise UserError(
                "standardize=True makes -1 and +1 of the logits of two classes, whatever they "
                "were: nothing is left to learn."
            )
        return Bound(
            self,
            (("standardize", True),) if standardize else (),
            notes=notes_of_two(self.of_two, student),
        )

    def calls(
        self,
        bound: Bound,
        params: Mapping[str, Any],
        student: ModelOutput,
        teacher: ModelOutput | None,
        batch: Batch,
    ) -> list[Call]:
        logits = [logits_of(student)]
        if self.needs_teacher:
            logits.append(logits_of(teacher_of(teacher)))
        if bound.options:
            logits = [standardize_logits(z_BC) for z_BC in logits]
        args: tuple[Any, ...] = tuple(logits)
        if self.labelled:
            args += (batch.labels_B,)
        return [(args, {"where": self.where_B(batch)})]


@dataclasses.dataclass(frozen=True)
class EitherLabelFeed(LogitFeed):
    """Losses on logits that read hard labels where there are any: ``f(student, teacher, labels)``.

    Every example counts; the label of one without a label is -1.
    """

    def options(self) -> dict[str, Option]:
        return {}

    def calls(
        self,
        bound: Bound,
        params: Mapping[str, Any],
        student: ModelOutput,
        teacher: ModelOutput | None,
        batch: Batch,
    ) -> list[Call]:
        labels_B = jnp.where(batch.label_where_B, batch.labels_B, -1)
        calls = super().calls(bound, params, student, teacher, batch)
        return [((*args, labels_B), given) for args, given in calls]


@dataclasses.dataclass(frozen=True)
class RankingFeed(Feed):
    """Losses on the scores of items: a model's outputs [B, N] are the list's N scores.

    Attributes:
      of_two: see ``LogitFeed``.
      margins: whether differences of the student's scores are to equal the teacher's, so that the
        scale of both matters.
    """

    margins: bool = False

    reads_logits: ClassVar[bool] = True
    of_two: str = ""

    def bind(
        self, options: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
    ) -> Bound:
        check_classes(student, teacher)
        if student.num_labels < 2:
            raise UserError("it ranks the outputs of a model, and there is only 1.")
        return Bound(self, notes=notes_of_two(self.of_two, student))

    def calls(
        self,
        bound: Bound,
        params: Mapping[str, Any],
        student: ModelOutput,
        teacher: ModelOutput | None,
        batch: Batch,
    ) -> list[Call]:
        scores_BN = logits_of(teacher_of(teacher))
        where_BN = jnp.broadcast_to(batch.where_B[:, None], scores_BN.shape)
        return [((logits_of(student), scores_BN), {"where": where_BN})]
