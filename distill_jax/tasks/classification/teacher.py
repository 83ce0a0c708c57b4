"""The teacher of a table: a checkpoint, fine-tuned on the labels that may be used."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, home
from distill_jax.core.sharding import ShardingRules, place
from distill_jax.core.types import Batch, Capture, ModelOutput
from distill_jax.data.split_files import listed
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import Precision
from distill_jax.engine.rows import training_facts
from distill_jax.models.build import build_model, load_model
from distill_jax.models.family import ModelConfig, family_of
from distill_jax.models.loaded import Loaded
from distill_jax.objectives.resolve import resolve
from distill_jax.tasks.classification.cache_origin import origin_of
from distill_jax.tasks.classification.cells import (
    TEACHER,
    ClassifierCell,
    ClassifierSetup,
    TeacherConfig,
)
from distill_jax.tasks.classification.classify import classifier_work, predict
from distill_jax.tasks.classification.label_map import Pairs, order_of
from distill_jax.tasks.classification.models import (
    Checkpoint,
    in_units,
    inputs_of,
    with_classes,
)
from distill_jax.tasks.classification.splits import Examples, Splits
from distill_jax.tasks.kinds.kind import Kind
from distill_jax.teachers.asking import how_long
from distill_jax.teachers.cache import (
    Provenance,
    cache_folder,
    open_cache,
    teacher_outputs,
    union_of,
)
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult


@dataclass(frozen=True, eq=False)
class Teacher:
    """A model that may speak.

    Attributes:
      pretrained: the checkpoint it came from; students copy layers from there, not from the
        fine-tuned model, so that the control row hears nothing of the teacher.
      config, params: the fine-tuned model.
      digest: its content.
      folder: where it lives, a folder that can be loaded; None when it was used as it came.
      training: selected step, steps as run, seconds; empty when it was used as it came.
      label_names: its classes in order; None where its checkpoint does not say.
      by_id: whether it knows examples by their ids, and so nothing of other data, whose ids may be
        the same.
    """

    by_id: ClassVar[bool] = False

    pretrained: Checkpoint
    config: ModelConfig
    params: Any
    digest: str
    folder: Path | None
    training: dict[str, Any]
    label_names: tuple[str, ...] | None = None

    def answers(
        self, engine: Engine, splits: Splits, table: Examples, precision: Precision = "f32"
    ) -> np.ndarray:
        """Logits [N, C] for a table, in its order; NaN for examples of which it says nothing."""
        return predict(
            splits,
            self.config,
            self.params,
            table,
            mesh=engine.mesh,
            on_batch=engine.check_stop,
            precision=precision,
        )

    def speaks_of(self, table: Examples) -> np.ndarray:
        """bool [N], the examples of a table of which it says something."""
        return np.ones(len(table), bool)

    def on_few(
        self, splits: Splits, forward: Callable[..., ModelOutput]
    ) -> Callable[[Batch], ModelOutput]:
        """What it says, whole, of batches of ``splits.everything``; for checks of a few.

        Args:
          forward: (config, parameters, batch) -> the output of any model.
        """
        return partial(forward, self.config, self.params)

    def outputs(
        self,
        engine: Engine,
        splits: Splits,
        capture: Capture,
        config: TeacherConfig,
        wider: Splits,
        rows: np.ndarray | None = None,
    ) -> TeacherOutputs:
        """What it says of batches of ``splits.everything``; see ``outputs_for``."""
        return _asked(engine, splits, self, capture, config, wider, rows)


def teacher_cell(splits: Splits, pretrained: Checkpoint, cell: ClassifierCell) -> ClassifierCell:
    """The cell of the fine-tuning of a cell's teacher. The transfer set is not part of it."""
    config = cell.setup.teacher
    return Cell(
        ClassifierSetup(cell.setup.data, config, TEACHER),
        (Train(cell.setup.kind.alone, config.training),),
        config.seed,
        precision=config.training_precision,
        data_digest=splits.labels_digest,
        teacher_digest=pretrained.digest,
    )


def fine_tuned(
    engine: Engine, splits: Splits, pretrained: Checkpoint, cell: ClassifierCell, label: str
) -> Teacher:
    """The teacher of this cell, fine-tuned now or found from an earlier run.

    Args:
      label: of the stage, for people.
    """
    folder = home() / "teachers" / cell.hash
    if not folder.is_dir():
        config = pretrained.config
        planned = cell.training.total_steps(len(splits.labelled))
        objective = resolve(cell.objective, config.shape, None, splits.outputs)
        result = engine.train(
            classifier_work(cell, splits, config, objective, cell.training, planned),
            pretrained.params,
            teacher=None,
            label=label,
            folder=engine.run_folder(cell.hash, shared=True),
        )
        keep_teacher(folder, splits, pretrained, config, result, cell, planned)
    return kept_teacher(folder, splits, pretrained)


def keep_teacher(
    folder: Path,
    splits: Splits,
    pretrained: Checkpoint,
    config: ModelConfig,
    result: TrainResult,
    cell: ClassifierCell,
    planned: int,
) -> None:
    """Write a folder that ``kept_teacher`` opens, whole or not at all.

    Args:
      planned: steps.
    """
    progress = result.progress
    training = {
        "cell": cell.hash,
        "steps": int(progress.history[-1]["step"]),
        "planned_steps": planned,
        f"validation_{splits.kind.main}": progress.at_best().get(splits.kind.main, math.nan),
        **training_facts(result),
    }
    with atomic_folder(folder) as scratch:
        family_of(config).save(
            scratch,
            config,
            result.params,
            pretrained.tokenizer_file,
            splits.label_names,
            inputs_of(splits.config),
        )
        (scratch / "training.json").write_text(json.dumps(training, indent=1))


def kept_teacher(folder: Path, splits: Splits, pretrained: Checkpoint) -> Teacher:
    """A teacher that was trained here.

    Args:
      pretrained: what it, or the first of its teachers, came from.
    """
    loaded = load_model(folder)
    check_label_order(loaded, splits.label_names)
    return Teacher(
        pretrained,
        loaded.config,
        loaded.params,
        loaded.digest,
        folder,
        read_training(folder),
        loaded.label_names,
    )


def read_training(folder: Path) -> dict[str, Any]:
    """What is kept with a teacher of its training.

    Raises:
      UserError: it is damaged.
    """
    try:
        return json.loads((folder / "training.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"the teacher in {folder} is damaged (training.json: {error}); delete that folder and "
            "it is trained again"
        ) from error


def in_order_of(
    label_names: tuple[str, ...], pretrained: Checkpoint, label_map: Pairs = (), *, kind: Kind
) -> Checkpoint:
    """A checkpoint whose head was trained elsewhere, its outputs put in the data's order.

    Raises:
      UserError: when it has no head, or it cannot be said which class is which.
    """
    if pretrained.fresh:
        raise UserError(
            f"the teacher's checkpoint has no trained {' and '.join(pretrained.fresh)}: leave out "
            "--no-fine-tune, and it is trained on the labels"
        )
    if not kind.named:
        return dataclasses.replace(pretrained, label_names=None)
    if pretrained.label_names is None and not (label_map or kind.has_classes):
        raise UserError(
            f"the teacher's head does not name its {kind.what}: say which is which with "
            f"--label-map, or leave out --no-fine-tune; the data have {listed(label_names)}"
        )
    order = order_of(pretrained.label_names, pretrained.config.num_labels, label_names, label_map)
    names = None if order.by == "position" else label_names
    return dataclasses.replace(with_classes(pretrained, order.columns, names), order=order)


def as_it_came(splits: Splits, pretrained: Checkpoint) -> Teacher:
    """A teacher whose head was trained elsewhere.

    Args:
      pretrained: see ``in_order_of``.

    Raises:
      UserError: when its labels are not the data's.
    """
    check_label_order(pretrained, splits.label_names)
    heard = in_units(pretrained, splits.kind.units(pretrained.saved, splits.fitted))
    return Teacher(
        pretrained,
        heard.config,
        heard.params,
        heard.digest,
        None,
        {},
        pretrained.label_names,
    )


def check_label_order(teacher: Loaded | Teacher, label_names: tuple[str, ...]) -> None:
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
    splits: Splits,
    teacher: Teacher,
    captures: Sequence[Capture],
    config: TeacherConfig,
    wider: Splits,
    rows: np.ndarray | None = None,
) -> TeacherOutputs | None:
    """What the teacher says of the training examples; None when nobody listens.

    Args:
      captures: what all who will listen read, so that one cache serves the whole table.
      wider: splits among whose examples the run's are; the teacher is asked about all of them,
        by the hosts together where there are several.
      rows: of ``wider.everything``, where it is asked about some only, see ``asked``.
    """
    if not captures:
        return None
    return teacher.outputs(engine, splits, union_of(captures), config, wider, rows)


def _asked(
    engine: Engine,
    splits: Splits,
    teacher: Teacher,
    capture: Capture,
    config: TeacherConfig,
    wider: Splits,
    rows: np.ndarray | None,
) -> TeacherOutputs:
    """A model that is asked live, or from its cache."""
    dtype = jnp.float32 if config.precision == "f32" else jnp.bfloat16
    params = place(teacher.params, ShardingRules().teacher, engine.mesh.local_mesh)
    speaker = LiveTeacher(build_model(teacher.config, dtype=dtype), params, capture)
    if config.outputs == "live":
        return speaker
    table = wider.everything if rows is None else wider.everything.take(rows)
    if rows is not None:
        engine.reporter.say(
            f"the teacher is asked about the {len(rows):,} of {len(wider.everything):,} examples "
            "that the steps read"
        )
    batch_size = table.asked_at_once
    data = table.without_labels(np.arange(len(table))).digest
    provenance = Provenance(
        teacher.digest, data, capture, config.cache_dtype, config.cache_top_k, config.precision
    )
    if wider.config.augment and not cache_folder(home(), provenance).is_dir():
        told = how_long(table, speaker, batch_size)
        engine.reporter.say(f"the teacher is asked about copies too: {told}")
    with engine.reporter.stage("asking the teacher", -(-len(table) // batch_size)) as stage:

        def on_batch(done: int, total: int) -> None:
            engine.stop.check()
            stage.update(done, batch_size=batch_size)

        teacher_outputs(
            home(),
            provenance,
            table,
            speaker,
            part=(jax.process_index(), jax.process_count()),
            on_wait=engine.stop.check,
            batch_size=batch_size,
            origin=origin_of(
                config.source,
                teacher.folder,
                wider,
                wider.config.pooling_of(config.pooling),
                teacher.pretrained.order,
            ),
            on_batch=on_batch,
            on_rebuild=engine.reporter.say,
        )
    folder = cache_folder(home(), provenance)
    return open_cache(folder, provenance, splits.everything, partial=rows is not None)
