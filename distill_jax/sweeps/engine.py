"""Trains the cells of a table, compiling once for each student shape and objective structure."""

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import (
    Placement,
    check_batch_size,
    make_mesh,
    make_placement,
    own_rows,
)
from distill_jax.evaluation.metrics import classification_metrics
from distill_jax.evaluation.predict import (
    LogitsOf,
    logits_of,
    population_logits,
    population_logits_of,
    predict_logits,
)
from distill_jax.models.build import ModelConfig, build_model
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.sweeps.cells import TEACHER, Cell, TrainingConfig, config_of
from distill_jax.sweeps.options import DEFAULTS, RunOptions
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.task import Examples, Task
from distill_jax.sweeps.track import Tracker, TrackTo, open_tracker
from distill_jax.training.checkpoint import Checkpoints, Identity, Policy
from distill_jax.training.diagnose import Probe, make_probe
from distill_jax.training.feed import Feed, TeacherOutputs
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, TrainResult, train
from distill_jax.training.optimizer import make_optimizer, static_part
from distill_jax.training.population import Diverged, PopulationStep, train_population
from distill_jax.training.state import Params, TrainState, in_float32
from distill_jax.training.step import CompiledStep, Step, make_step

Placed = Literal["vmap", "sharded"]


SCORES = {"accuracy": "accuracy", "macro_f1": "macro_f1", "loss": "nll"}
"""What decides on validation -> the metric of that."""


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
    def prefix(self) -> str:
        """Of the names of this stage's files."""
        return "" if self.selects else "intermediate-"

    @property
    def loop(self) -> LoopConfig:
        """How long, and how often the validation split is looked at."""
        return LoopConfig(
            steps=self.steps,
            eval_every=max(1, -(-self.steps // self.training.evaluations)),
            select=SCORES[self.training.select] if self.selects else None,
            ties=SCORES.get(self.training.ties),
            patience=self.training.patience if self.selects else 0,
        )

    @property
    def identity(self) -> Identity:
        """Of the cell's checkpoints."""
        return Identity(self.cell.hash, config_of(self.cell, self.config))

    def feed(self, teacher: TeacherOutputs | None, rows: slice | None = None) -> Feed:
        """The batches, or some rows of each, a pure function of the step."""
        return Feed(
            self.task.training_table(with_teacher=self.objective.needs_teacher),
            self.lengths,
            self.training.batch_size,
            self.cell.seed,
            teacher if self.objective.needs_teacher else None,
            rows,
        )

    def loss_params(self) -> Params:
        """The losses' own parameters before the first step."""
        return self.objective.init_params(jax.random.key(self.cell.seed))

    def in_precision(self, params: Params) -> Params:
        """A student's parameters in the dtype in which the cell trains them."""
        if self.cell.precision != "bf16-params":
            return params
        return jax.tree.map(lambda x: np.asarray(x).astype(jnp.bfloat16), params)


@dataclass(eq=False)
class Engine:
    """What all runs of a table share: devices, compiled programs, the display.

    Attributes:
      folder: where runs keep checkpoints, events and predictions, each under its hash.
      track: where learning curves go.
      options: how runs are carried out.
    """

    folder: Path
    reporter: Reporter
    stop: StopRequest
    track: TrackTo = "tensorboard"
    options: RunOptions = DEFAULTS
    mesh: Mesh = field(default_factory=make_mesh)
    _steps: dict[Any, CompiledStep] = field(default_factory=dict)
    _predictors: dict[Any, LogitsOf] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.options.parallel == "pmap" and jax.process_count() > 1:
            raise UserError("--parallel pmap is for one process; several want --parallel jit")
        if self.options.fsdp > 1:
            self.mesh = make_mesh(list(self.mesh.devices.flat), fsdp=self.options.fsdp)

    @property
    def layout(self) -> Layout:
        """Where a student that is trained alone lies."""
        return Layout(self.mesh, self.options.parallel)

    def run_folder(self, cell: Cell) -> Path:
        """Where a run keeps its files. Parts may fine-tune one teacher at once, each in its own."""
        apart = self.options.share.suffix if cell.student == TEACHER else ""
        return self.folder / f"{cell.hash}{apart}"

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
            on_batch=self.heed,
        )

    def heed(self) -> None:
        """Stop here when asked to; processes that work together agree on a place elsewhere.

        Raises:
          Interrupted: when a stop was asked for.
        """
        if jax.process_count() == 1:
            self.stop.check()

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
        check_batch_size(work.training.batch_size, self.mesh, self.options.accumulate)
        with (
            self._checkpoints(self._folder(work), work.identity) as checkpoints,
            self._tracker(work) as tracker,
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

            def on_resume(step: int) -> None:
                tracker.resume(step)
                self.reporter.say(f"{label}: goes on from step {step} of {work.steps}")

            result = train(
                self.new_state(work, params),
                self.step(work),
                work.feed(teacher, self._own_rows(work)),
                objective=work.objective,
                optimizer=work.training.optimizer,
                loop=self._loop(work),
                layout=self.layout,
                evaluate=evaluate,
                on_log=on_log,
                stop=self.stop,
                checkpoints=checkpoints,
                probe=self._probe(work),
                say=self.reporter.say,
                on_resume=on_resume,
            )
            return dataclasses.replace(result, params=in_float32(result.params))

    def train_population(
        self,
        works: Sequence[Work],
        params: Sequence[Params],
        *,
        teachers: Sequence[TeacherOutputs | None],
        placed: Placed,
        folder: Path,
        label: str,
    ) -> list[TrainResult | UserError]:
        """Train the same stage of many cells in one step; see ``training.population``.

        Args:
          works: of one compile group: same structures, steps and batch shapes.
          folder: of the population's checkpoint.

        Returns:
          For each its result, or what went wrong with it.
        """
        first = works[0]
        step = self.population_step(works, teachers, placed)
        placement = step.placement
        feeds = [work.feed(teacher) for work, teacher in zip(works, teachers, strict=True)]
        with ExitStack() as opened:
            identities = [work.identity for work in works]
            whose = Identity(
                digest([each.hash for each in identities]),
                {str(member): each.config for member, each in enumerate(identities)},
            )
            checkpoints = opened.enter_context(self._checkpoints(folder, whose))
            trackers = {
                cell.hash: opened.enter_context(self._tracker(work))
                for cell, work in {work.cell: work for work in works}.items()
            }
            stage = opened.enter_context(self.reporter.stage(label, first.steps))

            def on_log(done: int, values: Sequence[dict[str, float]]) -> None:
                for work, own in zip(works, values, strict=True):
                    trackers[work.cell.hash].scalars(done, own)
                losses = [own["train/loss"] for own in values if "train/loss" in own]
                loss = float(np.mean(losses)) if losses else None
                stage.update(done, loss=loss, batch_size=first.training.batch_size * len(works))

            def evaluate(stacked: Params) -> list[dict[str, float]]:
                validation = first.task.validation
                logits_PNC = population_logits(
                    self._population_predictor(first.config, placement),
                    stacked,
                    validation,
                    shape_lengths=first.task.few_lengths,
                    batch_size=first.task.evaluation_batch,
                    placement=placement,
                    on_batch=self.heed,
                )
                return [_scores(logits_NC, validation.labels_N) for logits_NC in logits_PNC]

            def on_resume(step: int) -> None:
                for tracker in trackers.values():
                    tracker.resume(step)
                self.reporter.say(f"{label}: goes on from step {step} of {first.steps}")

            results = train_population(
                [self.new_state(work, own) for work, own in zip(works, params, strict=True)],
                step,
                feeds[0] if step.shared_batch else feeds,
                objectives=[work.objective for work in works],
                optimizers=[work.training.optimizer for work in works],
                loop=self._loop(first),
                evaluate=evaluate,
                on_log=on_log,
                stop=self.stop,
                checkpoints=checkpoints,
                seeds=[work.cell.seed for work in works],
                probe=self._probe(first),
                say=lambda line: self.reporter.say(f"{label}: {line}"),
                on_resume=on_resume,
            )
        return [self._ended(work, result) for work, result in zip(works, results, strict=True)]

    def _ended(self, work: Work, result: TrainResult | Diverged) -> TrainResult | UserError:
        """A member's result; the last good state of one that diverged is kept, as of one alone."""
        if isinstance(result, TrainResult):
            return dataclasses.replace(result, params=in_float32(result.params))
        folder = self._folder(work)
        with self._checkpoints(folder, work.identity) as checkpoints:
            checkpoints.save(result.snapshot, wait=True)
        return UserError(f"{result}; the state before it is kept in {folder}")

    def _folder(self, work: Work) -> Path:
        """Of the checkpoints of a run by itself."""
        return self.run_folder(work.cell) / f"{work.prefix}checkpoint"

    def _checkpoints(self, folder: Path, whose: Identity) -> Checkpoints:
        options = self.options
        policy = Policy(options.resume, options.keep_checkpoints, options.allow_change)
        return Checkpoints(folder, whose, policy, self.reporter.say)

    def _loop(self, work: Work) -> LoopConfig:
        options = self.options
        return dataclasses.replace(
            work.loop, checkpoint_seconds=options.checkpoint_seconds, on_nan=options.on_nan
        )

    def _probe(self, work: Work) -> Probe:
        return make_probe(self._model(work), work.objective)

    def step(self, work: Work) -> CompiledStep:
        """The compiled step of one student of this structure."""
        key = _structure(work)
        if key not in self._steps:
            self._steps[key] = self.layout.compile(self._pure_step(work, self.layout.axis))
        return self._steps[key]

    def population_step(
        self, works: Sequence[Work], teachers: Sequence[TeacherOutputs | None], placed: Placed
    ) -> PopulationStep:
        """The compiled step of a population of this structure."""
        orders = {(work.cell.seed, work.task.digest) for work in works}
        shared = len(orders) == 1 and len(set(map(id, teachers))) == 1
        key = (_structure(works[0]), placed, shared)
        if key not in self._steps:
            placement = make_placement(placed, self.mesh)
            pure = self._pure_step(works[0])
            self._steps[key] = PopulationStep(pure, shared_batch=shared, placement=placement)
        step = self._steps[key]
        assert isinstance(step, PopulationStep)
        return step

    def _own_rows(self, work: Work) -> slice | None:
        if jax.process_count() == 1:
            return None
        return own_rows(self.mesh, work.training.batch_size)

    def _tracker(self, work: Work) -> AbstractContextManager[Tracker]:
        hash_ = work.cell.hash
        folder = self.run_folder(work.cell) / f"{work.prefix}events"
        return open_tracker(self.track, folder, hash_, dataclasses.asdict(work.cell))

    def new_state(self, work: Work, params: Params) -> TrainState:
        """The state before the first step."""
        optimizer = make_optimizer(work.training.optimizer)
        return self.layout.new_state(work.in_precision(params), work.loss_params(), optimizer)

    def _pure_step(self, work: Work, axis: str | None = None) -> Step:
        optimizer = make_optimizer(work.training.optimizer)
        return make_step(
            self._model(work),
            work.objective,
            optimizer,
            accumulate=self.options.accumulate,
            axis=axis,
            gathered=self.layout.gathered,
            skip_nonfinite=self.options.on_nan == "skip",
        )

    def _model(self, work: Work) -> nn.Module:
        dtype = jnp.float32 if work.cell.precision == "f32" else jnp.bfloat16
        return build_model(work.config, dtype=dtype, remat=self.options.remat)

    def _population_predictor(self, config: ModelConfig, placement: Placement) -> LogitsOf:
        key = (config, placement)
        if key not in self._predictors:
            self._predictors[key] = population_logits_of(build_model(config), placement)
        return self._predictors[key]


def _structure(work: Work) -> tuple[Any, ...]:
    """What of a stage is compiled, beside the shapes of its batches."""
    optimizer = static_part(work.training.optimizer)
    return work.config, work.objective.structure, optimizer, work.cell.precision


def _scores(logits_NC: np.ndarray, labels_N: np.ndarray) -> dict[str, float]:
    """Metrics of one member; NaN where it diverged, which nobody reads."""
    if not np.isfinite(logits_NC).all():
        return dict.fromkeys(SCORES.values(), float("nan"))
    return classification_metrics(logits_NC, labels_N)
