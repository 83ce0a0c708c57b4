"""Trains what it is given, whatever the task, compiling once for each structure and shape."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import (
    check_batch_size,
    make_mesh,
    make_placement,
    own_rows,
)
from distill_jax.engine.options import DEFAULTS, RunOptions, TrackTo
from distill_jax.engine.programs import Programs
from distill_jax.engine.progress import Reporter
from distill_jax.engine.track import Tracker, open_tracker
from distill_jax.engine.work import Work
from distill_jax.models.recommenders.occurring_items import OfRows
from distill_jax.training.checkpoint import Checkpoints, Identity, Policy
from distill_jax.training.diagnose import Diagnostics, make_diagnostics
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, TrainResult, train
from distill_jax.training.optimizer import make_optimizer, stopping_at_frozen
from distill_jax.training.population import (
    Diverged,
    PopulationStep,
    member_of,
    train_population,
)
from distill_jax.training.rates import check_matches
from distill_jax.training.state import Params, TrainState, in_float32
from distill_jax.training.step import CompiledStep, Step, make_step

Placed = Literal["vmap", "sharded"]


@dataclass(eq=False)
class Engine:
    """What all runs of a table share: devices, compiled programs, the display.

    Attributes:
      folder: where runs keep checkpoints, events and predictions, each under its hash.
      track: where learning curves go.
      options: how runs are carried out.
      mesh: the devices.
      programs: what is compiled.
    """

    folder: Path
    reporter: Reporter
    stop: StopRequest
    track: TrackTo = "tensorboard"
    options: RunOptions = DEFAULTS
    mesh: Mesh = field(default_factory=make_mesh)
    programs: Programs = field(default_factory=Programs)

    def __post_init__(self) -> None:
        if self.options.parallel == "pmap" and jax.process_count() > 1:
            raise UserError("--parallel pmap is for one process; several want --parallel jit")
        if self.options.fsdp > 1:
            self.mesh = make_mesh(list(self.mesh.devices.flat), fsdp=self.options.fsdp)

    @property
    def layout(self) -> Layout:
        """Where a student that is trained alone lies."""
        return Layout(self.mesh, self.options.parallel)

    def run_folder(self, hash: str, *, shared: bool = False) -> Path:
        """Where a run keeps its files. What every part of a table needs (``shared``: a teacher) may
        be trained by several at once, each in a folder of its own."""
        return self.folder / f"{hash}{self.options.share.suffix if shared else ''}"

    @property
    def compilations(self) -> int:
        """How many training programs this table has traced so far."""
        return self.programs.traces

    def check_stop(self) -> None:
        """Stop here when asked to; processes that work together agree on a place elsewhere.

        Raises:
          Interrupted: when a stop was asked for.
        """
        if jax.process_count() == 1:
            self.stop.check()

    def check_batch_size(self, batch_size: int) -> None:
        """Raises ``UserError`` for batches that cannot be cut as devices and options demand."""
        check_batch_size(batch_size, self.mesh, self.options.accumulate)

    def train(
        self,
        work: Work,
        params: Params,
        *,
        teacher: TeacherOutputs | None,
        label: str,
        folder: Path | None = None,
    ) -> TrainResult:
        """Train one stage to the end, going on from its checkpoint where there is one.

        Args:
          folder: of the run's files; by its hash where None.

        Raises:
          Interrupted: when a stop was asked for; the checkpoint is on disk.
        """
        self.check_batch_size(work.batch_size)
        folder = folder or self.run_folder(work.identity.hash)
        work, params, whole = self.as_trained(work, params)
        with (
            self._checkpoints(folder / f"{work.prefix}checkpoint", work.identity) as checkpoints,
            self._tracker(work, folder) as tracker,
            self.reporter.stage(label, work.steps) as stage,
        ):

            def on_log(step: int, values: dict[str, float]) -> None:
                tracker.scalars(step, values)
                loss = values.get("train/loss")
                stage.update(step, loss=loss, batch_size=work.batch_size)

            def on_resume(step: int) -> None:
                tracker.resume(step)
                self.reporter.say(f"{label}: goes on from step {step} of {work.steps}")

            result = train(
                self.new_state(work, params),
                self.step(work),
                work.feed(teacher, self.own_rows(work)),
                objective=work.objective,
                optimizer=work.optimizer,
                loop=self._loop(work),
                layout=self.layout,
                evaluate=lambda own: work.evaluate(own, self.mesh, self.check_stop),
                on_log=on_log,
                stop=self.stop,
                checkpoints=checkpoints,
                diagnostics=self._diagnostics(work),
                say=self.reporter.say,
                on_resume=on_resume,
                by_rows=work.by_rows,
            )
            return dataclasses.replace(result, params=whole(in_float32(result.params)))

    def as_trained(
        self, work: Work, params: Params
    ) -> tuple[Work, Params, Callable[[Params], Params]]:
        """The work on what is trained of its model, that, and the way back: of the tokens that
        occur alone (not where parameters are cut or lie in several processes), by rows where a
        batch touches few, and of what its recipe adds."""
        work = self.by_rows(work, params)
        if self.options.fsdp > 1 or jax.process_count() > 1:
            return work.adapted(params)
        work, params, whole = work.of_occurring(params)
        work, params, merged = work.adapted(params)
        return work, params, lambda trained: whole(merged(trained))

    def by_rows(self, work: Work, params: Params) -> Work:
        """The work on tables of items by rows, see ``Work.of_rows``; as it is where several
        processes read a part of each batch, devices have parts of their own, or steps may be left
        out."""
        options = self.options
        whole = options.parallel == "jit" and jax.process_count() == 1 and options.on_nan == "stop"
        return work.of_rows(params) if whole else work

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
        adapted = [work.adapted(own) for work, own in zip(works, params, strict=True)]
        works, params = [each for each, *_ in adapted], [own for _, own, _ in adapted]
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
                hash_: opened.enter_context(self._tracker(work, self.run_folder(hash_)))
                for hash_, work in {work.identity.hash: work for work in works}.items()
            }
            stage = opened.enter_context(self.reporter.stage(label, first.steps))

            def on_log(done: int, values: Sequence[dict[str, float]]) -> None:
                for work, own in zip(works, values, strict=True):
                    trackers[work.identity.hash].scalars(done, own)
                losses = [own["train/loss"] for own in values if "train/loss" in own]
                loss = float(np.mean(losses)) if losses else None
                stage.update(done, loss=loss, batch_size=first.batch_size * len(works))

            def evaluate(stacked: Params) -> list[dict[str, float]]:
                if first.evaluate_members is not None:
                    return list(first.evaluate_members(stacked, placement, self.check_stop))
                host = jax.device_get(stacked)
                return [
                    work.evaluate(member_of(host, number), self.mesh, self.check_stop)
                    for number, work in enumerate(works)
                ]

            def on_resume(step: int) -> None:
                for tracker in trackers.values():
                    tracker.resume(step)
                self.reporter.say(f"{label}: goes on from step {step} of {first.steps}")

            results = train_population(
                [self.new_state(work, own) for work, own in zip(works, params, strict=True)],
                step,
                feeds[0] if step.shared_batch else feeds,
                objectives=[work.objective for work in works],
                optimizers=[work.optimizer for work in works],
                loop=self._loop(first),
                evaluate=evaluate,
                on_log=on_log,
                stop=self.stop,
                checkpoints=checkpoints,
                seeds=[work.seed for work in works],
                diagnostics=self._diagnostics(first),
                say=lambda line: self.reporter.say(f"{label}: {line}"),
                on_resume=on_resume,
            )
        return [
            self._ended(work, result, merged)
            for (work, _, merged), result in zip(adapted, results, strict=True)
        ]

    def _ended(
        self, work: Work, result: TrainResult | Diverged, merged: Callable[[Params], Params]
    ) -> TrainResult | UserError:
        """A member's result; the last good state of one that diverged is kept, as of one alone."""
        if isinstance(result, TrainResult):
            return dataclasses.replace(result, params=merged(in_float32(result.params)))
        folder = self.run_folder(work.identity.hash) / f"{work.prefix}checkpoint"
        with self._checkpoints(folder, work.identity) as checkpoints:
            checkpoints.save(result.snapshot, wait=True)
        return UserError(f"{result}; the state before it is kept in {folder}")

    def _checkpoints(self, folder: Path, whose: Identity) -> Checkpoints:
        options = self.options
        policy = Policy(options.resume, options.keep_checkpoints, options.allow_change)
        return Checkpoints(folder, whose, policy, self.reporter.say)

    def _loop(self, work: Work) -> LoopConfig:
        options = self.options
        return dataclasses.replace(
            work.loop, checkpoint_seconds=options.checkpoint_seconds, on_nan=options.on_nan
        )

    def _diagnostics(self, work: Work) -> Diagnostics:
        return make_diagnostics(self._model(work), work.objective)

    def step(self, work: Work) -> CompiledStep:
        """The compiled step of one student of this structure."""

        def make() -> CompiledStep:
            return self.layout.compile(self._pure_step(work, self.layout.axis))

        return self.programs.step(self._compiled_of(work), make, own=work.own_program)

    def _compiled_of(self, work: Work) -> Hashable:
        """All that decides what is compiled of a work, beside the shapes of its batches.

        The module's class is part of it: one that is written anew, in a notebook say, is another.
        """
        options = self.options
        how = options.parallel, options.accumulate, options.on_nan, options.remat, options.fsdp
        return work.structure, type(self._model(work)), self.mesh, how

    def population_step(
        self, works: Sequence[Work], teachers: Sequence[TeacherOutputs | None], placed: Placed
    ) -> PopulationStep:
        """The compiled step of a population of this structure."""
        orders = {work.order for work in works}
        shared = len(orders) == 1 and len(set(map(id, teachers))) == 1
        key = self._compiled_of(works[0]), placed, shared

        def make() -> PopulationStep:
            placement = make_placement(placed, self.mesh)
            pure = self._pure_step(works[0])
            return PopulationStep(pure, shared_batch=shared, placement=placement)

        step = self.programs.step(key, make, own=works[0].own_program)
        assert isinstance(step, PopulationStep)
        return step

    def own_rows(self, work: Work) -> slice | None:
        """Which rows of every batch this process reads; None for all."""
        if jax.process_count() == 1:
            return None
        return own_rows(self.mesh, work.batch_size)

    def _tracker(self, work: Work, folder: Path) -> AbstractContextManager[Tracker]:
        whose = work.identity
        return open_tracker(self.track, folder / f"{work.prefix}events", whose.hash, whose.config)

    def new_state(self, work: Work, params: Params) -> TrainState:
        """The state before the first step."""
        check_matches(work.optimizer.rates, work.optimizer.layer_decay, params)
        optimizer = make_optimizer(work.optimizer)
        masks = work.pruning.start(params, work.steps) if work.pruning else {}
        params = work.in_precision(params)
        rows = work.by_rows.start(params) if work.by_rows else {}
        return self.layout.new_state(params, work.loss_params(), optimizer, masks, rows)

    def _pure_step(self, work: Work, axis: str | None = None) -> Step:
        optimizer = make_optimizer(work.optimizer)
        model = self._model(work)
        step = make_step(
            OfRows(model) if work.by_rows else model,
            work.objective,
            optimizer,
            accumulate=self.options.accumulate,
            axis=axis,
            gathered=self.layout.gathered,
            skip_nonfinite=self.options.on_nan == "skip",
            pruning=work.pruning and work.pruning.static,
            recipe=work.recipe,
            embeddings=work.embeddings,
            stopped=stopping_at_frozen(work.optimizer),
        )
        return work.by_rows.step(step) if work.by_rows else step

    def _model(self, work: Work) -> Any:
        return work.model(remat=self.options.remat)
