"""Readers of losses on a recommender's representations: queries of users, vectors of items."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.ranking_types import HistoryBatch
from distill_jax.core.top_items import TopItems, Wanted
from distill_jax.losses.numeric import FLOOR, floats, zero_masked
from distill_jax.objectives.expert_feeds import (
    EXPERTS,
    ExpertFeed,
    ask_experts,
    init_experts,
    select_experts,
)
from distill_jax.objectives.item_readers import ItemReader, Scores
from distill_jax.objectives.layer_feeds import HiddenFeed
from distill_jax.objectives.projections import init_projection, project, projects
from distill_jax.objectives.readers import Loss, Params
from distill_jax.objectives.terms import Option


@dataclasses.dataclass(frozen=True)
class VectorReader(ItemReader):
    """What losses on representations share."""

    @classmethod
    def options_of(cls, feed: Any) -> dict[str, Option]:
        return {"on": Option("both", choices=("both", "queries", "items"))}

    def check(self, num_items: int) -> None:
        _ = self.projected

    def weights(self, batch: HistoryBatch) -> None:
        """None: rows and entities are compared, which no kind of feedback stands for."""

    @property
    def of_named(self) -> bool:
        return True

    @property
    def projected(self) -> bool:
        """Whether a learned projection takes the student's to the teacher's width."""
        return projects("auto" if self.feed.projected else "never", self.widths)

    @property
    def on(self) -> str:
        """``queries``, ``items`` or ``both``."""
        return self.option("on")

    @property
    def teacher_capture(self) -> Wanted:
        return Wanted(queries=self.on != "items", items=self.on != "queries")

    @property
    def structure(self) -> tuple[str, ...]:
        return (f"{self.widths[0]}->{self.widths[1]}",)

    @property
    def notes(self) -> tuple[str, ...]:
        note = f"on {self.on}"
        if self.projected:
            note += f", a learned projection {self.widths[0]} -> {self.widths[1]}"
        return (note,)

    def init_params(self, rng: Array) -> dict[str, Any]:
        return {"projection": init_projection(rng, *self.widths)} if self.projected else {}


def newest(batch: HistoryBatch, teacher: TopItems) -> Array:
    """Rows whose newest position has a target that the teacher spoke of, bool [B]."""
    return (batch.target_where_BT & teacher.where_BT)[:, -1]


def _item_vectors(scores: Scores) -> Array:
    """The student's vector of each row's newest target, [B, D]."""
    return scores.output.items_ID[scores.batch.targets_BT[:, -1]]


@dataclasses.dataclass(frozen=True)
class HiddenVectors(VectorReader):
    """Losses on hidden states: queries at all positions, or vectors of the newest targets."""

    @classmethod
    def options_of(cls, feed: HiddenFeed) -> dict[str, Option]:
        options = {"on": Option(feed.items[0], choices=feed.items)}
        choices = {"auto": ("auto", True, False), "always": (True,)}.get(feed.projection)
        if choices:
            options["projection"] = Option(choices[0], choices=choices)
        return options

    @property
    def projected(self) -> bool:
        return projects(dict(self.options).get("projection", self.feed.projection), self.widths)

    def where(self, batch: HistoryBatch, teacher: TopItems) -> Array:
        if self.on == "items":
            return newest(batch, teacher)
        return jnp.any(super().where(batch, teacher), axis=1)

    def values(self, loss: Loss, params: Params, said: Scores, teacher: Any, draw: Any) -> Array:
        if self.on == "items":
            where_BT = self.where(said.batch, teacher)[:, None]
            student, heard = _item_vectors(said)[:, None], teacher.items_BD[:, None]
        else:
            where_BT = super().where(said.batch, teacher)
            student, heard = said.output.queries_BTD, teacher.queries_BTD
        student = zero_masked(student, where_BT)
        if self.projected:
            student = project(params["projection"], student)
        return loss(student, heard, where=where_BT)


@dataclasses.dataclass(frozen=True)
class Entities(VectorReader):
    """Losses on relations between the entities of a batch.

    Entities are the newest query of each row and its target's vector; ``on="both"`` puts the two
    together, so that relations of users with items count.
    """

    def where(self, batch: HistoryBatch, teacher: TopItems) -> Array:
        where_B = newest(batch, teacher)
        return jnp.concatenate([where_B, where_B]) if self.on == "both" else where_B

    def entities(self, scores: Scores, teacher: Any) -> list[tuple[Array, Array]]:
        """(student's [B, D_s], teacher's [B, D_t]) of each kind of entities."""
        kinds = []
        where_B = newest(scores.batch, teacher)
        if self.on != "items":
            kinds.append((scores.output.queries_BTD[:, -1], teacher.queries_BTD[:, -1]))
        if self.on != "queries":
            kinds.append((_item_vectors(scores), teacher.items_BD))
        return [(zero_masked(s, where_B), zero_masked(t, where_B)) for s, t in kinds]

    def values(self, loss: Loss, params: Params, said: Scores, teacher: Any, draw: Any) -> Array:
        kinds = self.entities(said, teacher)
        student, heard = (jnp.concatenate(floats(*side)) for side in zip(*kinds, strict=True))
        if self.projected:
            student = project(params["projection"], student)
        return loss(student, heard, where=self.where(said.batch, teacher))


@dataclasses.dataclass(frozen=True)
class Experts(Entities):
    """``expert_hints`` and ``hierarchical_topology``: each kind of entities has its own experts."""

    random: ClassVar[bool] = True

    @classmethod
    def options_of(cls, feed: ExpertFeed) -> dict[str, Option]:
        return {**super().options_of(feed), **EXPERTS}

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
                narrow=not self.feed.compares,
            )
            for index, kind in enumerate(self._kinds)
        }

    def values(self, loss: Loss, params: Params, said: Scores, teacher: Any, draw: Any) -> Array:
        kinds = self.entities(said, teacher)
        total = self.option("experts") * len(kinds)
        experts, selections = [], []
        for index, (kind, (student_BD, heard_BD)) in enumerate(
            zip(self._kinds, kinds, strict=True)
        ):
            first = index * self.option("experts")
            after = total - first - self.option("experts")
            made_BGD = ask_experts(params[kind], student_BD)
            chosen_BG = select_experts(params[kind], heard_BD)
            # Experts of the other kind are there, and never chosen.
            experts.append(jnp.pad(made_BGD, ((0, 0), (first, after), (0, 0))))
            padding = ((0, 0), (first, after))
            selections.append(jnp.pad(chosen_BG, padding, constant_values=-FLOOR))
        student, heard = (jnp.concatenate(floats(*side)) for side in zip(*kinds, strict=True))
        given = {"selection": jnp.concatenate(selections), "draw": draw}
        where, made = self.where(said.batch, teacher), jnp.concatenate(experts)
        args, kwargs = self.feed.call(student, heard, made, where=where, **given)
        return loss(*args, **kwargs)
