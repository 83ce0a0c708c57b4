"""The teacher of a table: a pretrained checkpoint, fine-tuned on the labels that may be used."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, home
from distill_jax.data.assets import fetch
from distill_jax.models.bert import Bert, BertConfig
from distill_jax.models.huggingface import Pretrained, load_pretrained, save_pretrained
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.sweeps.cells import TEACHER, Cell, TrainingConfig
from distill_jax.sweeps.engine import Engine
from distill_jax.sweeps.task import Task
from distill_jax.teachers.cache import Provenance, teacher_outputs, union_of
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.feed import TeacherOutputs

PACKAGED = ("minilm-l6",)
"""Teachers that travel as packages; every other name is a folder or a hub id."""
CACHE_BATCH = 32
POOLING = {"minilm-l6": "mean"}
"""all-MiniLM was trained with mean pooling; its pooler was never used."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model that may speak.

    Attributes:
      pretrained: the checkpoint it came from; students copy layers from there, not from the
        fine-tuned model, so that the control row hears nothing of the teacher.
      config, params: the fine-tuned model.
      digest: its content.
      folder: where it lives, a Hugging Face folder; None when it was used as it came.
      training: selected step, seconds and the like; empty when it was used as it came.
    """

    pretrained: Pretrained
    config: BertConfig
    params: Any
    digest: str
    folder: Path | None
    training: dict[str, Any]


def load_teacher(name: str, *, num_labels: int, fresh: bool) -> Pretrained:
    """The checkpoint called ``name``: packaged, in a local folder, or on the hub.

    Args:
      num_labels: classes of the data.
      fresh: whether it gets a new head, to be fine-tuned, or keeps the one it has.

    Raises:
      UserError: when it cannot be had or is not a BERT checkpoint.
    """
    if name in PACKAGED:
        location: Path | str = fetch(name)
    else:
        path = Path(name).expanduser()
        location = path if path.is_dir() else name
    return load_pretrained(
        location, pooling=POOLING.get(name), num_labels=num_labels, fresh_classifier=fresh
    )


def teacher_cell(task: Task, pretrained: Pretrained, training: TrainingConfig, seed: int) -> Cell:
    """The cell of the teacher's own fine-tuning."""
    return Cell(
        data=task.config,
        data_digest=task.digest,
        student=TEACHER,
        objective="ce",
        teacher=pretrained.digest,
        training=training,
        seed=seed,
    )


def fine_tuned(engine: Engine, pretrained: Pretrained, cell: Cell) -> Teacher:
    """The teacher of this cell, fine-tuned now or found from an earlier run."""
    task = engine.task
    folder = home() / "teachers" / cell.hash
    if not folder.is_dir():
        config = pretrained.config
        steps = cell.training.total_steps(len(task.labelled))
        result = engine.train(
            cell,
            config,
            pretrained.params,
            resolve(parse(cell.objective), config.shape, None),
            teacher=None,
            steps=steps,
            label="fine-tuning the teacher",
        )
        progress = result.progress
        training = {
            "cell": cell.hash,
            "selected_step": progress.best_step,
            "validation_accuracy": progress.best_score,
            "history": progress.history,
            "seconds": {"train": progress.train_seconds, "compile": progress.compile_seconds},
            "examples_per_second": result.examples_per_second,
        }
        with atomic_folder(folder) as scratch:
            save_pretrained(
                scratch, config, result.params, pretrained.tokenizer_file, task.label_names
            )
            (scratch / "training.json").write_text(json.dumps(training, indent=1))
    loaded = load_pretrained(folder)
    check_label_order(loaded, task.label_names)
    try:
        training = json.loads((folder / "training.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"the teacher in {folder} is damaged (training.json: {error}); delete that folder and "
            "it is fine-tuned again"
        ) from error
    return Teacher(pretrained, loaded.config, loaded.params, loaded.digest, folder, training)


def as_it_came(engine: Engine, pretrained: Pretrained) -> Teacher:
    """A teacher whose head was trained elsewhere.

    Raises:
      UserError: when its checkpoint has no head, or its labels are not the data's.
    """
    if pretrained.fresh:
        raise UserError(
            "the teacher's checkpoint has no trained classifier head "
            f"({', '.join(pretrained.fresh)} missing); let it be fine-tuned first"
        )
    check_label_order(pretrained, engine.task.label_names)
    return Teacher(pretrained, pretrained.config, pretrained.params, pretrained.digest, None, {})


def check_label_order(teacher: Pretrained, label_names: tuple[str, ...]) -> None:
    """Raises ``UserError`` where the teacher's classes are not the data's, in their order."""
    if teacher.config.num_labels != len(label_names):
        raise UserError(
            f"the teacher has {teacher.config.num_labels} classes, the data {len(label_names)}"
        )
    if teacher.label_names is not None and tuple(teacher.label_names) != tuple(label_names):
        raise UserError(
            f"teacher and data order their labels differently: {list(teacher.label_names)} and "
            f"{list(label_names)}"
        )


def outputs_for(
    engine: Engine,
    teacher: Teacher,
    objectives: list[ResolvedObjective],
    *,
    live: bool,
    dtype: Literal["float16", "float32"],
) -> TeacherOutputs | None:
    """What the teacher says of the training sentences; None when no objective listens.

    Args:
      live: ask at every step; otherwise ask once about every sentence and keep the answers.
      dtype: of the kept token-level answers.
    """
    listeners = [objective for objective in objectives if objective.needs_teacher]
    if not listeners:
        return None
    capture = union_of(objective.teacher_capture for objective in listeners)
    speaker = LiveTeacher(Bert(teacher.config), teacher.params, capture)
    if live:
        return speaker
    table = engine.task.everything
    data = table.without_labels(np.arange(len(table))).digest
    provenance = Provenance(teacher.digest, data, capture, dtype)
    with engine.reporter.stage("asking the teacher", -(-len(table) // CACHE_BATCH)) as stage:

        def on_batch(done: int, total: int) -> None:
            engine.stop.check()
            stage.update(done, batch_size=CACHE_BATCH)

        return teacher_outputs(
            home(), provenance, table, speaker, batch_size=CACHE_BATCH, on_batch=on_batch
        )
