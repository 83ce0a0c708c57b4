"""Readers of a recommender's outputs: the base of all, and the losses on the items taken."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, Negatives, logits_at
from distill_jax.losses.catalogue import catalogue_logsumexp
from distill_jax.objectives.readers import Loss, Params, Reader, Said
from distill_jax.objectives.terms import Option

NEVER = -1e9
"""The bias of an item that does not compete."""


@dataclasses.dataclass(eq=False)
class Scores(Said):
    """What a recommender says of a batch of histories.

    Attributes:
      rows, block: see ``catalogue_logsumexp``.
      unseen: items that no training interaction names.
      num_items: of the catalogue, where the output has a part of it; None for those that it has.
    """

    rows: int | None
    block: int | None = None
    unseen: tuple[int, ...] = ()
    num_items: int | None = None

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
            block=self.block,
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
        closed = self.output.replace(item_bias_I=free_I.at[rows].set(NEVER))
        return dataclasses.replace(self, output=closed, unseen=())

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
class ItemReader(Reader):
    """Reads a loss off a recommender, at every position.

    Attributes:
      feed: the loss's.
      options: static options, those of ``options_of``, by name.
      widths: the student's and the teacher's.
    """

    feed: Any
    options: tuple[tuple[str, Any], ...] = ()
    widths: tuple[int, int] = (0, 0)

    @classmethod
    def options_of(cls, feed: Any) -> dict[str, Option]:
        """The options that a loss with that feed has here."""
        return feed.options()

    def check(self, num_items: int) -> None:
        """Raises ``UserError`` where the loss cannot be read."""
        if (top := dict(self.options).get("top", 0)) >= num_items:
            raise UserError(f"top={top} is not below the {num_items} items.")

    @property
    def negatives(self) -> Negatives | None:
        """What has to be drawn for it."""
        return None

    @property
    def trained_only(self) -> bool:
        """Whether it leaves out items that no training interaction names."""
        return False

    @property
    def of_named(self) -> bool:
        """Whether it looks at no items but those that the batch and the teacher name."""
        return False

    def option(self, name: str) -> Any:
        """The value of a static option."""
        return dict(self.options)[name]

    def where(self, batch: HistoryBatch, teacher: Any) -> Array:
        if not self.feed.needs_teacher:
            return batch.target_where_BT
        return batch.target_where_BT & teacher.where_BT

    def weights(self, batch: HistoryBatch) -> Array | None:
        return batch.target_weights_BT


@dataclasses.dataclass(frozen=True)
class WholeCatalogue(ItemReader):
    """Losses of the target among all items, or among those that training names.

    An item that nobody took yet is a wrong answer to every question of the training. A model that
    knows items by number cannot tell it from one that nobody wants; one that reads texts can, and
    unlearns what it read if all items compete.
    """

    @property
    def trained_only(self) -> bool:
        return bool(self.option("items") == "trained")

    def values(self, loss: Loss, params: Params, said: Scores, teacher: Any, draw: Any) -> Array:
        trained = self.trained_only and bool(said.unseen)
        return loss(
            said.target_BT,
            said.of_trained.log_partition_BT if trained else said.log_partition_BT,
            said.mean_of_trained_BT if trained else said.mean_BT,
            where=said.batch.target_where_BT,
        )


@dataclasses.dataclass(frozen=True)
class SampledItems(ItemReader):
    """Losses of the target against sampled items that the user did not take."""

    @property
    def negatives(self) -> Negatives:
        return Negatives(int(self.option("n")), self.feed.per)

    @property
    def of_named(self) -> bool:
        return True

    def values(self, loss: Loss, params: Params, said: Scores, teacher: Any, draw: Any) -> Array:
        negatives_BTK = said.negatives_BTK[..., : int(self.option("n"))]
        return loss(said.target_BT, negatives_BTK, where=said.batch.target_where_BT)
