"""A population: many students of one shape and one kind of objective, trained in one step.

Members share the module, the structure of the objective, the optimiser's statics, the number of
steps and the shapes of batches. They differ in initialisation, seed, learning rate, weights,
temperatures and schedules. Each member's run is the run that ``loop.train`` would give it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import Placement
from distill_jax.core.types import Batch, Output
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.objectives.schedules import Schedule
from distill_jax.training.checkpoint import Checkpoints, Snapshot, silent
from distill_jax.training.diagnose import Diagnostics
from distill_jax.training.drive import Drive, Taken, refused, window_means
from distill_jax.training.feed import Feed
from distill_jax.training.finite import thaw
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.loop import (
    MAX_SKIPPED,
    TOLD,
    LoopConfig,
    OnResume,
    Progress,
    TrainResult,
    diverged,
    skipped_all,
    went_wrong,
)
from distill_jax.training.optimizer import OptimizerConfig, learning_rate, static_part
from distill_jax.training.scales import warn_of_scales
from distill_jax.training.state import Params, TrainState
from distill_jax.training.step import CompiledStep, Step, StepNumbers

EvaluateMembers = Callable[[Params], Sequence[dict[str, float]]]
OnMembersLog = Callable[[int, Sequence[dict[str, float]]], None]


class PopulationStep(CompiledStep):
    """A pure step of one student, made one of all members at once and compiled.

    It takes what the step takes with state and numbers stacked, [P, ...], and so are state and
    metrics that it returns.

    Attributes:
      shared_batch: whether all members see one batch and one teacher's output; otherwise these
        are stacked as well.
      placement: where the members are.
    """

    def __init__(self, step: Step, *, shared_batch: bool, placement: Placement) -> None:
        axis = None if shared_batch else 0
        super().__init__(placement.vmap(step, in_axes=(0, axis, axis, 0)))
        self.shared_batch = shared_batch
        self.placement = placement


def train_population(
    states: Sequence[TrainState],
    step: PopulationStep,
    feeds: Feed | Sequence[Feed],
    *,
    objectives: Sequence[ResolvedObjective],
    optimizers: Sequence[OptimizerConfig],
    loop: LoopConfig,
    evaluate: EvaluateMembers,
    on_log: OnMembersLog,
    stop: StopRequest,
    checkpoints: Checkpoints | None = None,
    seeds: Sequence[int] | None = None,
    diagnostics: Diagnostics | None = None,
    say: Callable[[str], None] = silent,
    on_resume: OnResume = lambda step: None,
) -> "list[TrainResult | Diverged]":
    """Train all members to the end, going on from the latest checkpoint where there is one.

    Seconds in a member's progress are its share: those of the population divided by P. With
    ``loop.patience`` each member ends where it would alone: what it was at its best is kept, and
    nothing more is filed of it while the others go on.

    Args:
      states: of each member before step 0.
      step: shared by every population of the same structure.
      feeds: one for all members, or one for each, as ``step.shared_batch`` says. Members with
        feeds of their own must get batches of one shape at every step, so these feeds want a
        single batch length. A feed that several members name is read once.
      objectives, optimizers: of each member.
      evaluate: the placed stack of student parameters -> validation metrics of each member. The
        stack may be filled up (see ``Placement``); what is said of members that diverged is not
        read. It may raise ``Interrupted``, as in ``loop.train``.
      on_log: called as in ``loop.train``, with the values of each member; ``{}`` for those that
        diverged.
      stop, checkpoints: as in ``loop.train``. A checkpoint can be gone on from on any placement.
      seeds: of each member's dropout; the feeds' where None.
      diagnostics, say, on_resume: as in ``loop.train``.

    Returns:
      For each member its result, or how it ended: when a loss or a gradient is no longer finite
      the other members go on.

    Raises:
      Interrupted: after a stop request, with the snapshot on disk.
      ValueError: when the members cannot share a program.
    """
    count = len(states)
    if seeds is None:
        seeds = [feeds.seed] * count if isinstance(feeds, Feed) else [feed.seed for feed in feeds]
    _check_members(count, step, feeds, objectives, optimizers, seeds)
    own_feeds = [feeds] * count if isinstance(feeds, Feed) else list(feeds)
    table = number_table(objectives, optimizers, seeds, loop.steps)
    placement = step.placement
    numbers = placement.fill(table, axis=1)
    put_batch = placement.put_shared if step.shared_batch else placement.put_members

    def arguments(batch: Batch, said: Output | None, before: int) -> tuple[Any, ...]:
        return (*put_batch((batch, said)), placement.put_members(member_of(numbers, before)))

    def why(taken: Taken, state: TrainState, member: int) -> str:
        own = member_of(member_of(table, taken.step - 1), member)
        taken = replace(taken, metrics=member_of(jax.device_get(taken.metrics), member))
        return went_wrong(diagnostics, own_feeds[member], own, taken, state)

    state = stack_members(states)
    snapshot = checkpoints.restore(state) if checkpoints else None
    if not snapshot:
        warn_of_scales(diagnostics, objectives[0], states[0].params, own_feeds[0], say)
    if snapshot:
        on_resume(snapshot.step)
    first = snapshot or Snapshot(state, state.params, {})
    recorder = _Members(first, count, loop, evaluate, on_log, why, say)
    del state, snapshot
    drive = Drive(
        step, lambda *span: _read(feeds, *span), arguments, recorder, loop, stop, checkpoints
    )
    return recorder.results(drive.run(placement.put_members(first.state), first.step))


class Diverged(UserError):
    """How a member ended whose loss or gradients were not finite.

    Attributes:
      snapshot: of the member alone, before that step.
    """

    def __init__(self, message: str, snapshot: Snapshot) -> None:
        super().__init__(message)
        self.snapshot = snapshot


def member_of(stacked: Any, index: int) -> Any:
    """One row of every array of a tree: a member, of a stack of members."""
    return jax.tree.map(lambda x: x[index], stacked)


def stack_members(trees: Sequence[Any]) -> Any:
    """Trees of like arrays as one tree of stacks [P, ...], in the host's memory."""
    return jax.tree.map(lambda *arrays: np.stack([np.asarray(a) for a in arrays]), *trees)


def number_table(
    objectives: Sequence[ResolvedObjective],
    optimizers: Sequence[OptimizerConfig],
    seeds: Sequence[int],
    steps: int,
) -> StepNumbers:
    """The numbers of all steps and members, stacks [steps, P, ...] on the host.

    Made once before the first step: host work for each member in each step would be longer than
    a step of a small population.
    """

    def of_objective(resolved: ResolvedObjective, seed: int) -> Any:
        terms = resolved.objective.terms
        values = [value for term in terms for value in (term.weight, *dict(term.options).values())]
        constant = resolved.numbers(0, steps, seed)
        if draws(resolved) or any(isinstance(value, Schedule) for value in values):
            return stack_members([resolved.numbers(step, steps, seed) for step in range(steps)])
        return jax.tree.map(lambda x: np.broadcast_to(x, (steps, *np.shape(x))), constant)

    def draws(resolved: ResolvedObjective) -> bool:
        return any(term.random for term in resolved.terms)

    def of_optimizer(optimizer: OptimizerConfig) -> np.ndarray:
        return np.asarray([learning_rate(optimizer, step, steps) for step in range(steps)])

    # Resolved objectives are equal when only their numbers differ; the objectives are not.
    kinds = [
        (o.objective, seed if draws(o) else 0) for o, seed in zip(objectives, seeds, strict=True)
    ]
    by_kind = {
        kind: of_objective(resolved, kind[1])
        for kind, resolved in dict(zip(kinds, objectives, strict=True)).items()
    }
    rates = {optimizer: of_optimizer(optimizer) for optimizer in set(optimizers)}
    return StepNumbers(
        objective=jax.tree.map(
            lambda *columns: np.stack(columns, axis=1),
            *[by_kind[kind] for kind in kinds],
        ),
        learning_rate=np.stack([rates[o] for o in optimizers], axis=1).astype(np.float32),
        seed=np.broadcast_to(np.asarray(seeds, np.uint32), (steps, len(seeds))),
    )


class _Members:
    """What is kept of each member: a ``drive.Recorder``.

    Attributes:
      best_params: numpy stacks [P, ...].
      progress: of each member.
      failures: of each member what went wrong, or None.
      skipped_now: steps in a row that each member skipped.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        count: int,
        loop: LoopConfig,
        evaluate: EvaluateMembers,
        on_log: OnMembersLog,
        why: Callable[[Taken, TrainState, int], str],
        say: Callable[[str], None],
    ) -> None:
        """As a snapshot left them; an empty record is that of a population before step 0."""
        records = snapshot.record.get("members", [{}] * count)
        self.progress = [Progress.of(record) for record in records]
        self.failures: list[str | None] = snapshot.record.get("failures", [None] * count)
        self.best_params = jax.tree.map(np.array, snapshot.best_params)
        self.skipped_now = [0] * count
        self.loop, self.evaluate_fn, self.on_log = loop, evaluate, on_log
        self.why, self.say = why, say

    def snapshot(self, state: TrainState) -> Snapshot:
        record = {"members": [vars(p) for p in self.progress], "failures": self.failures}
        return Snapshot(self._on_host(state), self.best_params, record)

    def living(self) -> list[int]:
        """Members that are still trained: they neither diverged nor ended by patience."""
        return [
            member
            for member, (progress, failure) in enumerate(
                zip(self.progress, self.failures, strict=True)
            )
            if failure is None and not progress.has_ended(self.loop)
        ]

    def alive(self) -> bool:
        return bool(self.living())

    def spend(self, *, train_seconds: float = 0.0, compile_seconds: float = 0.0) -> None:
        for progress in self.progress:
            progress.train_seconds += train_seconds / len(self.progress)
            progress.compile_seconds += compile_seconds / len(self.progress)

    def examine(self, steps: list[Taken], state: TrainState) -> None:
        """File steps; takes leave of members that diverged."""
        for taken, wrong_P in zip(steps, refused(steps), strict=True):
            examples_P = np.broadcast_to(taken.examples, len(self.progress))
            for member in self.living():
                if wrong_P[member]:
                    self._refuse(taken, state, member)
                else:
                    self.progress[member].examples += int(examples_P[member])
                    self.skipped_now[member] = 0

    def _refuse(self, taken: Taken, state: TrainState, member: int) -> None:
        progress, skip = self.progress[member], self.loop.on_nan == "skip"
        if skip:
            progress.skipped += 1
            self.skipped_now[member] += 1
        too_many = self.skipped_now[member] > MAX_SKIPPED
        if skip and not too_many and progress.skipped > TOLD:
            return
        why = self.why(taken, self._good(state, member), member)
        if skip and not too_many:
            self.say(f"member {member}: step {taken.step} is left out: {why}")
            return
        ended = diverged(taken.step, why)
        self.failures[member] = f"{ended}; {skipped_all()}" if too_many else ended

    def log(self, window: list[Taken], done: int) -> None:
        means = window_means(window)
        values: list[dict[str, float]] = [{} for _ in self.progress]
        for member in self.living():
            own = {name: float(mean_P[member]) for name, mean_P in means.items()}
            if self.loop.on_nan == "skip":
                own["train/skipped"] = float(self.progress[member].skipped)
            values[member] = {n: value for n, value in own.items() if not math.isnan(value)}
        self.on_log(done, values)

    def evaluate(self, params: Params, done: int) -> None:
        """File an evaluation and keep the parameters of those that were never as good before."""
        if self.loop.select is None:
            return self._keep(self.living(), params, done)
        scores = self.evaluate_fn(params)
        values: list[dict[str, float]] = [{} for _ in self.progress]
        better = []
        for member in self.living():
            progress, own = self.progress[member], scores[member]
            values[member] = {f"validation/{name}": value for name, value in own.items()}
            progress.history.append({"step": done, **own})
            if progress.improves(own, self.loop):
                better.append(member)
        self._keep(better, params, done)
        self.on_log(done, values)

    def last_evaluated(self) -> int:
        histories = [self.progress[member].history for member in self.living()]
        return int(histories[0][-1]["step"]) if histories and histories[0] else 0

    def _keep(self, members: list[int], params: Params, step: int) -> None:
        """Copy the parameters of some members: steps donate their state."""
        if not members:
            return
        for member in members:
            self.progress[member].best_step = step
        for best, now in zip(
            jax.tree.leaves(self.best_params), jax.tree.leaves(params), strict=True
        ):
            best[members] = np.asarray(now)[members]

    def _on_host(self, state: TrainState) -> TrainState:
        """The members' states without what fills the last places."""
        return jax.tree.map(lambda x: x[: len(self.progress)], jax.device_get(state))

    def _good(self, state: TrainState, member: int) -> TrainState:
        """A member's state, before the step that went wrong where one did."""
        return jax.tree.map(np.asarray, thaw(member_of(self._on_host(state), member)))

    def results(self, state: TrainState) -> list[TrainResult | Diverged]:
        ended: list[TrainResult | Diverged] = []
        for member, (progress, failure) in enumerate(
            zip(self.progress, self.failures, strict=True)
        ):
            best_params = jax.tree.map(np.copy, member_of(self.best_params, member))
            if failure is None:
                ended.append(TrainResult(best_params, progress))
                continue
            good = Snapshot(self._good(state, member), best_params, vars(progress))
            ended.append(Diverged(failure, good))
        return ended


def _read(
    feeds: Feed | Sequence[Feed], start: int, stop: int
) -> Iterator[tuple[Batch, Output | None]]:
    """The batches of steps ``start`` to ``stop - 1``, stacked over members with own feeds."""
    if isinstance(feeds, Feed):
        return feeds.read(start, stop)
    distinct = list(dict.fromkeys(feeds))
    which = [distinct.index(feed) for feed in feeds]

    def at(step: int) -> tuple[Batch, Output | None]:
        parts = [feed(step) for feed in distinct]
        try:
            return jax.tree.map(lambda *leaves: _stack([leaves[i] for i in which]), *parts)
        except ValueError as error:
            lengths = sorted(
                {max(map(np.shape, jax.tree.leaves(part[0])), key=len) for part in parts}
            )
            raise ValueError(
                f"members have batches of different shapes at step {step}, {lengths}: feeds of "
                "their own want one batch size and a single batch length"
            ) from error

    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(grain.MapDataset.range(start, stop).map(at).to_iter_dataset(ahead))


def _stack(leaves: Sequence[Any]) -> Any:
    """Stacked where they are: on the host, or on the device of a live teacher."""
    return (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves)


def _check_members(
    count: int,
    step: PopulationStep,
    feeds: Feed | Sequence[Feed],
    objectives: Sequence[ResolvedObjective],
    optimizers: Sequence[OptimizerConfig],
    seeds: Sequence[int],
) -> None:
    if step.shared_batch != isinstance(feeds, Feed):
        raise ValueError("a shared feed wants a step with shared_batch=True, own feeds one without")
    named = {"objectives": objectives, "optimizers": optimizers, "seeds": seeds}
    if not isinstance(feeds, Feed):
        named["feeds"] = feeds
    for name, values in named.items():
        if len(values) != count or not count:
            raise ValueError(f"{count} members, {len(values)} {name}")
    for other in objectives[1:]:
        if other != objectives[0]:
            raise ValueError(
                "objectives of different structure cannot share a step: "
                f"{objectives[0].structure} and {other.structure}"
            )
    if len(set(map(static_part, optimizers))) > 1:
        raise ValueError(
            "optimisers of a population may differ in learning rate, schedule and warmup only"
        )
