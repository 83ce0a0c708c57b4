"""An objective fitted to its models: checked before step 1, then pure functions of arrays.

One class for every task. What a loss reads of a task's outputs is its reader's, see ``outputs``.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelShape
from distill_jax.losses.numeric import floats, number
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.outputs import CLASSES, Outputs
from distill_jax.objectives.readers import Options, Params, Reader, Said
from distill_jax.objectives.registry import ALIKE, Loss, Spec, lookup
from distill_jax.objectives.schedules import value_at
from distill_jax.objectives.terms import Objective, Term, format_value

Parts = dict[str, tuple[Array, Array]]
"""(sum, count) of each term, by its label."""

Numbers = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ResolvedTerm:
    """A term's static part: the loss, its static arguments, what it reads of the models.

    Attributes:
      label: unique in the objective.
      name: the loss.
      function: it; one that is written anew under its name makes another term.
      statics: static options, the loss's own arguments among them.
      dynamics: the names of its numbers.
      combine: ``each``, ``mean_probabilities`` or ``mean_logits`` of the teachers.
      teachers: which of the objective's teachers it looks at; () for none.
      readers: how it is read, one for each of those teachers (one also where there is none).
      trust: how much the teachers count on each example, see ``registry.TEACHER_OPTIONS``.
    """

    label: str
    name: str
    function: Loss
    statics: tuple[tuple[str, Any], ...]
    dynamics: tuple[str, ...]
    combine: str
    teachers: tuple[int, ...]
    readers: tuple[Reader, ...]
    trust: str = ALIKE

    @property
    def spec(self) -> Spec:
        """The loss, as the registry has it."""
        return lookup(self.name)

    @property
    def random(self) -> bool:
        """Whether its numbers hold a draw of each step."""
        return any(reader.random for reader in self.readers)

    @property
    def by_teacher(self) -> tuple[tuple[int, Reader], ...]:
        """Its readers with the numbers of their teachers, 0 where it looks at none."""
        return tuple(zip(self.teachers or (0,), self.readers, strict=True))

    def weights(self, batch: Any) -> Array | None:
        """See ``Reader.weights``."""
        return self.readers[0].weights(batch)

    @property
    def structure(self) -> str:
        """The term as text, numbers replaced by #, layers and projections resolved."""
        facts = [f"{key}=#" for key in self.dynamics]
        facts += [f"{key}={format_value(value)}" for key, value in self.statics]
        if self.teachers not in ((), (0,)):
            facts.append(f"{self.combine} of teachers {self.teachers}")
        if self.trust != ALIKE:
            facts.append(f"trusted by {self.trust}")
        for reader in dict.fromkeys(self.readers):
            facts += reader.structure
        return f"#*{self.name}({', '.join(facts)})"

    def values(
        self, params: Params, numbers: Numbers, said: Said, teachers: Sequence[Any], kind: Outputs
    ) -> tuple[Array, Array]:
        """The loss over its teachers, unreduced, and where it counts.

        Args:
          params: its own, by teacher.
          numbers: its own.
          said: the student's output.
          teachers: every teacher's output.
          kind: of the outputs.
        """
        statics = {key: value for key, value in self.statics if key in self.spec.own}
        dynamics = {key: numbers[key] for key in self.dynamics}
        loss = functools.partial(self.function, **statics, **dynamics)
        if self.teachers and max(self.teachers) >= len(teachers):
            raise UserError(f"{self.label} needs a teacher, and there is none.")
        heard = [teachers[index] for index in self.teachers] or [None]
        pairs = list(zip(self.by_teacher, heard, strict=True))
        weights = numbers.get("teacher_weights")
        if self.teachers:
            weights = kind.weights(heard, weights, self.trust, said.batch)
        if len(heard) > 1 and self.combine != "each":
            one = kind.combined(heard, self.combine, weights, numbers.get("T", 1.0))
            pairs = [(self.by_teacher[0], one)]
        wheres, values = [], []
        for (index, reader), teacher in pairs:
            own = params.get(f"teacher_{index}", {})
            wheres.append(reader.where(said.batch, teacher))
            values.append(reader.values(loss, own, said, teacher, numbers.get("draw")))
        if weights is None or len(heard) > len(values):
            return values[0], wheres[0]
        stacked = jnp.stack(floats(*values))
        share = number(weights, stacked)
        if share.ndim > 1:  # on each example as much as they say: one of them is enough there
            return jnp.sum(stacked * share, axis=0), functools.reduce(jnp.logical_or, wheres)
        share = (share / jnp.sum(share)).reshape(-1, *(1,) * (stacked.ndim - 1))
        return jnp.sum(stacked * share, axis=0), functools.reduce(jnp.logical_and, wheres)


@dataclasses.dataclass(frozen=True)
class ResolvedObjective:
    """An objective fitted to a student and its teachers.

    Two are equal, and hash alike, when they compile to the same program: numbers (weights,
    temperatures, schedules) do not count. So it may be a static argument of ``jit``.

    Attributes:
      objective: the text, parsed.
      outputs: what its models say.
      student, teachers: their shapes.
      terms: static parts, in the order of the text.
    """

    objective: Objective = dataclasses.field(compare=False)
    outputs: Outputs
    student: ModelShape
    teachers: tuple[ModelShape, ...]
    terms: tuple[ResolvedTerm, ...]

    @property
    def structure(self) -> str:
        """Canonical text of the static part; equal texts mean the same compiled program."""
        return " + ".join(term.structure for term in self.terms) + self.outputs.structure

    @property
    def student_capture(self) -> Any:
        """What the objective needs of the student's output."""
        readers = (reader for term in self.terms for reader in term.readers)
        return _union(self.outputs.student_capture, (each.student_capture for each in readers))

    @property
    def teacher_captures(self) -> tuple[Any, ...]:
        """What the objective needs of each teacher's output."""
        wanted: list[list[Any]] = [[] for _ in self.teachers]
        for term in self.terms:
            for index, reader in zip(term.teachers, term.readers, strict=False):
                wanted[index].append(reader.teacher_capture)
        return tuple(_union(self.outputs.teacher_capture, captures) for captures in wanted)

    @property
    def teacher_capture(self) -> Any:
        """What the objective needs of its teacher; with several, see ``teacher_captures``.

        Raises:
          ValueError: if there are several teachers.
        """
        if len(self.teachers) > 1:
            raise ValueError("several teachers: use teacher_captures")
        return _union(self.outputs.teacher_capture, self.teacher_captures)

    def heard(self, said: Any) -> Any:
        """What is read of a teacher's output; of several a tuple, as ``said`` is."""
        if isinstance(said, tuple):
            return tuple(c.select(own) for c, own in zip(self.teacher_captures, said, strict=True))
        return self.teacher_capture.select(said)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at a teacher."""
        return any(term.teachers for term in self.terms)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided (layer pairs, projections, heads), for people; a line a term."""
        lines = []
        for term in self.terms:
            for index, reader in term.by_teacher:
                whose = f" (teacher {index})" if len(self.teachers) > 1 else ""
                if reader.notes:
                    lines.append(f"{term.label}{whose}: {'; '.join(reader.notes)}")
        return tuple(lines)

    def init_params(self, rng: Array) -> dict[str, Any]:
        """The losses' own parameters by term label and teacher, float32; {} when there are none."""
        params: dict[str, Any] = {}
        for number_, term in enumerate(self.terms):
            for index, reader in term.by_teacher:
                key = jax.random.fold_in(rng, self.outputs.seed(number_, index))
                if own := reader.init_params(key):
                    params.setdefault(term.label, {})[f"teacher_{index}"] = own
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
            if term.random:
                numbers[term.label]["draw"] = np.asarray([seed, step], np.uint32)
            if len(term.teachers) > 1:
                weights = given.get("teacher_weights") or (1.0,) * len(term.teachers)
                numbers[term.label]["teacher_weights"] = np.asarray(weights, np.float32)
        return numbers

    def __call__(
        self,
        params: Params,
        numbers: Mapping[str, Numbers],
        student: Any,
        teacher: Any,
        batch: Any,
    ) -> tuple[Array, Parts]:
        """The objective's value on a batch.

        Args:
          params: the losses' own parameters, as ``init_params`` makes them.
          numbers: as ``numbers`` makes them.
          student: the student's output, with all that ``student_capture`` names.
          teacher: the teacher's, likewise; None for an objective that needs none, a sequence for
            several.
          batch: the batch.

        Returns:
          ``total = sum_i weight_i * sum_i / count_i``, 0 for a count of 0; sums and counts over
          what a term looks at (examples, positions), and ``{label: (sum, count)}``. Where values
          weigh, the sum is of weight times value and the count that of the weights.
        """
        said, teachers = self.outputs.said(student, batch), _as_sequence(teacher)
        parts: Parts = {}
        totals = []
        for term in self.terms:
            own, given = params.get(term.label, {}), numbers[term.label]
            values, where = term.values(own, given, said, teachers, self.outputs)
            total, count = _sum_and_count(values, where, term.weights(batch))
            parts[term.label] = total, count
            mean = total / jnp.where(count > 0, count, 1)
            totals.append(number(given["weight"], total) * mean)
        first, *rest = floats(*totals)
        return sum(rest, start=first), parts


def resolve(
    objective: Objective | str,
    student: ModelShape,
    teacher: ModelShape | Sequence[ModelShape] | None,
    outputs: Outputs = CLASSES,
) -> ResolvedObjective:
    """Fits an objective to two models, or to a student and several teachers.

    Args:
      objective: parsed, or its text.
      student: the student's shape.
      teacher: the teacher's shape, a sequence of several, or None when there is no teacher.
      outputs: what the models say.

    Raises:
      UserError: if a term cannot be computed between them, before any step is taken.
    """
    objective = parse(objective, outputs) if isinstance(objective, str) else objective
    teachers = tuple(_as_sequence(teacher))
    terms = []
    for label, term in zip(objective.labels, objective.terms, strict=True):
        try:
            terms.append(_resolve_term(label, term, student, teachers, outputs))
        except UserError as error:
            raise UserError(f"{term}: {error}") from error
    return ResolvedObjective(objective, outputs, student, teachers, tuple(terms))


def _resolve_term(
    label: str, term: Term, student: ModelShape, teachers: tuple[ModelShape, ...], outputs: Outputs
) -> ResolvedTerm:
    spec = lookup(term.name)
    if not outputs.reads(spec):
        raise UserError(outputs.refusal(spec))
    allowed = outputs.options(term.name)
    given = {key: option.default for key, option in allowed.items()} | dict(term.options)
    dynamics = tuple(sorted(key for key, option in spec.own.items() if option.dynamic))
    looked_at = _choose_teachers(spec, given, teachers, outputs)
    shapes: list[ModelShape | None] = [teachers[index] for index in looked_at]
    readers = tuple(outputs.fit(spec, given, student, shape) for shape in shapes or [None])
    combine = given.get("teachers", "each")
    statics = outputs.statics(spec, given)
    trust = given.get("trust", ALIKE)
    what = label, term.name, spec.function, statics, dynamics
    return ResolvedTerm(*what, combine, looked_at, readers, trust)


def _choose_teachers(
    spec: Spec, given: Options, teachers: tuple[ModelShape, ...], outputs: Outputs
) -> tuple[int, ...]:
    """Which teachers a term looks at, its options about them checked."""
    count = len(teachers)
    if not spec.feed.needs_teacher:
        return ()
    if count == 0:
        raise UserError("this loss needs a teacher, and there is none.")
    chosen = given["teacher"]
    if chosen >= count:
        there = f"they are numbered 0 to {count - 1}" if count > 1 else "there is one, number 0"
        raise UserError(f"there is no teacher {chosen}: {there}.")
    looked_at = (chosen,) if chosen >= 0 else tuple(range(count))
    weights = given["teacher_weights"]
    if weights and (len(weights) != len(looked_at) or len(looked_at) == 1 or sum(weights) <= 0):
        raise UserError(
            f"teacher_weights needs a number for each of {len(looked_at)} teachers, not all 0."
            if len(looked_at) > 1
            else "teacher_weights has no meaning with one teacher."
        )
    combined = given["teachers"] != "each"
    if combined and not (spec.feed.reads_logits and (outputs.combines or len(looked_at) == 1)):
        raise UserError(
            f"teachers='{given['teachers']}' is for losses on logits of classes; this one takes "
            "'each'."
        )
    if given["trust"] != ALIKE:
        _check_trust(given["trust"], [teachers[index] for index in looked_at], outputs)
    return looked_at


def _check_trust(trust: str, teachers: Sequence[ModelShape], outputs: Outputs) -> None:
    """Raises ``UserError`` where teachers cannot be weighed example by example."""
    if len(teachers) < 2:
        raise UserError("trust has no meaning with one teacher.")
    if not outputs.combines or min(each.num_labels for each in teachers) < 2:
        raise UserError(f"trust='{trust}' is for teachers that say probabilities of classes.")


def _sum_and_count(values: Array, where: Array, weights: Array | None) -> tuple[Array, Array]:
    if weights is None:
        total = jnp.sum(jnp.where(where, values, 0))
        return total, jnp.sum(where, dtype=total.dtype)
    values, weights = floats(values, weights)
    return jnp.sum(jnp.where(where, values * weights, 0)), jnp.sum(jnp.where(where, weights, 0))


def _as_sequence(value: Any) -> Sequence[Any]:
    """None, one or several as a sequence."""
    if value is None:
        return ()
    return value if isinstance(value, (tuple, list)) else (value,)


def _union(least: Any, captures: Iterable[Any]) -> Any:
    """Captures joined; None is none."""
    return functools.reduce(operator.or_, (each for each in captures if each is not None), least)
