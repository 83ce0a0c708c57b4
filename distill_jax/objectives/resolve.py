"""An objective fitted to two models: checked before step 1, then pure functions of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, Capture, ModelOutput, ModelShape
from distill_jax.losses.numeric import floats, number
from distill_jax.losses.teachers import mean_logits, mean_probabilities
from distill_jax.objectives.feeds import Bound, logits_of
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.registry import Spec, lookup
from distill_jax.objectives.schedules import value_at
from distill_jax.objectives.terms import Objective, Term, format_value

Parts = dict[str, tuple[Array, Array]]
"""(sum, count) of each term, by its label."""

Teachers = ModelOutput | Sequence[ModelOutput] | None
"""The teacher's output; a sequence where the objective was resolved for several teachers."""


@dataclasses.dataclass(frozen=True)
class ResolvedTerm:
    """A term's static part: the loss, its static arguments, what it reads of the models.

    Attributes:
      label: unique in the objective.
      name: the loss.
      statics: the loss's static arguments.
      dynamics: the names of its numbers.
      combine: ``each``, ``mean_probabilities`` or ``mean_logits`` of the teachers.
      teachers: which of the objective's teachers it looks at; () for none.
      bounds: how it is fed, one for each of those teachers (one also where there is none).
    """

    label: str
    name: str
    statics: tuple[tuple[str, Any], ...]
    dynamics: tuple[str, ...]
    combine: str
    teachers: tuple[int, ...]
    bounds: tuple[Bound, ...]

    @property
    def spec(self) -> Spec:
        """The loss, as the registry has it."""
        return lookup(self.name)

    @property
    def random(self) -> bool:
        """Whether its numbers hold a draw of each step."""
        return self.spec.feed.random

    @property
    def structure(self) -> str:
        """The term as text, numbers replaced by #, layers and projections resolved."""
        facts = [f"{key}=#" for key in self.dynamics]
        facts += [f"{key}={format_value(value)}" for key, value in self.statics]
        if self.teachers not in ((), (0,)):
            facts.append(f"{self.combine} of teachers {self.teachers}")
        for bound in dict.fromkeys(self.bounds):
            facts += bound.structure
        return f"#*{self.name}({', '.join(facts)})"


@dataclasses.dataclass(frozen=True)
class ResolvedObjective:
    """An objective fitted to a student and its teachers.

    Two are equal, and hash alike, when they compile to the same program: numbers (weights,
    temperatures, schedules) do not count. So it may be a static argument of ``jit``.
    """

    objective: Objective = dataclasses.field(compare=False)
    student: ModelShape
    teachers: tuple[ModelShape, ...]
    terms: tuple[ResolvedTerm, ...]

    @property
    def structure(self) -> str:
        """Canonical text of the static part; equal texts mean the same compiled program."""
        return " + ".join(term.structure for term in self.terms)

    @property
    def student_capture(self) -> Capture:
        """What the objective needs of the student's output."""
        return _union(bound.student_capture for term in self.terms for bound in term.bounds)

    @property
    def teacher_captures(self) -> tuple[Capture, ...]:
        """What the objective needs of each teacher's output."""
        captures = [Capture() for _ in self.teachers]
        for term in self.terms:
            for index, bound in zip(term.teachers, term.bounds, strict=False):
                captures[index] = captures[index] | bound.teacher_capture
        return tuple(captures)

    @property
    def teacher_capture(self) -> Capture:
        """What the objective needs of its teacher; with several, see ``teacher_captures``.

        Raises:
          ValueError: if there are several teachers.
        """
        if len(self.teachers) > 1:
            raise ValueError("several teachers: use teacher_captures")
        return _union(self.teacher_captures)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at a teacher."""
        return any(term.teachers for term in self.terms)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided (layer pairs, projections, heads), for people; a line a term."""
        lines = []
        for term in self.terms:
            for index, bound in zip(term.teachers or (0,), term.bounds, strict=False):
                whose = f" (teacher {index})" if len(self.teachers) > 1 else ""
                if bound.notes:
                    lines.append(f"{term.label}{whose}: {'; '.join(bound.notes)}")
        return tuple(lines)

    def init_params(self, rng: Array) -> dict[str, Any]:
        """The losses' own parameters by term label, float32; {} when no term has any."""
        params: dict[str, Any] = {}
        for index, term in enumerate(self.terms):
            own = {
                f"teacher_{teacher}": values
                for teacher, bound in zip(term.teachers or (0,), term.bounds, strict=True)
                if (values := _init(bound, jax.random.fold_in(rng, 1000 * index + teacher)))
            }
            if own:
                params[term.label] = own
        return params

    def numbers(self, step: int, total_steps: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Weights and hyperparameters at a step, schedules evaluated: data for the jitted step.

        Args:
          step: 0 for the first step.
          total_steps: at least 1; ``step == total_steps`` is the end of every schedule.
          seed: of the run, for terms that draw.

        Returns:
          ``{term label: {name: float32}}``, among them ``weight`` and, for a term over several
          teachers, ``teacher_weights``, float32 [K]; for one that draws, ``draw``, uint32 [2].
        """
        share = min(max(step / max(total_steps, 1), 0.0), 1.0)
        numbers: dict[str, dict[str, Any]] = {}
        for term, source in zip(self.terms, self.objective.terms, strict=True):
            given = dict(source.options)
            values = {key: given.get(key, term.spec.own[key].default) for key in term.dynamics}
            values["weight"] = source.weight
            numbers[term.label] = {k: np.float32(value_at(v, share)) for k, v in values.items()}
            if term.spec.feed.random:
                numbers[term.label]["draw"] = np.asarray([seed, step], np.uint32)
            if len(term.teachers) > 1:
                weights = given.get("teacher_weights") or (1.0,) * len(term.teachers)
                numbers[term.label]["teacher_weights"] = np.asarray(weights, np.float32)
        return numbers

    def counts(self, batch: Batch) -> dict[str, Array]:
        """How many examples each term counts in a batch, float32 scalars."""
        return {
            term.label: jnp.sum(term.spec.feed.where_B(batch), dtype=jnp.float32)
            for term in self.terms
        }

    def __call__(
        self,
        params: Mapping[str, Any],
        numbers: Mapping[str, Mapping[str, Any]],
        student: ModelOutput,
        teacher: Teachers,
        batch: Batch,
        counts: Mapping[str, Array] | None = None,
    ) -> tuple[Array, Parts]:
        """The objective's value on a batch.

        Args:
          params: the losses' own parameters, as ``init_params`` makes them.
          numbers: as ``numbers`` makes them.
          student: the student's output, with all that ``student_capture`` names.
          teacher: the teacher's, likewise; None for an objective that needs none, a sequence for
            several.
          batch: the batch.
          counts: denominators to use instead of the batch's own: give the counts of the whole
            batch to a micro-batch, and totals and gradients add up to the whole's.

        Returns:
          ``total = sum_i weight_i * sum_i / max(count_i, 1)`` and ``{label: (sum, count)}``.
        """
        teachers = _as_sequence(teacher)
        own_counts = self.counts(batch)
        parts: Parts = {}
        totals = []
        for term in self.terms:
            own = params.get(term.label, {})
            values_B = _values(term, own, numbers[term.label], student, teachers, batch)
            total = jnp.sum(jnp.where(term.spec.feed.where_B(batch), values_B, 0))
            parts[term.label] = total, number(own_counts[term.label], total)
            count = number((counts or own_counts)[term.label], total)
            weight = number(numbers[term.label]["weight"], total)
            totals.append(weight * total / jnp.maximum(count, 1))
        first, *rest = floats(*totals)
        return sum(rest, start=first), parts


def resolve(
    objective: Objective | str,
    student: ModelShape,
    teacher: ModelShape | Sequence[ModelShape] | None,
) -> ResolvedObjective:
    """Fits an objective to two models, or to a student and several teachers.

    Args:
      objective: parsed, or its text.
      student: the student's shape.
      teacher: the teacher's shape, a sequence of several, or None when there is no teacher.

    Raises:
      UserError: if a term cannot be computed between them, before any step is taken.
    """
    objective = parse(objective) if isinstance(objective, str) else objective
    teachers = tuple(_as_sequence(teacher))
    terms = []
    for label, term in zip(objective.labels, objective.terms, strict=True):
        try:
            terms.append(_resolve_term(label, term, student, teachers))
        except UserError as error:
            raise UserError(f"{term}: {error}") from error
    return ResolvedObjective(objective, student, teachers, tuple(terms))


def _resolve_term(
    label: str, term: Term, student: ModelShape, teachers: tuple[ModelShape, ...]
) -> ResolvedTerm:
    spec = lookup(term.name)
    given = {key: option.default for key, option in spec.options.items()} | dict(term.options)
    own = sorted(spec.own.items())
    fixed = [(key, given[key]) for key, option in own if not option.dynamic]
    statics = tuple(
        (key, value) for key, value in fixed if value != ()
    )  # an empty list says nothing
    dynamics = tuple(key for key, option in own if option.dynamic)
    looked_at = _choose_teachers(spec, given, len(teachers))
    shapes: list[ModelShape | None] = [teachers[index] for index in looked_at]
    bounds = tuple(spec.feed.bind(given, student, shape) for shape in shapes or [None])
    combine = given.get("teachers", "each")
    return ResolvedTerm(label, term.name, statics, dynamics, combine, looked_at, bounds)


def _choose_teachers(spec: Spec, given: Mapping[str, Any], count: int) -> tuple[int, ...]:
    """Which teachers a term looks at, its options about them checked."""
    if not spec.feed.needs_teacher:
        return ()
    if count == 0:
        raise UserError("this loss needs a teacher, and there is none.")
    chosen = given["teacher"]
    if chosen >= count:
        raise UserError(f"there is no teacher {chosen}: they are numbered 0 to {count - 1}.")
    looked_at = (chosen,) if chosen >= 0 else tuple(range(count))
    weights = given["teacher_weights"]
    if weights and (len(weights) != len(looked_at) or len(looked_at) == 1 or sum(weights) <= 0):
        raise UserError(
            f"teacher_weights needs a number for each of {len(looked_at)} teachers, not all 0."
            if len(looked_at) > 1
            else "teacher_weights has no meaning with one teacher."
        )
    if given["teachers"] != "each" and not spec.feed.reads_logits:
        raise UserError(
            f"teachers='{given['teachers']}' is for losses on logits; this one takes 'each'."
        )
    return looked_at


def _init(bound: Bound, rng: Array) -> dict[str, Any]:
    return bound.feed.init_params(bound, rng)


def _as_sequence(value: Any) -> Sequence[Any]:
    """None, one or several as a sequence."""
    if value is None:
        return ()
    return value if isinstance(value, (tuple, list)) else (value,)


def _union(captures: Iterable[Capture]) -> Capture:
    union = Capture()
    for capture in captures:
        union = union | capture
    return union


def _values(
    term: ResolvedTerm,
    params: Mapping[str, Any],
    numbers: Mapping[str, Any],
    student: ModelOutput,
    teachers: Sequence[ModelOutput],
    batch: Batch,
) -> Array:
    """A term's values [B], over its teachers."""
    if len(term.teachers) < 2:
        teacher = teachers[term.teachers[0]] if term.teachers else None
        own = params.get(f"teacher_{term.teachers[0]}", {}) if term.teachers else params
        return _values_of(term, term.bounds[0], own, numbers, student, teacher, batch)
    weights_K = numbers["teacher_weights"]
    if term.combine != "each":
        logits_KBC = jnp.stack(floats(*[logits_of(teachers[k]) for k in term.teachers]))
        logits_BC = (
            mean_logits(logits_KBC, weights=weights_K)
            if term.combine == "mean_logits"
            else mean_probabilities(logits_KBC, weights=weights_K, T=numbers.get("T", 1.0))
        )
        combined = ModelOutput(logits_BC=logits_BC)
        return _values_of(term, term.bounds[0], {}, numbers, student, combined, batch)
    values_KB = [
        _values_of(
            term, bound, params.get(f"teacher_{k}", {}), numbers, student, teachers[k], batch
        )
        for k, bound in zip(term.teachers, term.bounds, strict=True)
    ]
    stacked_KB = jnp.stack(floats(*values_KB))
    share_K = number(weights_K, stacked_KB)
    return jnp.sum(stacked_KB * (share_K / jnp.sum(share_K))[:, None], axis=0)


def _values_of(
    term: ResolvedTerm,
    bound: Bound,
    params: Mapping[str, Any],
    numbers: Mapping[str, Any],
    student: ModelOutput,
    teacher: ModelOutput | None,
    batch: Batch,
) -> Array:
    """A term's values [B] against one teacher: the mean over its layer pairs."""
    hyper = dict(term.statics) | {key: numbers[key] for key in term.dynamics}
    if bound.feed.random:
        hyper["draw"] = numbers["draw"]
    calls = bound.feed.calls(bound, params, student, teacher, batch)
    values = [term.spec.function(*args, **kwargs, **hyper) for args, kwargs in calls]
    return sum(values[1:], start=values[0]) / len(values)
