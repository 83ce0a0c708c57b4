"""Trains the cells of a table, compiling once for each student shape and objective structure."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core.mesh import check_batch_size, make_mesh
from distill_jax.evaluation.metrics import classification_metrics
from distill_jax.evaluation.predict import LogitsOf, logits_of, predict_logits
from distill_jax.models.build import ModelConfig, build_model
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.sweeps.cells import TEACHER, Cell, TrainingConfig
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.task import Examples, Task
from distill_jax.sweeps.track import TrackTo, open_tracker
from distill_jax.training.checkpoint import Checkpoints
from distill_jax.training.feed import Feed, TeacherOutputs
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.loop import LoopConfig, TrainResult, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.state import Params, TrainState, init_state
from distill_jax.training.step import CompiledStep, make_step


@dataclass(frozen=True, eq=False)
class Work:
    """One stage of one cell, ready to be trained.

    Attributes:
      selects: whether the best step on validation is kept; off for a stage before the last,
        whose end is what counts.
    """

    cell: Cell
    task: Task
    config: ModelConfig
    objective: ResolvedObjective
    training: TrainingConfig
    steps: int
    selects: bool = True

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths that batches are padded to."""
        if self.cell.student == TEACHER:
            return self.task.few_lengths
        return self.task.training_lengths(self.training)

    @property
    def loop(self) -> LoopConfig:
        """How long, and how often the validation split is looked at."""
        return LoopConfig(
            steps=self.steps,
            eval_every=max(1, -(-self.steps // self.training.evaluations)),
            select="accuracy" if self.selects else None,
        )

    def feed(self, teacher: TeacherOutputs | None) -> Feed:
        """The batches, a pure function of the step."""
        return Feed(
            self.task.training_table(with_teacher=self.objective.needs_teacher),
            self.lengths,
            self.training.batch_size,
            self.cell.seed,
            teacher if self.objective.needs_teacher else None,
        )

    def state(self, params: Params) -> TrainState:
        """The state before the first step."""
        loss_params = self.objective.init_params(jax.random.key(self.cell.seed))
        return init_state(params, loss_params, make_optimizer(self.training.optimizer))


@dataclass(eq=False)
class Engine:
    """What all runs of a table share: devices, compiled programs, the display.

    Attributes:
      folder: where runs keep checkpoints, events and predictions, each under its hash.
      track: where learning curves go.
    """

    folder: Path
    reporter: Reporter
    stop: StopRequest
    track: TrackTo = "tensorboard"
    mesh: Mesh = field(default_factory=make_mesh)
    _steps: dict[Any, CompiledStep] = field(default_factory=dict)
    _predictors: dict[ModelConfig, LogitsOf] = field(default_factory=dict)

    @property
    def compilations(self) -> int:
        """How many training programs were traced so far."""
        return sum(step.traces for step in self._steps.values())

    def predict(
        self, task: Task, config: ModelConfig, params: Params, table: Examples
    ) -> np.ndarray:
        """Logits [N, C] of a model for a table, in its order."""
        return predict_logits(
            self.predictor(config),
            params,
            table,
            shape_lengths=task.few_lengths,
            batch_size=task.evaluation_batch * self.mesh.size,
            mesh=self.mesh,
        )

    def predictor(self, config: ModelConfig) -> LogitsOf:
        """The compiled forward pass of models of this shape."""
        if config not in self._predictors:
            self._predictors[config] = logits_of(build_model(config))
        return self._predictors[config]

    def train(
        self, work: Work, params: Params, *, teacher: TeacherOutputs | None, label: str
    ) -> TrainResult:
        """Train one stage to the end, going on from its checkpoint where there is one.

        Raises:
          Interrupted: when a stop was asked for; the checkpoint is on disk.
        """
        check_batch_size(work.training.batch_size, self.mesh)
        run_folder = self.folder / work.cell.hash
        stage_name = "" if work.selects else "intermediate-"
        with (
            Checkpoints(run_folder / f"{stage_name}checkpoint") as checkpoints,
            open_tracker(
                self.track,
                run_folder / f"{stage_name}events",
                work.cell.hash,
                dataclasses.asdict(work.cell),
            ) as tracker,
            self.reporter.stage(label, work.steps) as stage,
        ):

            def on_log(step: int, values: dict[str, float]) -> None:
                tracker.scalars(step, values)
                loss = values.get("train/loss")
                stage.update(step, loss=loss, batch_size=work.training.batch_size)

            def evaluate(candidate: Params) -> dict[str, float]:
                validation = work.task.validation
                logits_NC = self.predict(work.task, work.config, candidate, validation)
                return classification_metrics(logits_NC, validation.labels_N)

            return train(
                work.state(params),
                self._step(work.config, work.objective, work.training.optimizer),
                work.feed(teacher),
                objective=work.objective,
                optimizer=work.training.optimizer,
                loop=work.loop,
                mesh=self.mesh,
                evaluate=evaluate,
                on_log=on_log,
                stop=self.stop,
                checkpoints=checkpoints,
            )

    def _step(
        self, config: ModelConfig, objective: ResolvedObjective, optimizer: OptimizerConfig
    ) -> CompiledStep:
        """The compiled step of this structure."""
        key = (config, objective.structure, static_part(optimizer))
        if key not in self._steps:
            step = make_step(build_model(config), objective, make_optimizer(optimizer))
            self._steps[key] = CompiledStep(step)
        return self._steps[key]


def static_part(optimizer: OptimizerConfig) -> OptimizerConfig:
    """What of an optimiser is compiled; its learning rate and schedule are numbers."""
    return dataclasses.replace(optimizer, learning_rate=1.0, schedule="constant", warmup=0.0)
