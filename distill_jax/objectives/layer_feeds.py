"""Feeds of the losses that look inside the models, layer by layer."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelOutput, ModelShape
from distill_jax.losses import vid_alpha
from distill_jax.losses.inner_relations import default_relation_heads
from distill_jax.losses.numeric import floats, masked_mean
from distill_jax.objectives.feeds import (
    Bound,
    Call,
    Feed,
    Shape,
    check_classes,
    logits_of,
    projection_name,
)
from distill_jax.objectives.layer_maps import NAMED, layer_pairs, table
from distill_jax.objectives.projections import project, projects
from distill_jax.objectives.readers import Options, Params, Said
from distill_jax.objectives.terms import LayerMap, Option

Layers = str | LayerMap

LAST_ONLY = LayerMap(((-1, -1),))
EMBEDDINGS = LayerMap(((0, 0),))


@dataclasses.dataclass(frozen=True)
class HiddenFeed(Feed):
    """Losses on hidden states [B, T, D], pair by pair of layers.

    Attributes:
      layers: the map where the text gives none.
      fixed: whether the text may not give one.
      projection: ``auto`` for a learned map to the teacher's width where widths differ, ``always``,
        or ``never`` for losses that take any widths.
      items: which vectors of a recommender it can compare as hidden states, the first where the
        text says nothing: ``queries`` at all positions, vectors of the newest ``items``.
    """

    kinds: ClassVar[tuple[str, ...]] = ("hidden_states",)
    layers: Layers = "uniform"
    fixed: bool = False
    projection: str = "auto"
    items: tuple[str, ...] = ("queries", "items")

    @property
    def outputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("classes", "items") if self.items else ("classes",)

    def options(self) -> dict[str, Option]:
        options = {}
        if not self.fixed:
            options["layers"] = Option(self.layers, choices=NAMED, layer_map=True)
            options["embeddings"] = Option(False, choices=(False, True))
        if self.projection == "auto":
            options["projection"] = Option("auto", choices=("auto", True, False))
        return options

    def bind(self, options: Options, student: ModelShape, teacher: Shape) -> Bound:
        layers = options.get("layers", self.layers)
        pairs = layer_pairs(layers, student.num_layers, teacher.num_layers, lowest=0)
        if options.get("embeddings", False) and (0, 0) not in pairs:
            pairs = ((0, 0), *pairs)
        if not pairs:
            raise UserError("it compares layers, and the student has none: try embeddings=True.")
        widths = student.hidden_size, teacher.hidden_size
        learned = projects(options.get("projection", self.projection), widths)
        notes = [table(pairs)]
        if learned:
            notes.append(f"a learned projection {widths[0]} -> {widths[1]} for each pair")
        return Bound(self, (), pairs, widths if learned else None, tuple(notes))

    def hidden(
        self, bound: Bound, params: Params, said: Said, teacher: Any
    ) -> list[tuple[Array, Array]]:
        """Student's (projected) and teacher's hidden states [B, T, D], a pair of layers each."""
        hidden = []
        for s, t in bound.pairs:
            hidden_BTD = said.output.hidden_states[s]
            if bound.projection:
                hidden_BTD = project(params[projection_name((s, t))], hidden_BTD)
            hidden.append((hidden_BTD, teacher.hidden_states[t]))
        return hidden

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        pairs = self.hidden(bound, params, said, teacher)
        return [(pair, {"where": said.batch.where_BT}) for pair in pairs]


@dataclasses.dataclass(frozen=True)
class FlowFeed(HiddenFeed):
    """Losses on two layers at once: each pair of layers with the next one in the map."""

    items: tuple[str, ...] = ()

    def bind(self, options: Options, student: ModelShape, teacher: Shape) -> Bound:
        bound = super().bind(options, student, teacher)
        if len(bound.pairs) < 2:
            raise UserError("it needs two pairs of layers at least: try embeddings=True.")
        return bound

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        hidden = self.hidden(bound, params, said, teacher)
        return [
            (((early_s, late_s), (early_t, late_t)), {"where": said.batch.where_BT})
            for (early_s, early_t), (late_s, late_t) in itertools.pairwise(hidden)
        ]


@dataclasses.dataclass(frozen=True)
class VarianceFeed(HiddenFeed):
    """``vid``: hidden states with a learned mean and a learned variance for each feature."""

    projection: str = "always"
    items: tuple[str, ...] = ()

    def init_params(self, bound: Bound, rng: Array) -> dict[str, Any]:
        params = super().init_params(bound, rng)
        for s, t in bound.pairs:
            assert bound.projection is not None
            params[f"alpha_{s}_{t}"] = vid_alpha(bound.projection[1])
        return params

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        calls = super().calls(bound, params, said, teacher)
        return [
            (args, {**kwargs, "alpha": params[f"alpha_{s}_{t}"]})
            for (args, kwargs), (s, t) in zip(calls, bound.pairs, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class InnerFeed(Feed):
    """Losses on attention scores [B, H, T, T] and on queries, keys, values [B, T, H, D].

    Attributes:
      parts: which of them the loss takes, in order; one alone or a tuple of several.
      layers: the map where the text gives none.
    """

    parts: tuple[str, ...] = ("attention_scores",)
    layers: Layers = "uniform"

    @property
    def kinds(self) -> tuple[str, ...]:  # type: ignore[override]
        """The parts of a model's output that it reads."""
        return self.parts

    def options(self) -> dict[str, Option]:
        return {"layers": Option(self.layers, choices=NAMED, layer_map=True)}

    def bind(self, options: Options, student: ModelShape, teacher: Shape) -> Bound:
        heads = student.num_heads, teacher.num_heads
        if not all(heads):
            raise UserError(
                f"it compares attention, and the {'teacher' if heads[0] else 'student'} has none."
            )
        pairs = layer_pairs(options["layers"], student.num_layers, teacher.num_layers)
        widths = student.hidden_size, teacher.hidden_size
        notes = [table(pairs)]
        if options.get("heads") == "each" and heads[0] != heads[1]:
            raise UserError(
                f"heads='each' needs equal numbers of heads: the student has {heads[0]}, the "
                f"teacher {heads[1]}. Use heads='mean'."
            )
        if options.get("heads") == "mean" or (options.get("heads") and heads[0] != heads[1]):
            notes.append(f"mean over heads on both sides ({heads[0]} and {heads[1]} heads)")
        if "relation_heads" in options:
            count = options["relation_heads"] or default_relation_heads(*widths, heads[1])
            if widths[0] % count or widths[1] % count:
                raise UserError(
                    f"relation_heads={count} does not divide both widths, {widths[0]} and "
                    f"{widths[1]}."
                )
            notes.append(f"{count} relation heads")
        return Bound(self, (), pairs, None, tuple(notes))

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        def at(output: ModelOutput, layer: int) -> Any:
            arrays = tuple(getattr(output, part)[layer] for part in self.parts)
            return arrays if len(arrays) > 1 else arrays[0]

        return [
            ((at(said.output, s), at(teacher, t)), {"where": said.batch.where_BT})
            for s, t in bound.pairs
        ]


@dataclasses.dataclass(frozen=True)
class ExampleFeed(Feed):
    """Losses on relations between examples: one vector [D] an example.

    The vector is the mean of a layer's unmasked hidden states (``on='mean'``), its first one
    (``on='cls'``), or the logits (``on='logits'``).

    Attributes:
      projected: whether the loss compares feature by feature and needs equal widths.
    """

    outputs: ClassVar[tuple[str, ...]] = ("classes", "items")
    kinds: ClassVar[tuple[str, ...]] = ("hidden_states",)
    projected: bool = False

    def options(self) -> dict[str, Option]:
        return {
            "on": Option("mean", choices=("mean", "cls", "logits")),
            "layers": Option(LAST_ONLY, choices=NAMED, layer_map=True),
        }

    def bind(self, options: Options, student: ModelShape, teacher: Shape) -> Bound:
        on = ("on", options["on"])
        if options["on"] == "logits":
            if self.projected:
                check_classes(student, teacher)
            return Bound(self, (on,))
        pairs = layer_pairs(options["layers"], student.num_layers, teacher.num_layers, lowest=0)
        widths = student.hidden_size, teacher.hidden_size
        learned = self.projected and widths[0] != widths[1]
        notes = [table(pairs), f"on {options['on']} of hidden states"]
        if learned:
            notes.append(f"a learned projection {widths[0]} -> {widths[1]} for each pair")
        return Bound(self, (on,), pairs, widths if learned else None, tuple(notes))

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        where = {"where": self.heard_B(said.batch, teacher)}
        if bound.option("on") == "logits":
            return [((logits_of(said.output), logits_of(teacher)), where)]

        def vector(hidden_BTD: Array) -> Array:
            (hidden_BTD,) = floats(hidden_BTD)
            if bound.option("on") == "cls":
                return hidden_BTD[:, 0]
            return masked_mean(hidden_BTD, said.batch.where_BT[:, :, None], axis=1)

        calls: list[Call] = []
        for s, t in bound.pairs:
            student_BD = vector(said.output.hidden_states[s])
            if bound.projection:
                student_BD = project(params[projection_name((s, t))], student_BD)
            teacher_BD = jnp.asarray(vector(teacher.hidden_states[t]))
            calls.append(((student_BD, teacher_BD), where))
        return calls
