"""How losses are fed: which arrays of the models a kind of loss reads, which parameters it owns.

A ``Feed`` is one kind (on logits, on hidden states, ...). Fitted to two models it becomes a
``Bound``: layers, widths and options are then checked and fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, Capture, ModelOutput, ModelShape
from distill_jax.objectives.layer_maps import NAMED, Pairs, layer_pairs, table
from distill_jax.objectives.projections import init_projection, project
from distill_jax.objectives.terms import Option

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of one call of a loss."""


@dataclasses.dataclass(frozen=True)
class Bound:
    """A feed fitted to two models.

    Attributes:
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

    def option(self, name: str) -> Any:
        """The value of a static option."""
        return dict(self.options)[name]


@dataclasses.dataclass(frozen=True)
class Feed:
    """One way of feeding a loss. Subclasses say what they read and how.

    Attributes:
      labelled: whether only examples with a label count.
      needs_teacher: whether the loss looks at the teacher at all.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    labelled: bool = False
    needs_teacher: bool = True

    def options(self) -> dict[str, Option]:
        """The static options that the feed adds to those of the loss."""
        return {}

    def capture(self, layers: Any) -> Capture:
        """The parts of a model's output that it reads at ``layers``."""
        wanted = tuple(sorted(set(layers)))
        return Capture(**dict.fromkeys(self.kinds, wanted))

    def bind(
        self, options: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
    ) -> Bound:
        """Fits the feed to two models.

        Raises:
          UserError: if the loss cannot be computed between them.
        """
        raise NotImplementedError

    def init_params(self, bound: Bound, rng: Array) -> dict[str, Any]:
        """The parameters that the loss owns; {} when none."""
        if bound.projection is None:
            return {}
        keys = jax.random.split(rng, len(bound.pairs))
        return {
            f"projection_{s}_{t}": init_projection(key, *bound.projection)
            for key, (s, t) in zip(keys, bound.pairs, strict=True)
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


@dataclasses.dataclass(frozen=True)
class LogitFeed(Feed):
    """Losses on logits: ``f(student)``, ``f(student, teacher)`` or with labels at the end."""

    min_classes: int = 2

    def bind(
        self, options: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
    ) -> Bound:
        if self.needs_teacher and teacher and student.num_labels != teacher.num_labels:
            raise UserError(
                f"the student has {student.num_labels} classes, the teacher {teacher.num_labels}: "
                "a loss on logits needs the same classes in the same order."
            )
        if student.num_labels < self.min_classes:
            raise UserError(
                f"it compares distributions over classes and the models have "
                f"{student.num_labels} output: use mse_regression or mse_logits."
            )
        return Bound(self)

    def calls(
        self,
        bound: Bound,
        params: Mapping[str, Any],
        student: ModelOutput,
        teacher: ModelOutput | None,
        batch: Batch,
    ) -> list[Call]:
        args: tuple[Any, ...] = (student.logits_BC,)
        if self.needs_teacher and teacher:
            args += (teacher.logits_BC,)
        where_B = batch.where_B
        if self.labelled:
            args += (batch.labels_B,)
            where_B = where_B & batch.label_where_B
        return [(args, {"where": where_B})]


@dataclasses.dataclass(frozen=True)
class HiddenFeed(Feed):
    """Losses on hidden states [B, T, D], layer by layer, through a learned projection if needed."""

    kinds: ClassVar[tuple[str, ...]] = ("hidden_states",)
    layers: Any = "uniform"

    def options(self) -> dict[str, Option]:
        return {
            "layers": Option(self.layers, choices=NAMED, layer_map=True),
            "embeddings": Option(False, choices=(False, True)),
            "projection": Option("auto", choices=("auto", True, False)),
        }

    def bind(
        self, options: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
    ) -> Bound:
        assert teacher is not None
        pairs = layer_pairs(options["layers"], student.num_layers, teacher.num_layers, lowest=0)
        if options["embeddings"] and (0, 0) not in pairs:
            pairs = ((0, 0), *pairs)
        widths = student.hidden_size, teacher.hidden_size
        if options["projection"] is False and widths[0] != widths[1]:
            raise UserError(
                f"projection=False needs equal widths: the student has {widths[0]}, the teacher "
                f"{widths[1]}."
            )
        wanted = options["projection"] is True or widths[0] != widths[1]
        notes = [table(pairs)]
        if wanted:
            notes.append(f"a learned projection {widths[0]} -> {widths[1]} for each pair")
        return Bound(self, (), pairs, widths if wanted else None, tuple(notes))

    def calls(
        self,
        bound: Bound,
        params: Mapping[str, Any],
        student: ModelOutput,
        teacher: ModelOutput | None,
        batch: Batch,
    ) -> list[Call]:
        assert teacher is not None
        calls: list[Call] = []
        for s, t in bound.pairs:
            hidden_BTD = student.hidden_states[s]
            if bound.projection:
                hidden_BTD = project(params[f"projection_{s}_{t}"], hidden_BTD)
            calls.append(((hidden_BTD, teacher.hidden_states[t]), {"where": batch.where_BT}))
        return calls


@dataclasses.dataclass(frozen=True)
class AttentionFeed(Feed):
    """Losses on attention scores [B, H, T, T], layer by layer."""

    kinds: ClassVar[tuple[str, ...]] = ("attention_scores",)
    layers: Any = "uniform"

    def options(self) -> dict[str, Option]:
        return {"layers": Option(self.layers, choices=NAMED, layer_map=True)}

    def bind(
        self, options: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
    ) -> Bound:
        assert teacher is not None
        pairs = layer_pairs(options["layers"], student.num_layers, teacher.num_layers)
        counts = student.num_heads, teacher.num_heads
        notes = [table(pairs)]
        if counts[0] != counts[1]:
            if options["heads"] == "each":
                raise UserError(
                    f"heads='each' needs equal numbers of heads: the student has {counts[0]}, the "
                    f"teacher {counts[1]}. Use heads='mean'."
                )
            notes.append(f"mean over heads on both sides ({counts[0]} and {counts[1]} heads)")
        return Bound(self, (), pairs, None, tuple(notes))

    def calls(
        self,
        bound: Bound,
        params: Mapping[str, Any],
        student: ModelOutput,
        teacher: ModelOutput | None,
        batch: Batch,
    ) -> list[Call]:
        assert teacher is not None
        return [
            (
                (student.attention_scores[s], teacher.attention_scores[t]),
                {"where": batch.where_BT},
            )
            for s, t in bound.pairs
        ]
