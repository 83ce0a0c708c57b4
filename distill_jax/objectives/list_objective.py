"""The objective of search models: registered losses over the lists of queries.

Written like any objective (``"margin_mse + 0.5*kl(T=2) + ce"``) and with the interface of
``resolve.ResolvedObjective``, so that step and loop do not know the difference. A list is the
query's own N products; with ``in_batch`` the first products of the other lists of the batch stand
behind them: as wrong answers for losses on labels, and for losses on a teacher where it is known
what the teacher says of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.search_types import ListBatch, SearchCapture, SearchOutput
from distill_jax.core.types import ModelShape
from distill_jax.losses.numeric import FLOOR, floats, number
from distill_jax.objectives.feeds import RankingFeed
from distill_jax.objectives.resolve import ResolvedObjective, ResolvedTerm, resolve
from distill_jax.objectives.terms import Objective

DISTRIBUTIONS = frozenset(
    ("ce", "kl", "reverse_kl", "soft_ce", "jeffreys", "js", "generalized_jsd", "skew_kl",
     "skew_reverse_kl", "tvd", "topk_kl")
)  # fmt: skip
"""Losses on logits in which a class of probability 0 is as good as none, so that lists may have
gaps. Others compare the logits themselves; on scores of lists that is ``margin_mse``."""


@dataclasses.dataclass(frozen=True)
class ListObjective:
    """An objective over lists.

    Two are equal, and hash alike, when they compile to the same program.

    Attributes:
      resolved: the terms, fitted to lists of N products.
      in_batch: whether lists go on with the first products of the other lists.
    """

    resolved: ResolvedObjective
    in_batch: bool

    @property
    def objective(self) -> Objective:
        """The text, parsed."""
        return self.resolved.objective

    @property
    def terms(self) -> tuple[ResolvedTerm, ...]:
        """Static parts, in the order of the text."""
        return self.resolved.terms

    @property
    def structure(self) -> str:
        """Canonical text of the static part; equal texts mean the same compiled program."""
        return f"{self.resolved.structure}{' over the batch' if self.in_batch else ''}"

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at a teacher."""
        return self.resolved.needs_teacher

    @property
    def student_capture(self) -> SearchCapture:
        """What the objective needs of the student's output."""
        return SearchCapture(vectors=self.in_batch)

    def init_params(self, rng: Array) -> dict[str, Any]:
        """{}: losses on lists own no parameters."""
        return self.resolved.init_params(rng)

    def numbers(self, step: int, total_steps: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Weights and hyperparameters at a step, see ``ResolvedObjective.numbers``."""
        return self.resolved.numbers(step, total_steps, seed)

    def __call__(
        self,
        params: Mapping[str, Any],
        numbers: Mapping[str, Mapping[str, Any]],
        student: SearchOutput,
        teacher: SearchOutput | None,
        batch: ListBatch,
    ) -> tuple[Array, dict[str, tuple[Array, Array]]]:
        """The objective's value on a batch.

        Returns:
          ``total = sum_i weight_i * sum_i / max(count_i, 1)``, sums and counts over the queries a
          term looks at, and ``{label: (sum, count)}``.
        """
        scores_BN, there_BN = self._lists(student, batch)
        parts: dict[str, tuple[Array, Array]] = {}
        totals = []
        for term in self.terms:
            where_B = batch.where_B
            if term.spec.feed.labelled:
                where_B = where_B & batch.label_where_B
            said = None
            if term.teachers:
                said = self._teacher(teacher, batch)
                there = there_BN & (said > -FLOOR)
            else:
                there = there_BN
            values_B = _values(term, numbers[term.label], scores_BN, said, there, where_B, batch)
            total = jnp.sum(jnp.where(where_B, values_B, 0))
            parts[term.label] = total, jnp.sum(where_B, dtype=total.dtype)
            weight = number(numbers[term.label]["weight"], total)
            totals.append(weight * total / jnp.maximum(parts[term.label][1], 1))
        first, *rest = floats(*totals)
        return sum(rest, start=first), parts

    def _lists(self, student: SearchOutput, batch: ListBatch) -> tuple[Array, Array]:
        """The student's scores and which of them there are, [B, N] or in the batch [B, N + B]."""
        if not self.in_batch:
            return student.scores_BN, batch.there_BN
        B = student.scores_BN.shape[0]
        if batch.other_where_BB.shape != (B, B):
            raise UserError("lists over the batch need the whole batch on this process (in_batch).")
        if student.queries_BD is None or student.items_BND is None:
            raise UserError(
                "lists over the batch need a vector a product: a model with two towers (in_batch)."
            )
        others_BB = jnp.einsum("BD,CD->BC", student.queries_BD, student.items_BND[:, 0])
        there = jnp.concatenate([batch.there_BN, batch.other_where_BB], axis=1)
        return jnp.concatenate([student.scores_BN, others_BB], axis=1), there

    def _teacher(self, teacher: SearchOutput | None, batch: ListBatch) -> Array:
        """The teacher's scores of the same lists, -inf where it is silent."""
        if teacher is None:
            raise UserError("this objective needs a teacher, and there is none.")
        if not self.in_batch:
            return teacher.scores_BN
        others_BB = teacher.others_BB
        if others_BB is None and teacher.queries_BD is not None and teacher.items_BND is not None:
            others_BB = jnp.einsum("BD,CD->BC", teacher.queries_BD, teacher.items_BND[:, 0])
        if others_BB is None:
            others_BB = jnp.full(batch.other_where_BB.shape, -jnp.inf, teacher.scores_BN.dtype)
        return jnp.concatenate([teacher.scores_BN, others_BB], axis=1)


def resolve_lists(
    objective: Objective | str, *, list_size: int, teacher: bool, in_batch: bool = False
) -> ListObjective:
    """Fits an objective to lists of ``list_size`` products.

    Args:
      objective: parsed, or its text.
      teacher: whether there is one.
      in_batch: see the module.

    Raises:
      UserError: for a loss that has no meaning on lists, before any step is taken.
    """
    shape = ModelShape(num_layers=0, hidden_size=0, num_heads=0, num_labels=list_size)
    resolved = resolve(objective, shape, shape if teacher else None)
    for term, source in zip(resolved.terms, resolved.objective.terms, strict=True):
        given = dict(source.options)
        listed = isinstance(term.spec.feed, RankingFeed) or term.name in DISTRIBUTIONS
        if not listed:
            raise UserError(
                f"{source}: this loss does not speak of lists of products. Losses on lists: "
                f"{', '.join(sorted(DISTRIBUTIONS))} and those on rankings, margin_mse among them."
            )
        for option in ("label_smoothing", "standardize"):
            if given.get(option):
                raise UserError(f"{source}: {option} has no meaning on lists with gaps.")
    return ListObjective(resolved, in_batch)


def _values(
    term: ResolvedTerm,
    numbers: Mapping[str, Any],
    student: Array,
    teacher: Array | None,
    there: Array,
    where_B: Array,
    batch: ListBatch,
) -> Array:
    """A term's values [B]."""
    hyper = dict(term.statics) | {key: numbers[key] for key in term.dynamics}
    if isinstance(term.spec.feed, RankingFeed):
        return term.spec.function(student, teacher, where=there & where_B[:, None], **hyper)
    lists = [jnp.where(there, student, -FLOOR)]
    if teacher is not None:
        lists.append(jnp.where(there, teacher, -FLOOR))
    labels = (batch.labels_B,) if term.spec.feed.labelled else ()
    return term.spec.function(*lists, *labels, where=where_B, **hyper)
