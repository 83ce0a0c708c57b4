"""The loop: feed a batch, take a step, evaluate now and then, keep the best."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.training.checkpoint import Checkpoints, Snapshot
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.optimizer import OptimizerConfig, learning_rate
from distill_jax.training.state import Params, TrainState
from distill_jax.training.step import CompiledStep, StepMetrics, StepNumbers


@dataclass(frozen=True)
class LoopConfig:
    """How long to train, how often to look, and what decides which step was best.

    Attributes:
      steps: optimiser steps in all.
      eval_every: steps between evaluations on the validation split; the last step has one too.
      log_every: steps between log lines.
      select: the validation metric whose highest value decides (the earliest of equals); None
        for a stage whose end is what counts: nothing is evaluated, the last step is kept.
      checkpoint_seconds: a snapshot is written whenever so many seconds have passed.
    """

    steps: int
    eval_every: int
    log_every: int = 20
    select: str | None = "accuracy"
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.eval_every < 1 or self.log_every < 1:
            raise UserError("steps, eval_every and log_every must be at least 1")


@dataclass
class Progress:
    """How far a run is; goes into every snapshot."""

    best_step: int = 0
    best_score: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    train_seconds: float = 0.0
    compile_seconds: float = 0.0
    examples: int = 0


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
) -> TrainResult:
    """Train to the end, going on from the latest checkpoint where there is one.

    Args:
      state: the state before step 0; donated.
      step: the compiled step; shared by every run of the same structure.
      feed: the batches, a pure function of the step.
      objective: gives the numbers of each step (weights, temperatures, schedules).
      layout: where the state and the batches are.
      evaluate: student parameters -> validation metrics; must hold ``loop.select``.
      on_log: called with the number of finished steps and either ``train/...`` means since the
        last call or ``validation/...`` scores.
      stop: asked between steps; on a request a snapshot is written first. After the last step
        the run is finished and returns, whatever was asked.
      seed: of dropout; the feed's, which decides the order, where it is None.

    Raises:
      Interrupted: after a stop request, with the snapshot on disk.
      UserError: when the loss is no longer finite, naming the term that went wrong.
    """
    seed = feed.seed if seed is None else seed
    state = layout.put_state(state)
    best_params, progress = state.params, Progress()
    if checkpoints and (snapshot := checkpoints.restore(state)):
        state, best_params = snapshot.state, snapshot.best_params
        progress = Progress(**snapshot.record)
    best_params = jax.tree.map(np.array, best_params)  # a copy: steps donate their state

    def save() -> None:
        if checkpoints:
            checkpoints.save(Snapshot(state, best_params, vars(progress)))

    window: list[StepMetrics] = []
    saved_at = time.monotonic()
    start = int(state.step)
    mark = time.perf_counter()
    for done, (batch, teacher_output) in enumerate(feed.read(start, loop.steps), start + 1):
        numbers = step_numbers(objective, optimizer, seed, done - 1, loop.steps)
        given = (*layout.put_batch(batch, teacher_output), layout.put_numbers(numbers))
        traces, called = step.traces, time.perf_counter()
        with jax.transfer_guard("disallow"):
            state, metrics = step(state, *given)
        if step.traces > traces:  # tracing and compiling happen in the call, the step after it
            spent = time.perf_counter() - called
            progress.compile_seconds += spent
            mark += spent
        window.append(metrics)
        progress.examples += int(np.sum(np.asarray(batch.example_ids_B) >= 0))

        if done % loop.log_every == 0 or done == loop.steps:
            on_log(done, summarise(window, done))
            window = []
        if loop.select is None:
            if done == loop.steps:
                jax.block_until_ready(state)
                progress.train_seconds += time.perf_counter() - mark
                progress.best_step = done
                best_params = jax.tree.map(np.array, state.params)
        elif done % loop.eval_every == 0 or done == loop.steps:
            jax.block_until_ready(state)
            progress.train_seconds += time.perf_counter() - mark
            scores = evaluate(state.params)
            on_log(done, {f"validation/{name}": value for name, value in scores.items()})
            progress.history.append({"step": done, **scores})
            if scores[loop.select] > progress.best_score:
                progress.best_score, progress.best_step = scores[loop.select], done
                best_params = jax.tree.map(np.array, state.params)
            mark = time.perf_counter()
        late = time.monotonic() - saved_at > loop.checkpoint_seconds
        if (late or stop.requested) and done < loop.steps:
            jax.block_until_ready(state)
            progress.train_seconds += time.perf_counter() - mark
            save()
            stop.check()
            mark, saved_at = time.perf_counter(), time.monotonic()
    return TrainResult(best_params, progress)


def step_numbers(
    objective: ResolvedObjective, optimizer: OptimizerConfig, seed: int, step: int, steps: int
) -> StepNumbers:
    """The numbers of one step, made on the host."""
    return StepNumbers(
        objective=objective.numbers(step, steps),
        learning_rate=np.float32(learning_rate(optimizer, step, steps)),
        seed=np.uint32(seed),
    )


def summarise(window: list[StepMetrics], step: int) -> dict[str, float]:
    """Means over the steps of a window; sums over sums where a term counts examples.

    Raises:
      UserError: when a loss is not finite.
    """
    means = {name: float(mean) for name, mean in window_means(window).items()}
    if wrong := divergence(means, step):
        raise wrong
    return means


def window_means(window: list[StepMetrics]) -> dict[str, np.ndarray]:
    """The means of ``summarise``: scalars, or one for each member where metrics are [P]."""
    steps = jax.device_get(window)
    means = {
        "train/loss": np.mean([m.loss for m in steps], axis=0),
        "train/grad_norm": np.mean([m.grad_norm for m in steps], axis=0),
    }
    for term in steps[0].terms:
        total = sum(np.asarray(m.terms[term][0], np.float64) for m in steps)
        count = sum(np.asarray(m.terms[term][1], np.float64) for m in steps)
        means[f"train/{term}"] = total / np.maximum(count, 1.0)
    return means


def divergence(means: dict[str, float], step: int) -> UserError | None:
    """What to say when a mean is not finite, naming the terms; None when all is well."""
    wrong = [name.removeprefix("train/") for name in means if not math.isfinite(means[name])]
    if not wrong:
        return None
    return UserError(
        f"training went wrong before step {step}: {', '.join(wrong)} not finite. "
        "A lower --learning-rate or a lower weight on that term usually helps."
    )
