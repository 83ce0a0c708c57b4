"""The outputs of a model of several tasks: a head each, and an objective each.

Each task has its own text, ``{"click": "0.3*labels + 0.7*bce(T=2)", "rating": "labels"}``.
``labels`` is the loss on the task's labels: the binary cross-entropy, or the squared error of a
number. The others are the registered losses on single outputs, against the teacher's output of
the same task, on every example, labelled or not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jax import Array

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.task_types import TaskBatch, TaskHead
from distill_jax.core.types import ModelShape
from distill_jax.objectives.feeds import Feed, Shape, logits_of
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.readers import Loss, Options, Params, Reader, Said
from distill_jax.objectives.registry import Spec, lookup
from distill_jax.objectives.resolve import ResolvedObjective, joined, resolve
from distill_jax.objectives.terms import Option


@dataclasses.dataclass(frozen=True)
class HeadReader(Reader):
    """Losses on one head's output.

    Attributes:
      column: of the head among the outputs.
      binary: whether the output is a logit.
      labelled: whether the loss is that on the labels.
    """

    column: int
    binary: bool
    labelled: bool

    @property
    def structure(self) -> tuple[str, ...]:
        return (f"output {self.column}",)

    def where(self, batch: TaskBatch, teacher: Any) -> Array:
        known_B = batch.label_where_BK[:, self.column]
        return batch.where_B & known_B if self.labelled else batch.where_B

    def values(self, loss: Loss, params: Params, said: Said, teacher: Any, draw: Any) -> Array:
        own = slice(self.column, self.column + 1)
        said_B1, where_B = logits_of(said.output)[:, own], self.where(said.batch, teacher)
        if self.labelled:
            return loss(said_B1, said.batch.labels_BK[:, own], where=where_B, binary=self.binary)
        return loss(said_B1, logits_of(teacher)[:, own], where=where_B)


@dataclasses.dataclass(frozen=True)
class Head(Outputs):
    """One head of a model of several tasks.

    Attributes:
      task: of the head.
      column: of the head among the outputs.
    """

    name: ClassVar[str] = "heads"
    task: TaskHead
    column: int

    def names(self) -> tuple[str, ...]:
        return tuple(n for n in super().names() if self.task.kind in lookup(n).feed.heads)

    def options_of(self, feed: Feed) -> Mapping[str, Option]:
        return {}

    def fit(self, spec: Spec, given: Options, student: ModelShape, teacher: Shape) -> Reader:
        return HeadReader(self.column, self.task.kind == "binary", spec.feed.labelled)


def resolve_tasks(texts: Mapping[str, str], tasks: Sequence[TaskHead]) -> ResolvedObjective:
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
    shape = ModelShape(num_layers=0, hidden_size=0, num_heads=0, num_labels=len(tasks))
    objectives = {}
    for column, task in enumerate(tasks):
        if task.name in texts:
            try:
                resolved = resolve(texts[task.name], shape, shape, Head(task, column))
            except UserError as error:
                raise UserError(f"task {task.name}: {error}") from error
            objectives[task.name] = resolved
    return joined(objectives)
