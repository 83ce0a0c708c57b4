"""Feeds of losses with several learned experts and a learned choice among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.types import ModelShape
from distill_jax.losses.numeric import floats
from distill_jax.objectives.feeds import FROM_ONE, Bound, Call, Shape
from distill_jax.objectives.layer_feeds import ExampleFeed
from distill_jax.objectives.projections import init_projection, project
from distill_jax.objectives.readers import Options, Params, Said
from distill_jax.objectives.terms import Option

EXPERTS = {"experts": Option(5, interval=FROM_ONE)}


def init_experts(
    rng: Array, count: int, width_in: int, width_out: int, *, narrow: bool = True
) -> dict[str, Any]:
    """``count`` experts, two layers each, and the linear choice among them, float32.

    The hidden width is the mean of both widths, rounded down; at equal widths half of one where
    ``narrow``. So the released code of DE-RRD; that of topology distillation is never narrow.
    """
    key_first, key_second, key_choice = jax.random.split(rng, 3)
    middle = (width_in + width_out) // 2
    if narrow and width_in == width_out:
        middle = max(width_in // 2, 1)

    def layer(key: Array, size_in: int, size_out: int) -> dict[str, Array]:
        keys = jax.random.split(key, count)
        return jax.vmap(lambda each: init_projection(each, size_in, size_out))(keys)

    return {
        "first": layer(key_first, width_in, middle),
        "second": layer(key_second, middle, width_out),
        "selection": init_projection(key_choice, width_out, count),
    }


def ask_experts(params: Mapping[str, Any], student_BD: Array) -> Array:
    """What each expert makes of the student's vectors, [B, D_s] -> [B, G, D_t]."""
    student_BD, first, bias_1, second, bias_2 = floats(
        student_BD,
        params["first"]["kernel"],
        params["first"]["bias"],
        params["second"]["kernel"],
        params["second"]["bias"],
    )
    # Experts first: a CPU multiplies batches of matrices that lie together twice as fast.
    middle_GBH = jax.nn.relu(jnp.einsum("bd,gdh->gbh", student_BD, first) + bias_1[:, None])
    made_GBD = jnp.einsum("gbh,ghd->gbd", middle_GBH, second) + bias_2[:, None]
    return jnp.moveaxis(made_GBD, 0, 1)


def select_experts(params: Mapping[str, Any], teacher_BD: Array) -> Array:
    """Logits of the experts for the teacher's vectors, [B, D_t] -> [B, G]."""
    return project(params["selection"], jax.lax.stop_gradient(teacher_BD))


@dataclasses.dataclass(frozen=True)
class ExpertFeed(ExampleFeed):
    """Losses on one vector an example that several learned experts translate.

    Attributes:
      compares: whether the loss takes the student's own vectors, its experts as a keyword; else
        the experts' are all it takes.
    """

    random: ClassVar[bool] = True
    compares: bool = False

    def options(self) -> dict[str, Option]:
        return {**super().options(), **EXPERTS}

    def bind(self, options: Options, student: ModelShape, teacher: Shape) -> Bound:
        bound = super().bind(options, student, teacher)
        widths = student.hidden_size, teacher.hidden_size
        if bound.option("on") == "logits":
            widths = student.num_labels, teacher.num_labels
        count = options["experts"]
        note = f"{count} learned experts {widths[0]} -> {widths[1]} for each pair"
        return dataclasses.replace(
            bound,
            options=(*bound.options, ("experts", count), ("widths", widths)),
            notes=(*bound.notes, note),
        )

    def init_params(self, bound: Bound, rng: Array) -> dict[str, Any]:
        keys = jax.random.split(rng, max(len(bound.pairs), 1))
        count, widths = bound.option("experts"), bound.option("widths")
        return {
            name: init_experts(key, count, *widths, narrow=not self.compares)
            for key, name in zip(keys, self._names(bound), strict=True)
        }

    def calls(self, bound: Bound, params: Params, said: Said, teacher: Any) -> list[Call]:
        calls, names = super().calls(bound, params, said, teacher), self._names(bound)
        return [
            self.with_experts(params[name], student_BD, teacher_BD, given["where"])
            for ((student_BD, teacher_BD), given), name in zip(calls, names, strict=True)
        ]

    def with_experts(
        self, params: Params, student_BD: Array, teacher_BD: Array, where_B: Array
    ) -> Call:
        """The call for one pair of vectors, and one set of experts."""
        teacher_BD = jnp.where(where_B[:, None], teacher_BD, 0)
        student_BD = jnp.where(where_B[:, None], student_BD, 0)
        made_BGD, chosen_BG = ask_experts(params, student_BD), select_experts(params, teacher_BD)
        return self.call(student_BD, teacher_BD, made_BGD, selection=chosen_BG, where=where_B)

    def call(self, student_BD: Array, teacher_BD: Array, made_BGD: Array, **given: Any) -> Call:
        """The call for vectors and what the experts make of the student's."""
        if self.compares:
            return (student_BD, teacher_BD), {**given, "experts": made_BGD}
        return (made_BGD, teacher_BD), given

    def _names(self, bound: Bound) -> list[str]:
        return [f"experts_{s}_{t}" for s, t in bound.pairs] or ["experts"]


@dataclasses.dataclass(frozen=True)
class HintFeed(ExpertFeed):
    """What experts make of a vector is to be the teacher's; of a recommender see
    ``drawn_readers``."""
