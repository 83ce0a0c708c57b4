"""What a model predicts where that is no class, in a file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.models.hf_folder import TASK as FILE


@dataclass(frozen=True)
class TaskFile:
    """What stands there.

    Attributes:
      task: the kind of task, see ``tasks.kinds``.
      saved: what its answers are made with.
    """

    task: str
    saved: Mapping[str, Any]


def write_task(folder: Path, task: str, saved: Mapping[str, Any]) -> None:
    """Write it, whole or not at all."""
    told = {"task": task, "saved": dict(saved)}
    write_atomic(folder / FILE, json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False))


def read_task(folder: Path) -> TaskFile | None:
    """What a model's folder says; None for a classifier, whose folder has no such file.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        task, saved = told["task"], told["saved"]
        if not isinstance(task, str) or not isinstance(saved, dict):
            raise TypeError("task is a word, saved an object")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error!r}); train the model again") from error
    return TaskFile(task, saved)


def check_classifier(folder: Path, what: str) -> None:
    """Raises ``UserError`` for a folder with a model that is no classifier.

    Args:
      what: cannot be done with it, for people.
    """
    found = read_task(folder)
    if found is not None:
        raise UserError(
            f"{folder} holds a model of task {found.task}; {what} is for task classes. Ask it with "
            "distill-jax predict"
        )
