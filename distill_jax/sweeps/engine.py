"""Runs the cells of a table, compiling once for each student shape and objective structure."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core.mesh import check_batch_size, make_mesh
from distill_jax.data.tokenise import TokenTable
from distill_jax.evaluation.metrics import classification_metrics
from distill_jax.evaluation.predict import LogitsOf, logits_of, predict_logits
from distill_jax.models.bert import Bert, BertConfig
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.sweeps.cells import TEACHER, Cell
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.task import EVALUATION_BATCH, Task
from distill_jax.sweeps.track import TrackTo, open_tracker
from distill_jax.training.checkpoint import Checkpoints
from distill_jax.training.feed import Feed, TeacherOutputs
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.loop import LoopConfig, TrainResult, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.state import Params, init_state
from distill_jax.training.step import CompiledStep, make_step


@dataclass(eq=False)
class Engine:
    """What all runs of a table share: examples, devices, compiled programs, the display.

    Attributes:
      task: the examples.
      folder: where runs keep checkpoints, events and predictions, each under its hash.
      track: where learning curves go.
    """

    task: Task
    folder: Path
    reporter: Reporter
    stop: StopRequest
    track: TrackTo = "tensorboard"
    mesh: Mesh = field(default_factory=make_mesh)
    _steps: dict[Any, CompiledStep] = field(default_factory=dict)
    _predictors: dict[BertConfig, LogitsOf] = field(default_factory=dict)

    @property
    def compilations(self) -> int:
        """How many training programs were traced so far."""
        return sum(step.traces for step in self._steps.values())

    def predict(self, config: BertConfig, params: Params, table: TokenTable) -> np.ndarray:
        """Logits [N, C] of a model for a table, in its order."""
        return predict_logits(
            self.predictor(config),
            params,
            table,
            shape_lengths=self.task.few_lengths,
            batch_size=EVALUATION_BATCH * self.mesh.size,
            mesh=self.mesh,
        )

    def predictor(self, config: BertConfig) -> LogitsOf:
        """The compiled forward pass of models of this shape."""
        if config not in self._predictors:
            self._predictors[config] = logits_of(Bert(config))
        return self._predictors[config]

    def train(
        self,
        cell: Cell,
        config: BertConfig,
        params: Params,
        objective: ResolvedObjective,
        *,
        teacher: TeacherOutputs | None,
        steps: int,
        label: str,
    ) -> TrainResult:
        """Train one cell to the end, going on from its checkpoint where there is one.

        Raises:
          Interrupted: when a stop was asked for; the cell's checkpoint is on disk.
        """
        training = cell.training
        check_batch_size(training.batch_size, self.mesh)
        feed = Feed(
            self.task.training_table(with_teacher=objective.needs_teacher),
            self.task.few_lengths if cell.student == TEACHER else self.task.shape_lengths,
            training.batch_size,
            cell.seed,
            teacher,
        )
        loop = LoopConfig(steps=steps, eval_every=max(1, -(-steps // training.evaluations)))
        run_folder = self.folder / cell.hash
        loss_params = objective.init_params(jax.random.key(cell.seed))
        state = init_state(params, loss_params, make_optimizer(training.optimizer))
        with (
            Checkpoints(run_folder / "checkpoint") as checkpoints,
            open_tracker(
                self.track, run_folder / "events", cell.hash, dataclasses.asdict(cell)
            ) as tracker,
            self.reporter.stage(label, steps) as stage,
        ):

            def on_log(step: int, values: dict[str, float]) -> None:
                tracker.scalars(step, values)
                stage.update(step, loss=values.get("train/loss"), batch_size=training.batch_size)

            def evaluate(candidate: Params) -> dict[str, float]:
                validation = self.task.validation
                return classification_metrics(
                    self.predict(config, candidate, validation), validation.labels_N
                )

            return train(
                state,
                self._step(config, objective, training.optimizer),
                feed,
                objective=objective,
                optimizer=training.optimizer,
                loop=loop,
                mesh=self.mesh,
                evaluate=evaluate,
                on_log=on_log,
                stop=self.stop,
                checkpoints=checkpoints,
            )

    def _step(
        self, config: BertConfig, objective: ResolvedObjective, optimizer: OptimizerConfig
    ) -> CompiledStep:
        """The compiled step; learning rates, weights, temperatures and seeds are not part of it."""
        static = dataclasses.replace(optimizer, learning_rate=1.0, schedule="constant", warmup=0.0)
        key = (config, objective.structure, static)
        if key not in self._steps:
            step = make_step(Bert(config), objective, make_optimizer(optimizer))
            self._steps[key] = CompiledStep(step)
        return self._steps[key]
