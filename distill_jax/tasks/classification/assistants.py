"""Students who learn one from another, until the last one teaches.

An assistant between a teacher and a much smaller student: Mirzadeh et al. 2020, "Improved Knowledge
Distillation via Teacher Assistant", arXiv:1902.03393. Students of one size, generation by
generation: Furlanello et al. 2018, "Born-Again Neural Networks", arXiv:1805.04770.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from distill_jax.core.errors import UserError
from distill_jax.core.files import home
from distill_jax.core.types import Capture
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.models.family import ModelConfig
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.tasks.classification.cells import (
    ClassifierCell,
    ClassifierSetup,
    TeacherConfig,
)
from distill_jax.tasks.classification.classify import classifier_work
from distill_jax.tasks.classification.models import (
    Checkpoint,
    check_student,
    params_of_student,
)
from distill_jax.tasks.classification.splits import Splits
from distill_jax.tasks.classification.teacher import (
    Teacher,
    keep_teacher,
    kept_teacher,
    outputs_for,
)


def before_the_last(config: TeacherConfig) -> TeacherConfig:
    """The teacher of the last assistant."""
    return dataclasses.replace(config, assistants=config.assistants[:-1])


def assistant_cell(cell: ClassifierCell, splits: Splits, teacher_digest: str) -> ClassifierCell:
    """The cell of the last assistant of a cell's teacher.

    Args:
      teacher_digest: of that assistant's own teacher; "" before it is known.
    """
    config = cell.setup.teacher
    last = config.assistants[-1]
    setup = ClassifierSetup(
        cell.setup.data,
        before_the_last(config),
        last.student,
        pooling=last.pooling,
        assists=True,
    )
    return Cell(
        setup,
        (Train(str(cell.setup.kind.parse(last.objective)), last.training),),
        config.seed,
        precision=config.training_precision,
        plugin=plugin_digest(last.objective, read=cell.setup.kind.parse),
        data_digest=splits.digest,
        teacher_digest=teacher_digest,
    )


def shape_of_last(cell: ClassifierCell, splits: Splits, pretrained: Checkpoint) -> ModelConfig:
    """What the last assistant of a cell's teacher is, every one before it checked.

    Raises:
      UserError: for one who cannot learn from the one before.
    """
    config = cell.setup.teacher
    if not config.assistants:
        return pretrained.config
    earlier = cell.but(teacher=before_the_last(config))
    taught_by = shape_of_last(earlier, splits, pretrained)
    own = assistant_cell(cell, splits, "")
    model = check_student(own, pretrained.config)
    objective = resolve(own.objective, model.shape, taught_by.shape, splits.outputs)
    check_heard([earlier.setup.teacher], own.objective, objective)
    return model


def raised_assistant(
    engine: Engine, splits: Splits, cell: ClassifierCell, teacher: Teacher, name: str
) -> tuple[Teacher, ClassifierCell]:
    """The last assistant of a cell's teacher, trained now or found from an earlier run.

    Args:
      teacher: the one before.
      name: of the teacher, for people.

    Returns:
      Who teaches now, and the cell in which it learnt.
    """
    config = before_the_last(cell.setup.teacher)
    own = assistant_cell(cell, splits, teacher.digest)
    folder = home() / "teachers" / own.hash
    pretrained = teacher.pretrained
    if not folder.is_dir():
        model = check_student(own, pretrained.config)
        shape, outputs = teacher.config.shape, splits.outputs
        objective = resolve(own.objective, model.shape, shape, outputs)
        examples = splits.everything if objective.needs_teacher else splits.labelled
        planned = own.training.total_steps(len(splits.everything))
        heard = [objective.teacher_capture] if objective.needs_teacher else []
        engine.check_batch_size(own.training.batch_size)
        engine.reporter.say(
            f"{name}: assistant {own.setup.student} learns by {own.objective} on "
            f"{len(examples):,} examples"
        )
        result = engine.train(
            classifier_work(own, splits, model, objective, own.training, planned),
            params_of_student(own, pretrained, teacher),
            teacher=outputs_for(engine, splits, teacher, heard, config, splits),
            label=f"assistant {own.setup.student}",
            folder=engine.run_folder(own.hash, shared=True),
        )
        keep_teacher(folder, splits, pretrained, model, result, own, planned)
    return kept_teacher(folder, splits, pretrained), own


def check_heard(teachers: Sequence[TeacherConfig], text: str, objective: ResolvedObjective) -> None:
    """Raises ``UserError`` where an objective asks a teacher for what it cannot say."""
    for number, config in enumerate(teachers):
        terms = [
            (term, reader)
            for term in objective.terms
            for index, reader in zip(term.teachers, term.readers, strict=False)
            if index == number
        ]
        if config.is_nobody and terms:
            raise UserError(
                f"{text!r} listens to a teacher, and --teacher none names nobody: ce learns "
                "from labels alone"
            )
        if not config.says_logits_alone:
            continue
        for term, reader in terms:
            if reader.teacher_capture not in (None, Capture()):
                raise UserError(
                    f"{term.name}: it reads what is inside a model, and {config.name} says what "
                    "comes out of one and no more; take a loss on outputs (kl, mse_regression, bce)"
                )
