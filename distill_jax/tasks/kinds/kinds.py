"""Every kind by its name."""

from pathlib import Path

from distill_jax.core.errors import UserError, unknown
from distill_jax.evaluation.answers import Form
from distill_jax.evaluation.task_file import TaskFile
from distill_jax.tasks.kinds import (
    classes,
    intent_slots,
    labels,
    number,
    relations,
    spans,
    tags,
)
from distill_jax.tasks.kinds.kind import Kind, registered

MODULES = (classes, intent_slots, labels, number, relations, spans, tags)
"""Files of this folder, each of which registers kinds."""


def kind_named(name: str) -> Kind:
    """A kind by its name.

    Raises:
      UserError: with the nearest name, where there is none.
    """
    if name not in registered():
        raise unknown("task", name, registered())
    return registered()[name]


def all_names() -> tuple[str, ...]:
    """Of all kinds, ``classes`` first."""
    return tuple(registered())


def form_of(task: TaskFile, names: tuple[str, ...], tokenizer_file: Path) -> Form:
    """The answers of a model whose folder says what it predicts.

    Raises:
      UserError: the file names no kind, or what is kept is damaged.
    """
    kind = kind_named(task.task)
    try:
        return kind.form(task.saved, names, tokenizer_file)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"what is kept of task {task.task} beside the model is damaged: {error!r}"
        ) from error
