"""Training of search models by the house's step and loop, with checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_jax.core.mesh import check_batch_size, make_mesh
from distill_jax.data.query_lists import ListTable
from distill_jax.objectives.list_objective import ListObjective
from distill_jax.sweeps.options import DEFAULTS, RunOptions
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.search.cells import SearchTraining
from distill_jax.teachers.pair_scores import PairScores
from distill_jax.training.checkpoint import Checkpoints, Identity, Policy
from distill_jax.training.diagnose import make_probe
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import Evaluate, LoopConfig, TrainResult, train
from distill_jax.training.optimizer import make_optimizer, static_part
from distill_jax.training.step import CompiledStep, make_step


@dataclass(frozen=True, eq=False)
class Work:
    """One training.

    Attributes:
      hash, config: of the cell; written into its checkpoints.
      teacher: of a student.
    """

    hash: str
    config: Mapping[str, Any]
    model: Any
    objective: ListObjective
    training: SearchTraining
    table: ListTable
    seed: int
    teacher: PairScores | None = None


@dataclass(eq=False)
class Trainer:
    """Trains one work after another; equal structures share one compiled step.

    Attributes:
      folder: of checkpoints, one folder a work.
    """

    folder: Path
    stop: StopRequest
    reporter: Reporter
    options: RunOptions = DEFAULTS
    layout: Layout = field(default_factory=lambda: Layout(make_mesh()))
    _steps: dict[Any, CompiledStep] = field(default_factory=dict)

    def train(
        self, work: Work, params: Any, evaluate: Evaluate, select: str, *, label: str = "training"
    ) -> TrainResult:
        """The model at its best validation score; goes on from the latest checkpoint.

        Raises:
          Interrupted: after a stop request, with a checkpoint on disk.
          UserError: from the loop.
        """
        training = work.training
        check_batch_size(training.batch_size, self.layout.mesh, self.options.accumulate)
        optimizer = make_optimizer(static_part(training.optimizer))
        feed = Feed(
            work.table,
            (work.table.query_length,),
            training.batch_size,
            work.seed,
            teacher=work.teacher if work.objective.needs_teacher else None,
            draws=work.table.draw,
        )
        loop = LoopConfig(
            training.steps,
            -(-training.steps // training.evaluations),
            select=select,
            checkpoint_seconds=self.options.checkpoint_seconds,
            on_nan=self.options.on_nan,
        )
        state = self.layout.new_state(params, {}, optimizer)
        policy = Policy(resume=self.options.resume, keep=self.options.keep_checkpoints)
        identity = Identity(work.hash, dict(work.config))
        with (
            self.reporter.stage(label, training.steps) as stage,
            Checkpoints(
                self.folder / work.hash / "checkpoint", identity, policy, self.reporter.say
            ) as checkpoints,
        ):

            def on_log(done: int, values: dict[str, float]) -> None:
                stage.update(done, loss=values.get("train/loss"), batch_size=training.batch_size)

            return train(
                state,
                self._step(work),
                feed,
                objective=work.objective,
                optimizer=training.optimizer,
                loop=loop,
                layout=self.layout,
                evaluate=evaluate,
                on_log=on_log,
                stop=self.stop,
                checkpoints=checkpoints,
                probe=make_probe(work.model, work.objective),
                say=self.reporter.say,
            )

    def clear(self, hash: str) -> None:
        """Drop a work's checkpoints, now that its end is kept elsewhere."""
        shutil.rmtree(self.folder / hash / "checkpoint", ignore_errors=True)

    def _step(self, work: Work) -> CompiledStep:
        static = static_part(work.training.optimizer)
        key = (work.model, work.objective.structure, static, work.training.batch_size)
        if key not in self._steps:
            step = make_step(
                work.model,
                work.objective,
                make_optimizer(static),
                axis=self.layout.axis,
                gathered=self.layout.gathered,
                accumulate=self.options.accumulate,
                skip_nonfinite=self.options.on_nan == "skip",
            )
            self._steps[key] = self.layout.compile(step)
        return self._steps[key]
