"""From a cell's teacher, as data, to one that may speak, whatever kind it is of."""

from __future__ import annotations

from distill_jax.engine.engine import Engine
from distill_jax.engine.strategies import clear_checkpoints
from distill_jax.tasks.classification.assistants import before_the_last, raised_assistant
from distill_jax.tasks.classification.cells import (
    ClassifierCell,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.file_teacher import file_teacher, nobody
from distill_jax.tasks.classification.models import Checkpoint
from distill_jax.tasks.classification.splits import Splits
from distill_jax.tasks.classification.teacher import Teacher, as_it_came, teacher_cell
from distill_jax.tasks.classification.teacher_rates import best_fine_tuned

AS_IT_CAME = "as it came"


def raised(
    engine: Engine, splits: Splits, pretrained: Checkpoint, cell: ClassifierCell, name: str
) -> tuple[Teacher, ClassifierCell]:
    """The teacher of a cell: trained now, found from an earlier run, or as it came.

    Args:
      pretrained: see ``TeacherConfig.checkpoint``.
      name: of the teacher, for people.

    Returns:
      The teacher, and its own cell.
    """
    config = cell.setup.teacher
    if config.assistants:
        earlier = cell.but(teacher=before_the_last(config))
        first, first_cell = raised(engine, splits, pretrained, earlier, name)
        clear_checkpoints(engine.run_folder(first_cell.hash, shared=True))  # it is kept elsewhere
        return raised_assistant(engine, splits, cell, first, name)
    own_cell = teacher_cell(splits, pretrained, cell)
    if config.fine_tune:
        return best_fine_tuned(engine, splits, pretrained, own_cell, name)
    teacher = _as_it_came(splits, pretrained, config)
    for note in teacher.training.get("notes", ()):
        engine.reporter.say(f"{name}: {note}")
    own_cell = own_cell.but(objective=AS_IT_CAME, training=TrainingConfig())
    if not config.is_model:
        own_cell = own_cell.but(teacher_digest=teacher.digest)
    return teacher, own_cell


def _as_it_came(splits: Splits, pretrained: Checkpoint, config: TeacherConfig) -> Teacher:
    if config.is_nobody:
        return nobody(splits, pretrained)
    if not config.is_model:
        return file_teacher(splits, pretrained, config)
    return as_it_came(splits, pretrained)
