"""Terms of a recommender's objective on representations: queries of users, vectors of items."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch
from distill_jax.core.top_items import TopItems, Wanted
from distill_jax.core.types import ModelShape
from distill_jax.losses.numeric import FLOOR, floats, zero_masked
from distill_jax.objectives.expert_feeds import (
    EXPERTS,
    ask_experts,
    init_experts,
    select_experts,
)
from distill_jax.objectives.projections import init_projection, project
from distill_jax.objectives.ranking_distillation_terms import TEACHING, TeacherTerm
from distill_jax.objectives.ranking_terms import Kind, Scores, register_kind
from distill_jax.objectives.registry import lookup
from distill_jax.objectives.terms import Option


@dataclasses.dataclass(frozen=True)
class Representations(TeacherTerm):
    """What losses on representations share.

    Attributes:
      widths: the student's and the teacher's.
    """

    widths: tuple[int, int] = (0, 0)

    @property
    def on(self) -> str:
        """``queries``, ``items`` or ``both``."""
        return self.option("on")

    @property
    def wanted(self) -> Wanted:
        return Wanted(queries=self.on != "items", items=self.on != "queries")

    @property
    def structure(self) -> tuple[str, ...]:
        return (f"{self.widths[0]}->{self.widths[1]}",)


def _newest(batch: HistoryBatch, teacher: TopItems) -> Array:
    """Rows whose newest position has a target that the teacher spoke of, bool [B]."""
    return (batch.target_where_BT & teacher.where_BT)[:, -1]


def _item_vectors(scores: Scores) -> Array:
    """The student's vector of each row's newest target, [B, D]."""
    return scores.output.items_ID[scores.batch.targets_BT[:, -1]]


@dataclasses.dataclass(frozen=True)
class HiddenTerm(Representations):
    """A loss feature by feature: queries at all positions, or vectors of the newest targets.

    Attributes:
      projected: whether a learned projection takes the student's to the teacher's width.
    """

    projected: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        note = f"on {self.on}"
        if self.projected:
            note += f", a learned projection {self.widths[0]} -> {self.widths[1]}"
        return (note,)

    def init_params(self, rng: Array) -> dict[str, Any]:
        return {"projection": init_projection(rng, *self.widths)} if self.projected else {}

    def where(self, batch: HistoryBatch, teacher: TopItems) -> Array:
        if self.on == "items":
            return _newest(batch, teacher)
        return jnp.any(super().where(batch, teacher), axis=1)

    def values(
        self, params: Mapping[str, Any], numbers: Mapping[str, Array], scores: Scores, teacher: Any
    ) -> Array:
        if self.on == "items":
            where_BT = self.where(scores.batch, teacher)[:, None]
            student, said = _item_vectors(scores)[:, None], teacher.items_BD[:, None]
        else:
            where_BT = super().where(scores.batch, teacher)
            student, said = scores.output.queries_BTD, teacher.queries_BTD
        student = zero_masked(student, where_BT)
        if self.projected:
            student = project(params["projection"], student)
        return self.spec.function(student, said, where=where_BT, **self.hyper(numbers))


@dataclasses.dataclass(frozen=True)
class EntityTerm(Representations):
    """A loss on relations between the entities of a batch.

    Entities are the newest query of each row and its target's vector; ``on="both"`` puts the two
    together, so that relations of users with items count.
    """

    def where(self, batch: HistoryBatch, teacher: TopItems) -> Array:
        where_B = _newest(batch, teacher)
        return jnp.concatenate([where_B, where_B]) if self.on == "both" else where_B

    def entities(self, scores: Scores, teacher: Any) -> list[tuple[Array, Array]]:
        """(student's [B, D_s], teacher's [B, D_t]) of each kind of entities."""
        kinds = []
        where_B = _newest(scores.batch, teacher)
        if self.on != "items":
            kinds.append((scores.output.queries_BTD[:, -1], teacher.queries_BTD[:, -1]))
        if self.on != "queries":
            kinds.append((_item_vectors(scores), teacher.items_BD))
        return [(zero_masked(s, where_B), zero_masked(t, where_B)) for s, t in kinds]

    def values(
        self, params: Mapping[str, Any], numbers: Mapping[str, Array], scores: Scores, teacher: Any
    ) -> Array:
        kinds = self.entities(scores, teacher)
        student, said = (jnp.concatenate(floats(*side)) for side in zip(*kinds, strict=True))
        where = self.where(scores.batch, teacher)
        return self.spec.function(student, said, where=where, **self.hyper(numbers))


@dataclasses.dataclass(frozen=True)
class ExpertTerm(EntityTerm):
    """``expert_hints`` and ``hierarchical_topology``: each kind of entities has its own experts.

    Attributes:
      compares: as in ``ExpertFeed``.
    """

    random: ClassVar[bool] = True
    compares: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        count = self.option("experts")
        return (f"on {self.on}, {count} experts {self.widths[0]} -> {self.widths[1]} for each",)

    @property
    def _kinds(self) -> tuple[str, ...]:
        return ("queries", "items") if self.on == "both" else (self.on,)

    def init_params(self, rng: Array) -> dict[str, Any]:
        return {
            kind: init_experts(
                jax.random.fold_in(rng, index),
                self.option("experts"),
                *self.widths,
                narrow=not self.compares,
            )
            for index, kind in enumerate(self._kinds)
        }

    def values(
        self, params: Mapping[str, Any], numbers: Mapping[str, Array], scores: Scores, teacher: Any
    ) -> Array:
        kinds = self.entities(scores, teacher)
        total = self.option("experts") * len(kinds)
        experts, selections = [], []
        for index, (kind, (student_BD, said_BD)) in enumerate(zip(self._kinds, kinds, strict=True)):
            first = index * self.option("experts")
            after = total - first - self.option("experts")
            made_BGD = ask_experts(params[kind], student_BD)
            chosen_BG = select_experts(params[kind], said_BD)
            # Experts of the other kind are there, and never chosen.
            experts.append(jnp.pad(made_BGD, ((0, 0), (first, after), (0, 0))))
            padding = ((0, 0), (first, after))
            selections.append(jnp.pad(chosen_BG, padding, constant_values=-FLOOR))
        student, said = (jnp.concatenate(floats(*side)) for side in zip(*kinds, strict=True))
        given = {
            "where": self.where(scores.batch, teacher),
            "selection": jnp.concatenate(selections),
            "draw": numbers["draw"],
            **self.hyper(numbers),
        }
        made = jnp.concatenate(experts)
        if self.compares:
            return self.spec.function(student, said, experts=made, **given)
        return self.spec.function(made, said, **given)


_ON = {"on": Option("both", choices=("both", "queries", "items"))}


def _register(
    name: str, options: Mapping[str, Option], term: type[Representations], **changes: Any
) -> None:
    spec = lookup(name)
    own = tuple(sorted(key for key, option in spec.own.items() if not option.dynamic))

    def bind(
        statics: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
    ) -> Representations:
        if teacher is None:
            raise UserError("this loss needs a teacher, and there is none.")
        widths = student.hidden_size, teacher.hidden_size
        more = dict(changes)
        if issubclass(term, HiddenTerm):
            more["projected"] = _projected(statics["projection"], widths)
        return term(tuple(sorted(statics.items())), name, own, widths=widths, **more)

    register_kind(Kind(name, {**spec.own, **options}, bind, spec.doc))
    TEACHING.add(name)


def _projected(wanted: Any, widths: tuple[int, int]) -> bool:
    if wanted is False and widths[0] != widths[1]:
        raise UserError(
            f"projection=False needs equal widths: the student has {widths[0]}, the teacher "
            f"{widths[1]}."
        )
    return widths[0] != widths[1] if wanted == "auto" else bool(wanted)


def _hidden_options(on: tuple[str, ...], projection: tuple[Any, ...]) -> dict[str, Option]:
    return {
        "on": Option(on[0], choices=on),
        "projection": Option(projection[0], choices=projection),
    }


def _register_losses() -> None:
    auto = ("auto", True, False)
    for name in ("hidden_mse", "hidden_cosine"):
        _register(name, _hidden_options(("queries", "items"), auto), HiddenTerm)
    _register("hint", _hidden_options(("queries", "items"), (True,)), HiddenTerm)
    _register("embedding_mse", _hidden_options(("items",), auto), HiddenTerm)
    for name in ("topology", "sp", "rkd_distance", "rkd_angle", "pkt", "correlation"):
        _register(name, _ON, EntityTerm)
    _register("expert_hints", {**_ON, **EXPERTS}, ExpertTerm)
    _register("hierarchical_topology", {**_ON, **EXPERTS}, ExpertTerm, compares=True)


_register_losses()
