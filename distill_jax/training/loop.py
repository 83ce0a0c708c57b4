"""Training one student: feed a batch, take a step, evaluate now and then, keep the best."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from distill_jax.core.distributed import to_host
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.types import Batch, Output
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.training.by_rows import ByRows, moved_params
from distill_jax.training.checkpoint import Checkpoints, Snapshot, silent
from distill_jax.training.diagnose import Diagnostics, explain
from distill_jax.training.drive import Drive, Taken, refused, window_means
from distill_jax.training.drive import LoopConfig as LoopConfig
from distill_jax.training.feed import Feed
from distill_jax.training.finite import thaw
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.optimizer import OptimizerConfig, learning_rate
from distill_jax.training.scales import warn_of_scales
from distill_jax.training.state import Params, TrainState
from distill_jax.training.step import CompiledStep, StepNumbers

MAX_SKIPPED = 20
"""Steps in a row; a run that skips more has no finite parameters left to go on with."""
TOLD = 3
"""Skipped steps that are explained; more are only counted."""


@dataclass
class Progress:
    """How far a run is; goes into every snapshot.

    Attributes:
      best_score, best_tie: of the best step, see ``LoopConfig.merit``.
      history: of evaluations, ``{"step": ..., metric: ...}`` each.
      examples: that were learnt from, each as often as it was.
      skipped: steps that were left out, as they were not finite.
    """

    best_step: int = 0
    best_score: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    train_seconds: float = 0.0
    compile_seconds: float = 0.0
    examples: int = 0
    skipped: int = 0
    best_tie: float = -math.inf

    def improves(self, scores: Mapping[str, float], loop: LoopConfig) -> bool:
        """File an evaluation's scores; whether they are the best so far (NaN never is)."""
        score, tie = loop.merit(scores)
        equal = loop.ties is not None and score == self.best_score and tie > self.best_tie
        if not (score > self.best_score or equal):
            return False
        self.best_score, self.best_tie = score, tie
        return True

    def has_ended(self, loop: LoopConfig) -> bool:
        """Whether patience is at its end: a function of the evaluations alone, so that a run that
        goes on from a checkpoint ends where it would have."""
        renewed = max([self.best_step, *(self._best_of(name, loop) for name in loop.watched)])
        since_best = sum(scores["step"] > renewed for scores in self.history)
        return 0 < loop.patience <= since_best

    def _best_of(self, name: str, loop: LoopConfig) -> int:
        """The first step at which a metric was the best that it has been."""
        best, step = -math.inf, 0
        for scores in self.history:
            if (worth := loop.worth(name, scores)) > best:
                best, step = worth, int(scores["step"])
        return step

    def at_best(self) -> dict[str, float]:
        """The validation scores of the best step; {} where nothing was evaluated."""
        found = (scores for scores in self.history if scores["step"] == self.best_step)
        return {name: value for name, value in next(found, {}).items() if name != "step"}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Progress":
        """As a snapshot keeps it.

        Raises:
          UserError: where it is not the record of a run, another version's say.
        """
        try:
            progress = cls(**record)
            check_fields(progress)
        except (TypeError, UserError) as error:
            raise UserError(
                f"the checkpoint's record is not that of a run ({error}); it may be of another "
                "version: --resume never starts afresh"
            ) from error
        return progress


@dataclass(frozen=True)
class TrainResult:
    """The student at its best validation score, and how it got there."""

    params: Params
    progress: Progress

    @property
    def examples_per_second(self) -> float:
        return self.progress.examples / max(self.progress.train_seconds, 1e-9)


Evaluate = Callable[[Params], dict[str, float]]
OnLog = Callable[[int, dict[str, float]], None]
OnResume = Callable[[int], None]


def train(
    state: TrainState,
    step: CompiledStep,
    feed: Feed,
    *,
    objective: ResolvedObjective,
    optimizer: OptimizerConfig,
    loop: LoopConfig,
    layout: Layout,
    evaluate: Evaluate,
    on_log: OnLog,
    stop: StopRequest,
    checkpoints: Checkpoints | None = None,
    seed: int | None = None,
    diagnostics: Diagnostics | None = None,
    say: Callable[[str], None] = silent,
    on_resume: OnResume = lambda step: None,
    by_rows: ByRows | None = None,
) -> TrainResult:
    """Train to the end, going on from the latest checkpoint where there is one.

    The end is the last step, or an evaluation before it with which ``loop.patience`` runs out.

    Args:
      state: the state before step 0; donated.
      step: the compiled step; shared by every run of the same structure.
      feed: the batches, a pure function of the step.
      objective: gives the numbers of each step (weights, temperatures, schedules).
      layout: where the state and the batches are.
      evaluate: student parameters -> validation metrics; must hold ``loop.select``. It may raise
        ``Interrupted``: the run goes on with this evaluation.
      on_log: called with the number of finished steps and either ``train/...`` means since the
        last call or ``validation/...`` scores.
      stop: asked between steps; on a request a snapshot is written first. After the last step
        the run is finished and returns, whatever was asked.
      seed: of dropout; the feed's, which decides the order, where it is None.
      diagnostics: finds what went wrong where a loss or a gradient is not finite, and before step 1
        what the student's scores are like.
      say: takes a line for people.
      on_resume: called before the first step with the number of finished steps, where a
        checkpoint is gone on from.
      by_rows: where the step is one of ``ByRows``.

    Raises:
      Interrupted: after a stop request, with the snapshot on disk.
      UserError: when a loss or a gradient is no longer finite, naming term and examples, with the
        state before that step on disk; when a checkpoint cannot be written or used.
    """
    seed = feed.seed if seed is None else seed
    state = layout.put_state(state)
    snapshot = checkpoints.restore(state) if checkpoints else None
    if snapshot:
        state = snapshot.state
        on_resume(snapshot.step)
    best_params = to_host(snapshot.best_params if snapshot else state.params)
    progress = Progress.of(snapshot.record) if snapshot else Progress()
    if not snapshot and jax.process_count() == 1:
        warn_of_scales(diagnostics, objective, best_params, feed, say)

    def numbers(before: int) -> StepNumbers:
        return step_numbers(objective, optimizer, seed, before, loop.steps)

    def arguments(batch: Batch, said: Output | None, before: int) -> tuple[object, ...]:
        given = by_rows.read(batch, said) if by_rows else (batch, said)
        return (*layout.put_batch(*given), layout.put_numbers(numbers(before)))

    def why(taken: Taken, state: TrainState) -> str:
        return went_wrong(diagnostics, feed, numbers(taken.step - 1), taken, state)

    recorder = _Run(loop, evaluate, on_log, why, say, checkpoints, best_params, progress)
    shapes = None if layout.parallel == "pmap" else feed.of_each_shape
    drive = Drive(step, feed.read, arguments, recorder, loop, stop, checkpoints, shapes)
    if by_rows:
        drive.params_of = moved_params(by_rows)
    drive.run(state, int(state.step))
    return TrainResult(recorder.best_params, recorder.progress)


@dataclass
class _Run:
    """What is kept of one run while it is trained: a ``drive.Recorder``."""

    loop: LoopConfig
    evaluate_fn: Evaluate
    on_log: OnLog
    why: Callable[[Taken, TrainState], str]
    say: Callable[[str], None]
    checkpoints: Checkpoints | None
    best_params: Params
    progress: Progress
    skipped_now: int = 0

    def spend(self, *, train_seconds: float = 0.0, compile_seconds: float = 0.0) -> None:
        self.progress.train_seconds += train_seconds
        self.progress.compile_seconds += compile_seconds

    def examine(self, steps: list[Taken], state: TrainState) -> None:
        for taken, wrong in zip(steps, refused(steps), strict=True):
            if not wrong:
                self.progress.examples += int(taken.examples)
                self.skipped_now = 0
            elif self.loop.on_nan == "stop":
                raise self._ended(taken, thaw(state))
            else:
                self._skip(taken, state)

    def log(self, window: list[Taken], done: int) -> None:
        means = {name: float(mean) for name, mean in window_means(window).items()}
        if self.loop.on_nan == "skip":
            means["train/skipped"] = float(self.progress.skipped)
        self.on_log(done, {name: mean for name, mean in means.items() if not math.isnan(mean)})

    def evaluate(self, params: Params, done: int) -> None:
        if self.loop.select is not None:
            scores = self.evaluate_fn(params)
            self.on_log(done, {f"validation/{name}": value for name, value in scores.items()})
            self.progress.history.append({"step": done, **scores})
            if not self.progress.improves(scores, self.loop):
                return
        self.progress.best_step = done
        self.best_params = to_host(params)  # a copy: steps donate their state

    def last_evaluated(self) -> int:
        return int(self.progress.history[-1]["step"]) if self.progress.history else 0

    def alive(self) -> bool:
        return not self.progress.has_ended(self.loop)

    def snapshot(self, state: TrainState) -> Snapshot:
        return Snapshot(state, self.best_params, vars(self.progress))

    def _ended(self, taken: Taken, state: TrainState) -> UserError:
        """The error that ends the run, with its last good state on disk."""
        kept = ""
        if self.checkpoints:
            self.checkpoints.save(self.snapshot(state), wait=True)
            kept = f"; the state before it is kept in {self.checkpoints.folder}"
        return UserError(f"{diverged(taken.step, self.why(taken, state))}{kept}")

    def _skip(self, taken: Taken, state: TrainState) -> None:
        self.progress.skipped += 1
        self.skipped_now += 1
        if self.skipped_now > MAX_SKIPPED:
            raise UserError(f"{diverged(taken.step, self.why(taken, state))}; {skipped_all()}")
        if self.progress.skipped <= TOLD:
            self.say(f"step {taken.step} is left out: {self.why(taken, state)}")


def step_numbers(
    objective: ResolvedObjective, optimizer: OptimizerConfig, seed: int, step: int, steps: int
) -> StepNumbers:
    """The numbers of one step, made on the host."""
    return StepNumbers(
        objective=objective.numbers(step, steps, seed),
        learning_rate=np.float32(learning_rate(optimizer, step, steps)),
        seed=np.uint32(seed),
    )


def went_wrong(
    diagnostics: Diagnostics | None,
    feed: Feed,
    numbers: StepNumbers,
    taken: Taken,
    state: TrainState,
) -> str:
    """What was not finite in a step, in words, and on which examples.

    Args:
      feed, numbers: of the run; the batch is made again.
      taken: the step, with metrics of one student.
      state: before the step, or where steps are skipped a few steps later.
    """
    elsewhere = any(not getattr(x, "is_fully_addressable", True) for x in jax.tree.leaves(state))
    if diagnostics is None or elsewhere:
        metrics = jax.device_get(taken.metrics)
        terms = [term for term, (total, _) in metrics.terms.items() if not np.isfinite(total)]
        return f"{', '.join(terms) or 'the gradient'} not finite"
    batch, said = feed(taken.step - 1)
    return explain(diagnostics, state.trained, taken.step - 1, batch, said, numbers, feed.table.ids)


def diverged(step: int, why: str) -> str:
    """What to say of a run that cannot go on."""
    return (
        f"training went wrong at step {step}: {why}. A lower --learning-rate or a lower weight on "
        "that term usually helps; --on-nan skip leaves such steps out"
    )


def skipped_all() -> str:
    """Why a run ends that was to skip such steps."""
    return f"more than {MAX_SKIPPED} steps in a row were skipped"
