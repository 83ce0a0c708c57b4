"""What every training loop does around its steps: one run, or a population of them.

Feed, step, look whether all was finite, log, evaluate, write checkpoints, stop when asked. What is
kept of the runs is the business of a ``Recorder``.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import jax
import numpy as np

from distill_jax.core.digests import LATE
from distill_jax.core.distributed import any_says
from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, Output
from distill_jax.training.checkpoint import Checkpoints, Snapshot
from distill_jax.training.interrupt import Interrupted, StopRequest
from distill_jax.training.state import Params, TrainState
from distill_jax.training.step import CompiledStep, StepMetrics

OnNan = Literal["stop", "skip"]


@dataclass(frozen=True)
class LoopConfig:
    """How long to train, how often to look, and what decides which step was best.

    Attributes:
      steps: optimiser steps in all.
      eval_every: steps between evaluations on the validation split; the last step has one too.
      log_every: steps between log lines.
      select: the validation metric whose best value decides; None for a stage whose end is what
        counts: nothing is evaluated, the last step is kept.
      ties: the metric that decides between steps that are equally good; None for the earliest.
      checkpoint_seconds: a snapshot is written whenever so many seconds have passed.
      on_nan: what is done about a step whose loss or gradients are not finite; the step has to be
        made with ``skip_nonfinite`` where it is to be skipped.
      patience: training ends early when so many evaluations in a row were no better than the best
        before them; 0 for never. Schedules are those of all ``steps`` either way.
      lower: metrics of which the lowest is the best.
      watched: metrics beside ``select`` whose own best renews the patience.
    """

    steps: int
    eval_every: int
    log_every: int = 20
    select: str | None = "accuracy"
    checkpoint_seconds: float = 60.0
    on_nan: OnNan = "stop"
    ties: str | None = None
    patience: int = 0
    lower: tuple[str, ...] = field(default=("nll",), metadata=LATE)
    watched: tuple[str, ...] = field(default=(), metadata=LATE)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.eval_every < 1 or self.log_every < 1:
            raise UserError("steps, eval_every and log_every must be at least 1")
        if self.patience < 0:
            raise UserError(f"patience must not be negative, not {self.patience}")

    def merit(self, scores: Mapping[str, float]) -> tuple[float, float]:
        """What a step is worth, higher is better: the deciding metric, then that of ties."""

        return self.worth(self.select, scores), self.worth(self.ties, scores)

    def worth(self, name: str | None, scores: Mapping[str, float]) -> float:
        """A metric as a number of which more is better; 0 where there is none."""
        if name is None:
            return 0.0
        return -scores[name] if name in self.lower else scores[name]


class Recorder(Protocol):
    """What is kept of the runs that a loop drives."""

    def spend(self, *, train_seconds: float = 0.0, compile_seconds: float = 0.0) -> None:
        """Note time."""

    def examine(self, steps: "list[Taken]", state: TrainState) -> None:
        """File steps that were taken; say or raise what is to be said of those that went wrong."""

    def log(self, window: "list[Taken]", done: int) -> None:
        """Report the means of the steps since the last report."""

    def evaluate(self, params: Params, done: int) -> None:
        """Evaluate the students, or keep them where nothing is evaluated."""

    def last_evaluated(self) -> int:
        """The step of the last evaluation."""

    def alive(self) -> bool:
        """Whether any run is left to be trained."""

    def snapshot(self, state: TrainState) -> Snapshot:
        """All that is needed to go on from here."""


@dataclass(frozen=True)
class Taken:
    """A step that was taken.

    Attributes:
      step: the number of steps, this one included.
      metrics: on the device.
      examples: real ones in its batch, an int or [P].
    """

    step: int
    metrics: StepMetrics
    examples: np.ndarray


@dataclass
class Drive:
    """One training loop.

    Attributes:
      read: (first step, end) -> the batches of these steps with what the teacher says.
      arguments: (batch, teacher's output, steps before it) -> the step's arguments beside the
        state, where they belong.
      shapes: (first step, end) -> of each shape of batches a step, its batch and what the teacher
        says of it: what can be compiled beforehand, side by side.
      params_of: the students' parameters in a state.
    """

    step: CompiledStep
    read: Callable[[int, int], Iterator[tuple[Batch, Output | None]]]
    arguments: Callable[[Batch, Output | None, int], tuple[Any, ...]]
    recorder: Recorder
    loop: LoopConfig
    stop: StopRequest
    checkpoints: Checkpoints | None = None
    shapes: Callable[[int, int], list[tuple[int, Batch, Output | None]]] | None = None
    params_of: Callable[[TrainState], Params] = lambda state: state.params
    _mark: float = field(default_factory=time.perf_counter)
    _saved_at: float = field(default_factory=time.monotonic)
    _unseen: list[Taken] = field(default_factory=list)

    def run(self, state: TrainState, start: int) -> TrainState:
        """Take all steps from ``start`` on, or those until no run is left to be trained.

        Args:
          state: placed; donated.

        Raises:
          Interrupted: after a stop request, with the snapshot on disk.
          UserError: from the recorder or the checkpoints.
        """
        loop, recorder = self.loop, self.recorder
        due = loop.select is not None and self._is_due(start) and recorder.last_evaluated() < start
        if due and recorder.alive():
            self._evaluate(state, start)  # an evaluation that a stop came into
        self._mark = time.perf_counter()
        if start >= loop.steps or not recorder.alive():
            return state
        self._prepare(state, start)
        batches = self.read(start, loop.steps)
        window: list[Taken] = []
        try:
            return self._take_all(state, enumerate(batches, start + 1), window)
        except Interrupted:
            if window:  # what goes on reports the steps after these
                recorder.log(window, window[-1].step)
            raise
        finally:
            if hasattr(batches, "close"):  # ends the thread that reads ahead
                batches.close()

    def _take_all(
        self,
        state: TrainState,
        batches: Iterable[tuple[int, tuple[Batch, Output | None]]],
        window: list[Taken],
    ) -> TrainState:
        """``window`` holds the steps that are not reported yet."""
        loop, recorder = self.loop, self.recorder
        for done, (batch, said) in batches:
            state, taken = self._take(state, batch, said, done)
            window.append(taken)
            self._unseen.append(taken)
            if self.checkpoints:
                self.checkpoints.check()
            if done % loop.log_every == 0 or done == loop.steps:
                self._examine(state)
                recorder.log(window, done)
                window.clear()
                if not recorder.alive():
                    break
            if self._is_due(done):
                self._examine(state)
                self._pause(state)
                self._evaluate(state, done)
                if not recorder.alive():
                    if window:
                        recorder.log(window, done)
                    break
            if done < loop.steps:
                self._save_where_wanted(state, done)
        return state

    def _prepare(self, state: TrainState, start: int) -> None:
        """Compile what the steps from here on will need."""
        if self.shapes is not None and jax.process_count() == 1:
            shapes = self.shapes(start, self.loop.steps)
            calls = [self.arguments(batch, said, step) for step, batch, said in shapes]
            self.step.prepare(state, calls)
            self.recorder.spend(compile_seconds=time.perf_counter() - self._mark)
            self._mark = time.perf_counter()

    def _take(
        self, state: TrainState, batch: Batch, said: Output | None, done: int
    ) -> tuple[TrainState, Taken]:
        arguments = self.arguments(batch, said, done - 1)
        traces, called = self.step.traces, time.perf_counter()
        with jax.transfer_guard("disallow"):
            state, metrics = self.step(state, *arguments)
        if self.step.traces > traces:  # tracing and compiling happen in the call, the step after
            spent = time.perf_counter() - called
            self.recorder.spend(compile_seconds=spent)
            self._mark += spent
        examples = np.sum(np.asarray(batch.example_ids_B) >= 0, axis=-1)
        return state, Taken(done, metrics, examples)

    def _examine(self, state: TrainState) -> None:
        if self._unseen:
            self.recorder.examine(self._unseen, state)
            self._unseen = []

    def _is_due(self, done: int) -> bool:
        """Whether students are evaluated or kept after this step."""
        every = self.loop.eval_every if self.loop.select is not None else self.loop.steps
        return done > 0 and (done % every == 0 or done == self.loop.steps)

    def _is_late(self) -> bool:
        return time.monotonic() - self._saved_at > self.loop.checkpoint_seconds

    def _agree(self, wish: bool, done: int) -> bool:
        """Whether it is done now. Processes that train together do it at one step, or none."""
        if jax.process_count() == 1:
            return wish
        if done % self.loop.log_every:  # agreeing means waiting for one another
            return False
        return any_says(wish)

    def _pause(self, state: TrainState) -> None:
        jax.block_until_ready(state)
        now = time.perf_counter()
        self.recorder.spend(train_seconds=now - self._mark)
        self._mark = now

    def _evaluate(self, state: TrainState, done: int) -> None:
        try:
            self.recorder.evaluate(self.params_of(state), done)
        except Interrupted:
            self._save(state, wait=True)
            raise
        self._mark = time.perf_counter()

    def _save_where_wanted(self, state: TrainState, done: int) -> None:
        """Write a checkpoint when it is time to, or to leave."""
        leaves = self._agree(self.stop.requested, done)
        if leaves or self._agree(self._is_late(), done):
            self._examine(state)
            self._pause(state)
            self._save(state, wait=leaves)
            if leaves:
                raise Interrupted
            self._mark, self._saved_at = time.perf_counter(), time.monotonic()

    def _save(self, state: TrainState, *, wait: bool = False) -> None:
        if self.checkpoints:
            self.checkpoints.save(self.recorder.snapshot(state), wait=wait)


def refused(steps: list[Taken]) -> np.ndarray:
    """Which steps were not applied: bool [steps], or [steps, P] of a population."""
    return ~np.stack(jax.device_get([taken.metrics.applied for taken in steps]))


def window_means(window: list[Taken]) -> dict[str, np.ndarray]:
    """Means over the applied steps of a window: scalars, or [P] of a population.

    Sums over sums where a term counts examples; NaN where no step was applied.
    """
    steps: list[StepMetrics] = jax.device_get([taken.metrics for taken in window])
    applied = np.stack([m.applied for m in steps])

    def total(values: list[Any]) -> np.ndarray:
        return np.where(applied, np.stack(values).astype(np.float64), 0.0).sum(axis=0)

    count = applied.sum(axis=0)
    none = np.where(count == 0, np.nan, 0.0)
    means = {
        "train/loss": total([m.loss for m in steps]) / np.maximum(count, 1) + none,
        "train/grad_norm": total([m.grad_norm for m in steps]) / np.maximum(count, 1) + none,
    }
    for term in steps[0].terms:
        examples = total([m.terms[term][1] for m in steps])
        means[f"train/{term}"] = (
            total([m.terms[term][0] for m in steps]) / np.maximum(examples, 1.0) + none
        )
    return means
