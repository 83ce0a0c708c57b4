"""An export as what ``predict`` asks: one way of predicting, whoever computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, TokenRange
from distill_jax.evaluation.answers import ClassForm, Form
from distill_jax.evaluation.calibration import is_temperature
from distill_jax.evaluation.open_classifier import OpenClassifier, open_classifier
from distill_jax.evaluation.stream import COMPILING, CPU_TOKENS
from distill_jax.evaluation.task_file import TaskFile, read_task
from distill_jax.export.formats import Logits, format_named
from distill_jax.export.manifest import CLASSIFICATION, TOKENIZER, Manifest, is_export
from distill_jax.models.hf_folder import TASK
from distill_jax.tasks.kinds.kinds import form_of

if TYPE_CHECKING:
    from distill_jax.export.opened import Export

WIDTH = 384
"""Of a model whose price of a shape is taken for all."""


@dataclasses.dataclass(frozen=True, eq=False)
class ExportRuntime:
    """A ``stream.Runtime``.

    Attributes:
      compiles: whether each new shape costs a compilation.
    """

    logits: Logits
    compiles: bool = False
    batch_tokens: int = CPU_TOKENS

    @property
    def shape_price(self) -> float:
        """See ``stream.Runtime``: that of a model of usual width."""
        return COMPILING / WIDTH**2 if self.compiles else 0.0

    def __call__(self, batch: Batch) -> Any:
        tokens = batch.input_ids_BT, batch.token_type_ids_BT, batch.where_BT
        return self.logits(*(np.asarray(array, np.int64) for array in tokens))


def open_any(
    folder: Path,
    *,
    max_length: int | None = None,
    temperature: float | Literal["auto"] = "auto",
) -> OpenClassifier:
    """Open a run, a model, or an export; the arguments are those of ``open_classifier``.

    Raises:
      UserError: see ``open_classifier`` and ``open_export``.
    """
    if not is_export(folder):
        return open_classifier(
            folder, max_length=max_length, temperature=temperature, form_of=form_of
        )

    from distill_jax.export.opened import open_export

    return as_classifier(open_export(folder), max_length=max_length, temperature=temperature)


def as_classifier(
    export: Export,
    *,
    max_length: int | None = None,
    temperature: float | Literal["auto"] = "auto",
) -> OpenClassifier:
    """An opened export as what ``predict`` asks; the arguments are those of ``open_any``."""
    manifest = export.manifest
    task = task_of(export.folder, manifest)
    if task is not None and temperature != "auto":
        raise UserError(f"a temperature is for classes; {export.folder} is for task {task.task}")
    if temperature == "auto":
        temperature = manifest.temperature
    if not is_temperature(temperature):
        raise UserError(f"the temperature must be a positive number or auto, not {temperature}")
    return OpenClassifier(
        label_names=manifest.label_names,
        max_length=min(max_length or manifest.max_length, manifest.max_length),
        pairs=manifest.pairs,
        temperature=float(temperature),
        tokenizer_file=export.tokenizer_file,
        token_range=TokenRange(types=2 if manifest.pairs else 1, positions=manifest.max_length),
        runtime=ExportRuntime(export.logits, format_named(manifest.format).compiles),
        form=form_of(task, manifest.label_names, export.tokenizer_file) if task else None,
        task=task,
    )


def answering(folder: Path, manifest: Manifest) -> Form:
    """The form of an export's answers, without opening its model."""
    task = task_of(folder, manifest)
    if task is None:
        return ClassForm(manifest.label_names, manifest.temperature)
    return form_of(task, manifest.label_names, folder / TOKENIZER)


def task_of(folder: Path, manifest: Manifest) -> TaskFile | None:
    """What an export's folder says that it predicts; None for classes.

    Raises:
      UserError: its files do not belong together.
    """
    if manifest.task == CLASSIFICATION:
        return None
    task = read_task(folder) if TASK in manifest.files else None
    if task is None or task.task != manifest.task:
        raise UserError(
            f"{folder} is an export for {manifest.task}, and no {TASK} in it says how that "
            "is answered: its files do not belong together"
        )
    return task
