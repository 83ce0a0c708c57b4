"""The objective of a model of several tasks: an objective a task, and their sum.

Each task has its own text, ``{"click": "0.3*labels + 0.7*bce(T=2)", "rating": "labels"}``.
``labels`` is the loss on the task's labels: the binary cross-entropy, or the squared error of a
number. The others are the registered losses on single outputs, against the teacher's output of
the same task, on every example, labelled or not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.task_types import TaskBatch, TaskHead
from distill_jax.core.types import Capture, ModelOutput
from distill_jax.losses import bce, mse_regression
from distill_jax.losses.numeric import FLOOR, floats, number
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.registry import lookup
from distill_jax.objectives.schedules import value_at
from distill_jax.objectives.terms import Option
from distill_jax.objectives.terms import Term as SourceTerm

LABELS = "labels"
TEACHERS = {"binary": ("bce", "mse_logits"), "number": ("mse_regression",)}
"""Losses on a teacher that speak of a single output, by the kind of task."""


@dataclasses.dataclass(frozen=True)
class _Vocabulary:
    """What the text of a task of this kind may name."""

    kind: str

    def names(self) -> tuple[str, ...]:
        return (LABELS, *TEACHERS[self.kind])

    def options(self, name: str) -> Mapping[str, Option]:
        return {} if name == LABELS else lookup(name).own


@dataclasses.dataclass(frozen=True)
class TaskTerm:
    """A term of one task's text.

    Attributes:
      label: ``click/bce``: unique in the objective.
      column: of the task among the outputs.
      binary: whether the task is.
      name: of the loss.
      source: the term as written; it holds the numbers, which are not compiled.
    """

    label: str
    column: int
    binary: bool
    name: str
    source: SourceTerm = dataclasses.field(compare=False)

    @property
    def needs_teacher(self) -> bool:
        """Whether it looks at the teacher."""
        return self.name != LABELS

    @property
    def numbers(self) -> dict[str, Any]:
        """Hyperparameters by name, schedules among them."""
        own = {} if self.name == LABELS else lookup(self.name).own
        given = dict(self.source.options)
        return {key: given.get(key, option.default) for key, option in own.items()}


@dataclasses.dataclass(frozen=True)
class MultiTaskObjective:
    """An objective over several tasks; equal ones compile to the same program."""

    terms: tuple[TaskTerm, ...]

    @property
    def structure(self) -> str:
        """Canonical text of the static part; equal texts mean the same compiled program."""
        return " + ".join(f"#*{term.label}" for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at a teacher."""
        return any(term.needs_teacher for term in self.terms)

    @property
    def student_capture(self) -> Capture:
        """The outputs are enough."""
        return Capture()

    def numbers(self, step: int, total_steps: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Weights and hyperparameters at a step: ``{term label: {name: float32}}``."""
        share = min(max(step / max(total_steps, 1), 0.0), 1.0)
        return {
            term.label: {
                name: np.float32(value_at(value, share))
                for name, value in {**term.numbers, "weight": term.source.weight}.items()
            }
            for term in self.terms
        }

    def __call__(
        self,
        params: Mapping[str, Any],
        numbers: Mapping[str, Mapping[str, Any]],
        student: ModelOutput,
        teacher: ModelOutput | None,
        batch: TaskBatch,
    ) -> tuple[Array, dict[str, tuple[Array, Array]]]:
        """The objective's value on a batch.

        Returns:
          ``total = sum_i weight_i * sum_i / max(count_i, 1)``, counted over the examples that a
          term looks at, and ``{label: (sum, count)}``.
        """
        parts: dict[str, tuple[Array, Array]] = {}
        totals = []
        for term in self.terms:
            where_B = batch.where_B
            if not term.needs_teacher:
                where_B = where_B & batch.label_where_BK[:, term.column]
            hyper = {key: value for key, value in numbers[term.label].items() if key != "weight"}
            values_B = _values(term, student, teacher, batch, where_B, hyper)
            total = jnp.sum(jnp.where(where_B, values_B, 0))
            parts[term.label] = total, jnp.sum(where_B, dtype=total.dtype)
            weight = number(numbers[term.label]["weight"], total)
            totals.append(weight * total / jnp.maximum(parts[term.label][1], 1))
        first, *rest = floats(*totals)
        return sum(rest, start=first), parts


def resolve_tasks(texts: Mapping[str, str], tasks: Sequence[TaskHead]) -> MultiTaskObjective:
    """The objective of a model's tasks.

    Args:
      texts: task -> its objective; a task that is left out is not trained.
      tasks: of the model, in the order of its outputs.

    Raises:
      UserError: for an unknown task, or a loss that does not fit the kind of its task.
    """
    by_name = {task.name: task for task in tasks}
    for name in texts:
        if name not in by_name:
            raise unknown("task", name, by_name)
    if not texts:
        raise UserError("an objective needs a text for at least one task.")
    terms = []
    for column, task in enumerate(tasks):
        if task.name not in texts:
            continue
        try:
            objective = parse(texts[task.name], _Vocabulary(task.kind))
        except UserError as error:
            raise UserError(f"task {task.name}: {error}") from error
        terms += [
            TaskTerm(f"{task.name}/{label}", column, task.kind == "binary", source.name, source)
            for label, source in zip(objective.labels, objective.terms, strict=True)
        ]
    return MultiTaskObjective(tuple(terms))


def _values(
    term: TaskTerm,
    student: ModelOutput,
    teacher: ModelOutput | None,
    batch: TaskBatch,
    where_B: Array,
    hyper: Mapping[str, Any],
) -> Array:
    """A term's values [B]."""
    if student.logits_BC is None:
        raise UserError("an objective over tasks needs a model with heads: there are no logits.")
    own = slice(term.column, term.column + 1)
    said_B1 = student.logits_BC[:, own]
    if not term.needs_teacher:
        truth_B1 = batch.labels_BK[:, own]
        if term.binary:  # as logits: FLOOR is as good as infinity, see bce
            hard_B1 = jnp.where(truth_B1 > 0.5, FLOOR, -FLOOR)
            return bce(said_B1, hard_B1, where=where_B)
        return mse_regression(said_B1, truth_B1, where=where_B)
    if teacher is None or teacher.logits_BC is None:
        raise UserError(f"{term.label} needs a teacher, and there is none.")
    return lookup(term.name).function(said_B1, teacher.logits_BC[:, own], where=where_B, **hyper)
