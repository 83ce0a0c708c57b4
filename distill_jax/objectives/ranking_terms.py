"""The terms of a recommender's objective: what each reads, draws and computes.

A ``Kind`` is known by its name in the text; fitted to the models it becomes a ``RankingTerm``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.ranking_types import (
    HistoryBatch,
    Negatives,
    RankingCapture,
    RankingOutput,
    logits_at,
)
from distill_jax.core.types import ModelShape
from distill_jax.losses.catalogue import (
    bpr,
    catalogue_logsumexp,
    sampled_bce,
    sampled_softmax,
    softmax_over_all,
)
from distill_jax.objectives.terms import Interval, Option

NEVER = -1e9
"""The bias of an item that does not compete."""


class Scores:
    """What a model's output says of a batch; computed once, whoever asks.

    Attributes:
      output: the model's.
      batch: the histories.
      rows: see ``catalogue_logsumexp``.
      unseen: items that no training interaction names.
    """

    def __init__(
        self,
        output: RankingOutput,
        batch: HistoryBatch,
        rows: int | None,
        unseen: tuple[int, ...] = (),
    ) -> None:
        self.output, self.batch, self.rows, self.unseen = output, batch, rows, unseen

    @functools.cached_property
    def log_partition_BT(self) -> Array:
        """The log-sum-exp of all items' logits where there is a target, else 0."""
        queries_BTD = self.output.queries_BTD
        values_N = catalogue_logsumexp(
            queries_BTD.reshape(-1, queries_BTD.shape[-1]),
            self.output.items_ID,
            self.output.item_bias_I,
            where=self.batch.target_where_BT.reshape(-1),
            rows=self.rows,
        )
        return values_N.reshape(queries_BTD.shape[:2])

    @functools.cached_property
    def of_trained(self) -> Scores:
        """The same, where the items that training never names do not compete."""
        if not self.unseen:
            return self
        items_ID, bias_I = self.output.items_ID, self.output.item_bias_I
        rows = np.asarray(self.unseen, np.int32)
        free_I = jnp.zeros(len(items_ID), items_ID.dtype) if bias_I is None else bias_I
        closed = self.output.replace(  # type: ignore[attr-defined]
            item_bias_I=free_I.at[rows].set(NEVER)
        )
        return Scores(closed, self.batch, self.rows)

    @functools.cached_property
    def mean_of_trained_BT(self) -> Array:
        """The mean of the logits of the items that training names."""
        items_ID, bias_I = self.output.items_ID, self.output.item_bias_I
        share_I = np.ones(len(items_ID), np.float32)
        share_I[list(self.unseen)] = 0
        share_I /= share_I.sum()
        mean_BT = self.output.queries_BTD @ (share_I @ items_ID)
        return mean_BT if bias_I is None else mean_BT + share_I @ bias_I

    @functools.cached_property
    def target_BT(self) -> Array:
        """The target's logit."""
        return logits_at(self.output, self.batch.targets_BT[..., None])[..., 0]

    @functools.cached_property
    def mean_BT(self) -> Array:
        """The mean of all items' logits."""
        mean_D = jnp.mean(self.output.items_ID, axis=0)
        mean_BT = self.output.queries_BTD @ mean_D
        if self.output.item_bias_I is None:
            return mean_BT
        return mean_BT + jnp.mean(self.output.item_bias_I)

    @functools.cached_property
    def negatives_BTK(self) -> Array:
        """The sampled negatives' logits, shared ones at every position."""
        assert self.batch.negatives_BTN is not None, "a feed draws what the objective needs"
        return logits_at(self.output, self.batch.negatives_BTN)


@dataclasses.dataclass(frozen=True)
class RankingTerm:
    """A loss fitted to a student and a teacher. Subclasses compute; hashable.

    Attributes:
      options: static options, by name.
    """

    options: tuple[tuple[str, Any], ...] = ()

    needs_teacher: ClassVar[bool] = False
    random: ClassVar[bool] = False  # its numbers have a ``draw``, [2]: the seed and the step

    @property
    def capture(self) -> RankingCapture:
        """What it needs of the student's output."""
        return RankingCapture()

    @property
    def negatives(self) -> Negatives | None:
        """What has to be drawn for it."""
        return None

    @property
    def structure(self) -> tuple[str, ...]:
        """Static facts that decide what is compiled, beside the options."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided, for people."""
        return ()

    @property
    def trained_only(self) -> bool:
        """Whether it leaves out items that no training interaction names."""
        return False

    def option(self, name: str) -> Any:
        """The value of a static option."""
        return dict(self.options)[name]

    def init_params(self, rng: Array) -> dict[str, Any]:
        """The parameters that the loss owns, float32; {} when none."""
        return {}

    def where(self, batch: HistoryBatch, teacher: Any) -> Array:
        """Which values count, bool, of the values' shape."""
        return batch.target_where_BT

    def values(
        self,
        params: Mapping[str, Any],
        numbers: Mapping[str, Array],
        scores: Scores,
        teacher: Any,
    ) -> Array:
        """The loss, unreduced, float32; anything where it does not count.

        Args:
          params: as ``init_params`` makes them.
          numbers: the dynamic options, by name.
          scores: the student's.
          teacher: what the teacher says of the batch, None where there is no teacher.
        """
        raise NotImplementedError


Bind = Callable[[Mapping[str, Any], ModelShape, ModelShape | None], RankingTerm]


@dataclasses.dataclass(frozen=True)
class Kind:
    """A loss as the text knows it.

    Attributes:
      options: what it may be given.
      bind: (static options, student, teacher or None) -> the term; raises ``UserError`` where it
        cannot be computed between them.
      doc: for people.
    """

    name: str
    options: Mapping[str, Option]
    bind: Bind
    doc: str = ""


_KINDS: dict[str, Kind] = {}


def register_kind(kind: Kind) -> None:
    """Makes a loss known to objectives of recommenders.

    Raises:
      UserError: if the name is taken.
    """
    if kind.name in _KINDS:
        raise UserError(f"cannot register a ranking loss as {kind.name!r}: not a free name.")
    _KINDS[kind.name] = kind


class RankingVocabulary:
    """The losses that the objective of a recommender may name: labels first, then teachers'."""

    def names(self) -> tuple[str, ...]:
        return tuple(_KINDS)

    def options(self, name: str) -> Mapping[str, Option]:
        return self.lookup(name).options

    def lookup(self, name: str) -> Kind:
        """The loss of that name.

        Raises:
          UserError: if there is none.
        """
        if name not in _KINDS:
            raise unknown("ranking loss", name, _KINDS)
        return _KINDS[name]


@dataclasses.dataclass(frozen=True)
class FullSoftmax(RankingTerm):
    """Cross-entropy over the whole catalogue, or over the items that training names.

    An item that nobody took yet is a wrong answer to every question of the training. A model that
    knows items by number cannot tell it from one that nobody wants; one that reads texts can, and
    unlearns what it read if all items compete.
    """

    @property
    def trained_only(self) -> bool:
        return bool(self.option("items") == "trained")

    def values(
        self,
        params: Mapping[str, Any],
        numbers: Mapping[str, Array],
        scores: Scores,
        teacher: Any,
    ) -> Array:
        trained = self.trained_only and bool(scores.unseen)
        return softmax_over_all(
            scores.target_BT,
            scores.of_trained.log_partition_BT if trained else scores.log_partition_BT,
            scores.mean_of_trained_BT if trained else scores.mean_BT,
            where=scores.batch.target_where_BT,
            label_smoothing=numbers["label_smoothing"],
        )


@dataclasses.dataclass(frozen=True)
class SampledLoss(RankingTerm):
    """A loss of the target against sampled items that the user did not take.

    Attributes:
      function: ``(target [B, T], negatives [B, T, N], *, where) -> [B, T]``.
      per: see ``Negatives``.
    """

    function: Callable[..., Array] = bpr
    per: Literal["position", "row"] = "position"

    @property
    def negatives(self) -> Negatives:
        return Negatives(int(self.option("n")), self.per)

    def values(
        self,
        params: Mapping[str, Any],
        numbers: Mapping[str, Array],
        scores: Scores,
        teacher: Any,
    ) -> Array:
        where_BT = scores.batch.target_where_BT
        return self.function(scores.target_BT, scores.negatives_BTK, where=where_BT)


def _count(default: int) -> dict[str, Option]:
    return {"n": Option(default, interval=Interval(1, closed="low"))}


def _frozen(options: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(options.items()))


def _register_label_losses() -> None:
    smoothing = Option(0.0, interval=Interval(0, 1, closed="low"))
    register_kind(
        Kind(
            "full_softmax",
            {"label_smoothing": smoothing, "items": Option("all", choices=("all", "trained"))},
            lambda options, student, teacher: FullSoftmax(_frozen(options)),
            inspect.getdoc(softmax_over_all) or "",
        )
    )

    def sampled(
        name: str, function: Callable[..., Array], n: int, per: Literal["position", "row"]
    ) -> None:
        def bind(
            options: Mapping[str, Any], student: ModelShape, teacher: ModelShape | None
        ) -> SampledLoss:
            return SampledLoss(_frozen(options), function, per)

        register_kind(Kind(name, _count(n), bind, inspect.getdoc(function) or ""))

    sampled("sampled_softmax", sampled_softmax, 256, "row")
    sampled("sampled_bce", sampled_bce, 1, "position")
    sampled("bpr", bpr, 1, "position")


_register_label_losses()
