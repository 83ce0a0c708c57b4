"""Where steps are carried out: the run that all began with, its teachers, and the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.compression.steps import Student, Words
from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, Capture
from distill_jax.engine.engine import Engine
from distill_jax.engine.strategies import END, ended_well
from distill_jax.engine.work import Work
from distill_jax.evaluation.predict import one_by_one
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.tasks.classification.cells import ClassifierCell, TrainingConfig
from distill_jax.tasks.classification.classify import classifier_work, predict
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.splits import Splits
from distill_jax.tasks.classification.supplies import together
from distill_jax.tasks.classification.teacher import outputs_for
from distill_jax.training.ends import kept_or
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import make_optimizer
from distill_jax.training.pruning import Pruning, sparsity
from distill_jax.training.state import Params
from distill_jax.training.step import make_step


@dataclasses.dataclass(frozen=True, eq=False)
class RunContext:
    """A ``steps.StepContext``.

    Attributes:
      run: that all began with.
      cell: of what is being made; it names the files of its making.
      label: for people.
    """

    engine: Engine
    run: ClassifierRun
    cell: ClassifierCell
    label: str

    @property
    def training(self) -> TrainingConfig:
        return self.cell.training

    @property
    def folder(self) -> Path:
        return self.engine.run_folder(self.cell.hash)

    def train(
        self,
        student: Student,
        objective: str,
        training: TrainingConfig,
        words: Words | None = None,
    ) -> Student:
        """The student at its best step on validation; where weights go on the way, at its last."""
        work, teacher = self._work(student, objective, training, words)

        def train() -> list[Any]:
            said = teacher()
            return [
                self.engine.train(
                    work, student.params, teacher=said, label=self.label, folder=self.folder
                )
            ]

        options = self.engine.options
        path = self.folder / f"{END}.safetensors"
        [end] = kept_or(path, train, resume=options.resume, say=self.engine.reporter.say)
        params = jax.tree.map(np.asarray, ended_well(end).params)
        return student.but(params=params, pruning=None, notes=())

    def logits(self, student: Student, split: str) -> np.ndarray:
        return predict(
            student.splits,
            student.config,
            student.params,
            getattr(student.splits, split),
            mesh=self.engine.mesh,
            on_batch=self.engine.check_stop,
        )

    def gradients(self, student: Student, batches: int) -> list[Params]:
        work, teacher = self._work(student, "", self.training)
        optimizer = make_optimizer(work.optimizer)
        taken = jax.jit(make_step(work.model(), work.objective, optimizer).gradients)
        feed = work.feed(teacher())
        trained = {"student": student.params, "losses": work.loss_params()}
        found = []
        for number in range(batches):
            self.engine.check_stop()
            numbers = step_numbers(work.objective, work.optimizer, work.seed, number, work.steps)
            given = taken(trained, np.int32(number), *feed(number), numbers)
            found.append(jax.device_get(given.trained["student"]))
        return found

    def batches(self, student: Student, count: int) -> list[Batch]:
        lengths = student.splits.few_lengths
        return one_by_one(student.splits.everything, count, shape_lengths=lengths)

    def _work(
        self, student: Student, text: str, training: TrainingConfig, words: Words | None = None
    ) -> tuple[Work, Callable[[], TeacherOutputs | None]]:
        """The training of a student, and what gives its teachers' words."""
        shapes = [teacher.config.shape for teacher in self.run.teachers]
        outputs = student.splits.outputs
        objective = resolve(text or self.cell.objective, student.config.shape, shapes, outputs)
        work = classifier_work(
            self.cell,
            student.splits,
            student.config,
            objective,
            training,
            training.total_steps(len(student.splits.everything)),
            selects=student.pruning is None,
        )
        stays = Pruning() if sparsity(student.params) else None
        work = dataclasses.replace(work, pruning=student.pruning or stays)
        return work, lambda: (words or self._outputs)(objective, student.splits)

    def _outputs(self, objective: ResolvedObjective, splits: Splits) -> TeacherOutputs | None:
        if not objective.needs_teacher:
            return None
        run = self.run
        if run.cell.setup.placebo:
            raise UserError("the run is a placebo: its student hears of other examples")
        retold = splits.tokens_digest != run.taught.tokens_digest
        inside, per_token = objective.teacher_capture != Capture(), objective.student.per_token
        if retold and (inside or per_token):
            own, now = run.taught.everything.lengths_N, splits.everything.lengths_N
            if not np.array_equal(own, now):
                way = "" if per_token else "distil by logits, or "
                raise UserError(
                    f"{objective.objective} compares tokens, and the student's tokeniser makes "
                    f"others than its teacher's: {way}take vocabulary(min_count=1)"
                )
        said = []
        for number, (teacher, config) in enumerate(
            zip(run.teachers, run.cell.setup.teachers, strict=True)
        ):
            if retold:  # live it would be asked about the student's tokens
                config = dataclasses.replace(config, outputs="cache")
            captures = [objective.teacher_captures[number]]
            said.append(outputs_for(self.engine, run.taught, teacher, captures, config, run.taught))
        return said[0] if len(said) == 1 else together(said)
