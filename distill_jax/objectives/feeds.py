"""How losses are fed: which arrays of the models a kind of loss reads, which parameters it owns.

A ``Feed`` is one kind (on logits, on hidden states, ...), and says in which outputs the loss can
find what it reads. Fitted to two classifiers it becomes a ``Bound``: layers, widths and options are
then checked and fixed. Other outputs have readers of their own, see ``outputs``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, Capture, ModelOutput, ModelShape
from distill_jax.losses import standardize_logits
from distill_jax.losses.teachers import CONFIDENCES, confidence
from distill_jax.objectives.projections import init_projection
from distill_jax.objectives.readers import Loss, Options, Params, Reader, Said
from distill_jax.objectives.terms import Interval, Option

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call of a loss."""

Pairs = tuple[tuple[int, int], ...]
Shape = Any
"""A teacher's ``ModelShape``; None only for losses that need no teacher."""

EQUALLY = "equally"
FROM_ONE, FROM_ZERO = Interval(1, closed="low"), Interval(0, closed="low")


@dataclasses.dataclass(frozen=True)
class Bound(Reader):
    """A feed fitted to two classifiers: the mean of the loss over its calls.

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
    def random(self) -> bool:  # type: ignore[override]
        """Whether it draws, see ``Feed``."""
        return self.feed.random

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

    def init_params(self, rng: Array) -> dict[str, Any]:
        return self.feed.init_params(self, rng)

    def where(self, batch: Batch, teacher: Any) -> Array:
        return self.feed.heard_B(batch, teacher)

    def values(self, loss: Loss, params: Params, said: Said, teacher: Any, draw: Any) -> Array:
        drawn = {"draw": draw} if self.random else {}
        calls = self.feed.calls(self, params, said, teacher)
        values = [loss(*args, **kwargs, **drawn) for args, kwargs in calls]
        return self.feed.weighed(self, sum(values[1:], start=values[0]) / len(values), teacher)


@dataclasses.dataclass(frozen=True)
class Feed:
    """One way of feeding a loss. Subclasses say what they read and how.

    Attributes:
      labelled: whether only examples with a label count.
      needs_teacher: whether the loss looks at the teacher at all.

    A ``random`` feed's loss takes ``draw``, uint32 [2]: the seed and the step.
    """

    outputs: ClassVar[tuple[str, ...]] = ("classes",)
    """In which outputs the loss can find what it reads, see ``registry.OUTPUTS``."""
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

    def where_B(self, batch: Any) -> Array:
        """The examples that count, bool [B]."""
        return batch.where_B & batch.label_where_B if self.labelled else batch.where_B

    def heard_B(self, batch: Any, teacher: ModelOutput | None) -> Array:
        """Those of them of which the teacher says something."""
        heard_B = None if teacher is None else teacher.heard_B
        return self.where_B(batch) if heard_B is None else self.where_B(batch) & heard_B

    def bind(self, options: Options, student: ModelShape, teacher: Shape) -> Bound:
        """Fits the feed to two classifiers.

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

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        """The calls of the loss whose values [B] are averaged."""
        raise NotImplementedError

    def weighed(self, bound: Bound, values_B: Array, teacher: Any) -> Array:
        """The values, each as much as its example weighs."""
        return values_B


def projection_name(pair: tuple[int, int]) -> str:
    """What the projection of a pair of layers is called among the parameters."""
    return f"projection_{pair[0]}_{pair[1]}"


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
      gaps: whether a class of probability 0 is as good as none, so that lists may have gaps.
      items: how a loss on a teacher's logits looks at a catalogue: at the likeliest items and, as
        one class more, at the ``rest`` of them; at the ``top`` alone; "" for not at all.
    """

    reads_logits: ClassVar[bool] = True
    min_classes: int = 2
    of_two: str = ""
    gaps: bool = False
    items: Literal["", "top", "rest"] = "rest"

    @property
    def outputs(self) -> tuple[str, ...]:  # type: ignore[override]
        heard = self.needs_teacher and not self.labelled
        found = {
            "classes": True,
            "items": heard and bool(self.items),
            "lists": self.gaps,
            "heads": heard and self.min_classes == 1,
        }
        return tuple(name for name, there in found.items() if there)

    def options(self) -> dict[str, Option]:
        if not self.needs_teacher:
            return {}
        return {
            "standardize": Option(False, choices=(False, True)),
            "weigh": Option(EQUALLY, choices=(EQUALLY, *CONFIDENCES)),
        }

    def bind(self, options: Options, student: ModelShape, teacher: Shape) -> Bound:
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
        weigh = options.get("weigh", EQUALLY)
        if weigh != EQUALLY and student.num_labels < 2:
            raise UserError(
                f"weigh={weigh!r} is by a distribution over classes, and there is one output."
            )
        chosen = {"standardize": standardize, "weigh": weigh}
        return Bound(
            self,
            tuple((name, value) for name, value in chosen.items() if value not in (False, EQUALLY)),
            notes=notes_of_two(self.of_two, student),
        )

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        logits = [logits_of(said.output)]
        if self.needs_teacher:
            logits.append(logits_of(teacher))
        if dict(bound.options).get("standardize"):
            logits = [standardize_logits(z_BC) for z_BC in logits]
        args: tuple[Any, ...] = tuple(logits)
        if self.labelled:
            args += (said.batch.labels_B,)
        return [(args, {"where": self.heard_B(said.batch, teacher)})]

    def weighed(self, bound: Bound, values_B: Array, teacher: Any) -> Array:
        weigh = dict(bound.options).get("weigh")
        return values_B * confidence(logits_of(teacher), by=weigh) if weigh else values_B


@dataclasses.dataclass(frozen=True)
class EitherLabelFeed(LogitFeed):
    """Losses on logits that read hard labels where there are any: ``f(student, teacher, labels)``.

    Every example counts; the label of one without a label is -1.
    """

    outputs: ClassVar[tuple[str, ...]] = ("classes",)

    def options(self) -> dict[str, Option]:
        return {}

    def heard_B(self, batch: Any, teacher: ModelOutput | None) -> Array:
        """Also those with a label, of which no teacher need say anything."""
        return super().heard_B(batch, teacher) | (self.where_B(batch) & batch.label_where_B)

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        labels_B = jnp.where(said.batch.label_where_B, said.batch.labels_B, -1)
        calls = super().calls(bound, params, said, teacher)
        return [((*args, labels_B), given) for args, given in calls]


@dataclasses.dataclass(frozen=True)
class RankingFeed(Feed):
    """Losses on the scores of items: a model's outputs [B, N] are the list's N scores.

    Attributes:
      of_two: see ``LogitFeed``.
      margins: whether differences of the student's scores are to equal the teacher's, so that the
        scale of both matters; the first item is then the one that was taken.
      sampled: how many sampled items a list of a catalogue has beside the likeliest, where the
        text does not say.
    """

    outputs: ClassVar[tuple[str, ...]] = ("classes", "items", "lists")
    reads_logits: ClassVar[bool] = True
    margins: bool = False
    of_two: str = ""
    sampled: int = 0

    def bind(self, options: Options, student: ModelShape, teacher: Shape) -> Bound:
        check_classes(student, teacher)
        if student.num_labels < 2:
            raise UserError("it ranks the outputs of a model, and there is only 1.")
        return Bound(self, notes=notes_of_two(self.of_two, student))

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        scores_BN = logits_of(teacher)
        where_BN = jnp.broadcast_to(self.heard_B(said.batch, teacher)[:, None], scores_BN.shape)
        return [((logits_of(said.output), scores_BN), {"where": where_BN})]


@dataclasses.dataclass(frozen=True)
class RelaxedFeed(RankingFeed):
    """Losses on lists of which only the first places are ordered; of a catalogue they may be
    drawn, see ``drawn_readers``."""


@dataclasses.dataclass(frozen=True)
class TargetFeed(Feed):
    """Losses on the item that was taken, among a whole catalogue."""

    outputs: ClassVar[tuple[str, ...]] = ("items",)
    labelled: bool = True
    needs_teacher: bool = False

    def options(self) -> dict[str, Option]:
        return {"items": Option("all", choices=("all", "trained"))}


@dataclasses.dataclass(frozen=True)
class SampledFeed(TargetFeed):
    """Losses on the item that was taken, among sampled others.

    Attributes:
      sampled: how many others, where the text does not say.
      per: whether they are drawn for each position, or once for all of a row.
    """

    sampled: int = 1
    per: Literal["position", "row"] = "position"

    def options(self) -> dict[str, Option]:
        return {"n": Option(self.sampled, interval=FROM_ONE)}


@dataclasses.dataclass(frozen=True)
class HeadLabelFeed(Feed):
    """The loss on the labels of one head of several."""

    outputs: ClassVar[tuple[str, ...]] = ("heads",)
    labelled: bool = True
    needs_teacher: bool = False
