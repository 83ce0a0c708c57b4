"""An objective fitted to two models: checked before step 1, then pure functions of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, Capture, ModelOutput, ModelShape
from distill_jax.losses.numeric import floats, number
from distill_jax.objectives.feeds import Bound
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.registry import Spec, lookup
from distill_jax.objectives.schedules import value_at
from distill_jax.objectives.terms import Objective, Term, format_value

Parts = dict[str, tuple[Array, Array]]
"""(sum, count) of each term, by its label."""


@dataclasses.dataclass(frozen=True)
class ResolvedTerm:
    """A term's static part: the loss, its static arguments, what it reads of the models."""

    label: str
    name: str
    statics: tuple[tuple[str, Any], ...]
    dynamics: tuple[str, ...]
    bound: Bound

    @property
    def structure(self) -> str:
        """The term as text, numbers replaced by #, layers and projections resolved."""
        inside = [f"{key}=#" for key in self.dynamics]
        inside += [f"{key}={format_value(value)}" for key, value in self.statics]
        inside += [f"{s}<-{t}" for s, t in self.bound.pairs]
        if self.bound.projection:
            inside.append("projection {}->{}".format(*self.bound.projection))
        return f"#*{self.name}({', '.join(inside)})"


@dataclasses.dataclass(frozen=True)
class ResolvedObjective:
    """An objective fitted to a student and a teacher.

    Two are equal, and hash alike, when they compile to the same program: numbers (weights,
    temperatures, schedules) do not count. So it may be a static argument of ``jit``.
    """

    objective: Objective = dataclasses.field(compare=False)
    student: ModelShape
    teacher: ModelShape | None
    terms: tuple[ResolvedTerm, ...]

    @property
    def structure(self) -> str:
        """Canonical text of the static part; equal texts mean the same compiled program."""
        return " + ".join(term.structure for term in self.terms)

    @property
    def student_capture(self) -> Capture:
        """What the objective needs of the student's output."""
        return _union(term.bound.student_capture for term in self.terms)

    @property
    def teacher_capture(self) -> Capture:
        """What the objective needs of the teacher's output."""
        return _union(term.bound.teacher_capture for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at the teacher."""
        return any(lookup(term.name).feed.needs_teacher for term in self.terms)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided (layer pairs, projections, heads), a line a term, for people."""
        return tuple(
            f"{term.label}: {'; '.join(term.bound.notes)}"
            for term in self.terms
            if term.bound.notes
        )

    def init_params(self, rng: Array) -> dict[str, Any]:
        """The losses' own parameters by term label, float32; {} when no term has any."""
        params = {}
        for index, term in enumerate(self.terms):
            own = term.bound.feed.init_params(term.bound, jax.random.fold_in(rng, index))
            if own:
                params[term.label] = own
        return params

    def numbers(self, step: int, total_steps: int) -> dict[str, dict[str, np.float32]]:
        """Weights and hyperparameters at a step, schedules evaluated: data for the jitted step.

        Args:
          step: 0 for the first step.
          total_steps: at least 1; ``step == total_steps`` is the end of every schedule.
        """
        share = min(max(step / max(total_steps, 1), 0.0), 1.0)
        numbers = {}
        for term, source in zip(self.terms, self.objective.terms, strict=True):
            given = dict(source.options)
            own = lookup(term.name).own
            values = {key: given.get(key, own[key].default) for key in term.dynamics}
            values["weight"] = source.weight
            numbers[term.label] = {k: np.float32(value_at(v, share)) for k, v in values.items()}
        return numbers

    def counts(self, batch: Batch) -> dict[str, Array]:
        """How many examples each term counts in a batch, float32 scalars."""
        return {term.label: jnp.sum(_where(term, batch), dtype=jnp.float32) for term in self.terms}

    def __call__(
        self,
        params: Mapping[str, Any],
        numbers: Mapping[str, Mapping[str, Any]],
        student: ModelOutput,
        teacher: ModelOutput | None,
        batch: Batch,
        counts: Mapping[str, Array] | None = None,
    ) -> tuple[Array, Parts]:
        """The objective's value on a batch.

        Args:
          params: the losses' own parameters, as ``init_params`` makes them.
          numbers: as ``numbers`` makes them.
          student: the student's output, with all that ``student_capture`` names.
          teacher: the teacher's, likewise; None for an objective that needs none.
          batch: the batch.
          counts: denominators to use instead of the batch's own: give the counts of the whole
            batch to a micro-batch, and totals and gradients add up to the whole's.

        Returns:
          ``total = sum_i weight_i * sum_i / max(count_i, 1)`` and ``{label: (sum, count)}``.
        """
        own_counts = self.counts(batch)
        parts: Parts = {}
        totals = []
        for term in self.terms:
            values_B = _values(term, params, numbers[term.label], student, teacher, batch)
            where_B = _where(term, batch)
            total = jnp.sum(jnp.where(where_B, values_B, 0))
            parts[term.label] = total, number(own_counts[term.label], total)
            count = number((counts or own_counts)[term.label], total)
            weight = number(numbers[term.label]["weight"], total)
            totals.append(weight * total / jnp.maximum(count, 1))
        return sum(floats(*totals)[1:], start=floats(*totals)[0]), parts


def resolve(
    objective: Objective | str, student: ModelShape, teacher: ModelShape | None
) -> ResolvedObjective:
    """Fits an objective to two models.

    Args:
      objective: parsed, or its text.
      student: the student's shape.
      teacher: the teacher's shape; None when there is no teacher.

    Raises:
      UserError: if a term cannot be computed between the two, before any step is taken.
    """
    objective = parse(objective) if isinstance(objective, str) else objective
    terms = []
    for label, term in zip(objective.labels, objective.terms, strict=True):
        spec = lookup(term.name)
        if spec.feed.needs_teacher and teacher is None:
            raise UserError(f"{term.name} needs a teacher, and there is none.")
        try:
            terms.append(_resolve_term(label, term, spec, student, teacher))
        except UserError as error:
            raise UserError(f"{term}: {error}") from error
    return ResolvedObjective(objective, student, teacher, tuple(terms))


def _resolve_term(
    label: str, term: Term, spec: Spec, student: ModelShape, teacher: ModelShape | None
) -> ResolvedTerm:
    given = {key: option.default for key, option in spec.options.items()} | dict(term.options)
    statics = tuple(
        (key, given[key]) for key, option in sorted(spec.own.items()) if not option.dynamic
    )
    dynamics = tuple(sorted(key for key, option in spec.own.items() if option.dynamic))
    bound = spec.feed.bind(given, student, teacher)
    return ResolvedTerm(label, term.name, statics, dynamics, bound)


def _union(captures: Any) -> Capture:
    union = Capture()
    for capture in captures:
        union = union | capture
    return union


def _where(term: ResolvedTerm, batch: Batch) -> Array:
    """The examples that a term counts, bool [B]."""
    labelled = lookup(term.name).feed.labelled
    return batch.where_B & batch.label_where_B if labelled else batch.where_B


def _values(
    term: ResolvedTerm,
    params: Mapping[str, Any],
    numbers: Mapping[str, Any],
    student: ModelOutput,
    teacher: ModelOutput | None,
    batch: Batch,
) -> Array:
    """A term's values [B]: the mean over its layer pairs."""
    spec = lookup(term.name)
    hyper = dict(term.statics) | {key: numbers[key] for key in term.dynamics}
    calls = spec.feed.calls(term.bound, params.get(term.label, {}), student, teacher, batch)
    values = [spec.function(*args, **kwargs, **hyper) for args, kwargs in calls]
    return sum(values[1:], start=values[0]) / len(values)
