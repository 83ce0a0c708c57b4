"""A search model's outputs: lists of products, one a query.

A list is the query's own N products; with ``in_batch`` the first products of the other lists of the
batch stand behind them: as wrong answers for losses on labels, and for losses on a teacher where it
is known what the teacher says of them.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.search_types import ListBatch, SearchCapture, SearchOutput
from distill_jax.core.types import ModelShape
from distill_jax.losses.numeric import FLOOR
from distill_jax.objectives import registry
from distill_jax.objectives.feeds import EQUALLY, Feed, RankingFeed, Shape
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.readers import Loss, Options, Params, Reader, Said
from distill_jax.objectives.registry import Spec
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.objectives.terms import Objective


@dataclasses.dataclass(eq=False)
class ListScores(Said):
    """What a student says of a batch of lists.

    Attributes:
      in_batch: whether lists go on with the first products of the other lists.
    """

    in_batch: bool

    @cached_property
    def there_BN(self) -> Array:
        """Which scores there are, [B, N] or in the batch [B, N + B]."""
        if not self.in_batch:
            return self.batch.there_BN
        return jnp.concatenate([self.batch.there_BN, self.batch.other_where_BB], axis=1)

    @cached_property
    def scores_BN(self) -> Array:
        """The student's scores."""
        B = self.output.scores_BN.shape[0]
        if self.in_batch and self.batch.other_where_BB.shape != (B, B):
            raise UserError("lists over the batch need the whole batch on this process (in_batch).")
        if self.in_batch and (self.output.queries_BD is None or self.output.items_BND is None):
            raise UserError(
                "lists over the batch need a vector a product: a model with two towers (in_batch)."
            )
        return self.scores_of(self.output)

    def scores_of(self, output: SearchOutput) -> Array:
        """A model's scores of the same lists, -inf where it is silent."""
        if not self.in_batch:
            return output.scores_BN
        others_BB = output.others_BB
        if others_BB is None and output.queries_BD is not None and output.items_BND is not None:
            others_BB = jnp.einsum("BD,CD->BC", output.queries_BD, output.items_BND[:, 0])
        if others_BB is None:
            shape = self.batch.other_where_BB.shape
            others_BB = jnp.full(shape, -jnp.inf, output.scores_BN.dtype)
        return jnp.concatenate([output.scores_BN, others_BB], axis=1)


@dataclasses.dataclass(frozen=True)
class ListReader(Reader):
    """Losses on rankings, and those on logits in which a class of probability 0 is as good as none.

    Others compare the logits themselves; on scores of lists that is ``margin_mse``.

    Attributes:
      feed: the loss's.
      notes: see ``Reader``.
    """

    feed: Feed
    notes: tuple[str, ...] = ()

    def where(self, batch: ListBatch, teacher: Any) -> Array:
        return self.feed.where_B(batch)

    def values(
        self, loss: Loss, params: Params, said: ListScores, teacher: Any, draw: Any
    ) -> Array:
        where_B, there_BN = self.where(said.batch, teacher), said.there_BN
        sides = [said.scores_BN]
        if teacher is not None:
            sides.append(said.scores_of(teacher))
            there_BN = there_BN & (sides[1] > -FLOOR)
        if isinstance(self.feed, RankingFeed):  # scores and a mask, not logits
            return loss(*sides, where=there_BN & where_B[:, None])
        lists = [jnp.where(there_BN, scores_BN, -FLOOR) for scores_BN in sides]
        labels = (said.batch.labels_B,) if self.feed.labelled else ()
        return loss(*lists, *labels, where=where_B)


@dataclasses.dataclass(frozen=True)
class Lists(Outputs):
    """What search models say, ``SearchOutput``.

    Attributes:
      in_batch: see the module.
    """

    name: ClassVar[str] = "lists"
    in_batch: bool = False

    @property
    def student_capture(self) -> SearchCapture:
        return SearchCapture(vectors=self.in_batch)

    @property
    def structure(self) -> str:
        return " over the batch" if self.in_batch else ""

    def names(self) -> tuple[str, ...]:
        return registry.names(
            "classes"
        )  # all may be written; which speak of lists is said in words

    def refusal(self, spec: Spec) -> str:
        return (
            "this loss does not speak of lists of products; the logits of a distribution, rankings "
            f"and margins (margin_mse) do: {', '.join(sorted(super().names()))}."
        )

    def fit(self, spec: Spec, given: Options, student: ModelShape, teacher: Shape) -> Reader:
        for option, usual in (("label_smoothing", 0), ("standardize", False), ("weigh", EQUALLY)):
            if given.get(option, usual) != usual:
                raise UserError(f"{option} has no meaning on lists with gaps.")
        notes = spec.feed.bind(given, student, teacher).notes
        return ListReader(spec.feed, notes)

    def said(self, output: Any, batch: Any) -> ListScores:
        return ListScores(output, batch, self.in_batch)


def resolve_lists(
    objective: Objective | str, *, list_size: int, teacher: bool, in_batch: bool = False
) -> ResolvedObjective:
    """Fits an objective to lists of ``list_size`` products.

    Args:
      objective: parsed, or its text.
      teacher: whether there is one.
      in_batch: see the module.

    Raises:
      UserError: for a loss that has no meaning on lists, before any step is taken.
    """
    shape = ModelShape(num_layers=0, hidden_size=0, num_heads=0, num_labels=list_size)
    return resolve(objective, shape, shape if teacher else None, Lists(in_batch))
