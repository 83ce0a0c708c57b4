"""A population: many students of one shape and one kind of objective, trained in one step.

Members share the module, the structure of the objective, the optimiser's statics, the number of
steps and the shapes of batches. They differ in initialisation, seed, learning rate, weights,
temperatures and schedules. Each member's run is the run that ``loop.train`` would give it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import Placement
from distill_jax.core.types import Batch, ModelOutput
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.objectives.schedules import Schedule
from distill_jax.training.checkpoint import Checkpoints, Snapshot
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.loop import (
    LoopConfig,
    Progress,
    TrainResult,
    divergence,
    window_means,
)
from distill_jax.training.optimizer import OptimizerConfig, learning_rate, static_part
from distill_jax.training.state import Params, TrainState
from distill_jax.training.step import CompiledStep, Step, StepMetrics, StepNumbers

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
) -> list[TrainResult | UserError]:
    """Train all members to the end, going on from the latest checkpoint where there is one.

    Seconds in a member's progress are its share: those of the population divided by P.

    Args:
      states: of each member before step 0.
      step: shared by every population of the same structure.
      feeds: one for all members, or one for each, as ``step.shared_batch`` says. Members with
        feeds of their own must get batches of one shape at every step, so these feeds want a
        single batch length. A feed that several members name is read once.
      objectives, optimizers: of each member.
      evaluate: the placed stack of student parameters -> validation metrics of each member. The
        stack may be filled up (see ``Placement``) and the parameters of members that diverged may
        be NaN: what is said of those is not read.
      on_log: called as in ``loop.train``, with the values of each member; ``{}`` for those that
        diverged.
      stop, checkpoints: as in ``loop.train``. A checkpoint can be gone on from on any placement.
      seeds: of each member's dropout; the feeds' where None.

    Returns:
      For each member its result, or the error that ended it: when a loss is no longer finite the
      other members go on.

    Raises:
      Interrupted: after a stop request, with the snapshot on disk.
      ValueError: when the members cannot share a program.
    """
    count = len(states)
    if seeds is None:
        seeds = [feeds.seed] * count if isinstance(feeds, Feed) else [feed.seed for feed in feeds]
    _check_members(count, step, feeds, objectives, optimizers, seeds)
    placement = step.placement
    host_state = stack_members(states)
    snapshot = checkpoints.restore(host_state) if checkpoints else None
    members = _Members.of(snapshot or Snapshot(host_state, host_state.params, {}), count)
    start = snapshot.step if snapshot else 0
    state = placement.put_members(snapshot.state if snapshot else host_state)
    del host_state, snapshot
    numbers = placement.fill(number_table(objectives, optimizers, seeds, loop.steps), axis=1)
    put_batch = placement.put_shared if step.shared_batch else placement.put_members

    def save() -> None:
        if checkpoints:
            whole = jax.tree.map(lambda x: x[:count], jax.device_get(state))
            checkpoints.save(Snapshot(whole, members.best_params, members.record()))

    window: list[StepMetrics] = []
    saved_at = time.monotonic()
    mark = time.perf_counter()
    for done, (batch, said) in enumerate(_read(feeds, start, loop.steps), start + 1):
        numbers_now = jax.tree.map(lambda table: table[done - 1], numbers)  # noqa: B023
        batch_placed, said_placed = put_batch((batch, said))
        traces, called = step.traces, time.perf_counter()
        state, metrics = step(state, batch_placed, said_placed, numbers_now)
        if step.traces > traces:  # tracing and compiling happen in the call, the step after it
            spent = time.perf_counter() - called
            members.spend(compile_seconds=spent)
            mark += spent
        window.append(metrics)
        members.count(batch)

        last = done == loop.steps
        if done % loop.log_every == 0 or last:
            on_log(done, members.summarise(window, done))
            window = []
            if not members.alive:
                break
        if last or (loop.select is not None and done % loop.eval_every == 0):
            jax.block_until_ready(state)
            members.spend(train_seconds=time.perf_counter() - mark)
            if loop.select is None:
                members.keep(members.alive, state.params, done)
            else:
                scores = members.judge(evaluate(state.params), loop.select, state.params, done)
                on_log(done, scores)
            mark = time.perf_counter()
        late = time.monotonic() - saved_at > loop.checkpoint_seconds
        if (late or stop.requested) and not last:
            jax.block_until_ready(state)
            members.spend(train_seconds=time.perf_counter() - mark)
            save()
            stop.check()
            mark, saved_at = time.perf_counter(), time.monotonic()
    return members.results()


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

    def of_objective(resolved: ResolvedObjective) -> Any:
        terms = resolved.objective.terms
        values = [value for term in terms for value in (term.weight, *dict(term.options).values())]
        if any(isinstance(value, Schedule) for value in values):
            return stack_members([resolved.numbers(step, steps) for step in range(steps)])
        constant = resolved.numbers(0, steps)
        return jax.tree.map(lambda x: np.broadcast_to(x, (steps, *np.shape(x))), constant)

    def of_optimizer(optimizer: OptimizerConfig) -> np.ndarray:
        return np.asarray([learning_rate(optimizer, step, steps) for step in range(steps)])

    # Resolved objectives are equal when only their numbers differ; the objectives are not.
    by_objective = {
        o.objective: of_objective(o) for o in {o.objective: o for o in objectives}.values()
    }
    rates = {optimizer: of_optimizer(optimizer) for optimizer in set(optimizers)}
    return StepNumbers(
        objective=jax.tree.map(
            lambda *columns: np.stack(columns, axis=1),
            *[by_objective[o.objective] for o in objectives],
        ),
        learning_rate=np.stack([rates[o] for o in optimizers], axis=1).astype(np.float32),
        seed=np.broadcast_to(np.asarray(seeds, np.uint32), (steps, len(seeds))),
    )


@dataclass
class _Members:
    """What the loop knows of each member.

    Attributes:
      best_params: numpy stacks [P, ...].
      progress: of each member.
      failures: of each member what went wrong, or None.
    """

    best_params: Params
    progress: list[Progress]
    failures: list[str | None]

    @classmethod
    def of(cls, snapshot: Snapshot, count: int) -> "_Members":
        """As a snapshot left them; an empty record is that of a population before step 0."""
        records = snapshot.record.get("members", [{}] * count)
        return cls(
            best_params=jax.tree.map(np.array, snapshot.best_params),
            progress=[Progress(**record) for record in records],
            failures=snapshot.record.get("failures", [None] * count),
        )

    def record(self) -> dict[str, Any]:
        return {"members": [vars(p) for p in self.progress], "failures": self.failures}

    @property
    def alive(self) -> list[int]:
        return [member for member, failure in enumerate(self.failures) if failure is None]

    def spend(self, *, train_seconds: float = 0.0, compile_seconds: float = 0.0) -> None:
        for progress in self.progress:
            progress.train_seconds += train_seconds / len(self.progress)
            progress.compile_seconds += compile_seconds / len(self.progress)

    def count(self, batch: Batch) -> None:
        """Add the examples of a batch, [B] or [P, B]."""
        examples = np.sum(np.asarray(batch.example_ids_B) >= 0, axis=-1)
        for member, number in enumerate(np.broadcast_to(examples, len(self.progress))):
            self.progress[member].examples += int(number)

    def summarise(self, window: list[StepMetrics], step: int) -> list[dict[str, float]]:
        """Means of the steps since the last summary; takes leave of members that diverged."""
        means = window_means(window)
        values: list[dict[str, float]] = [{} for _ in self.progress]
        for member in self.alive:
            own = {name: float(mean_P[member]) for name, mean_P in means.items()}
            if wrong := divergence(own, step):
                self.failures[member] = str(wrong)
            else:
                values[member] = own
        return values

    def judge(
        self, scores: Sequence[dict[str, float]], select: str, params: Params, step: int
    ) -> list[dict[str, float]]:
        """File an evaluation and keep the parameters of those that were never as good before."""
        values: list[dict[str, float]] = [{} for _ in self.progress]
        better = []
        for member in self.alive:
            progress, own = self.progress[member], scores[member]
            values[member] = {f"validation/{name}": value for name, value in own.items()}
            progress.history.append({"step": step, **own})
            if own[select] > progress.best_score:
                progress.best_score = own[select]
                better.append(member)
        self.keep(better, params, step)
        return values

    def keep(self, members: list[int], params: Params, step: int) -> None:
        """Copy the parameters of some members: steps donate their state."""
        if not members:
            return
        for member in members:
            self.progress[member].best_step = step
        for best, now in zip(
            jax.tree.leaves(self.best_params), jax.tree.leaves(params), strict=True
        ):
            best[members] = np.asarray(now)[members]

    def results(self) -> list[TrainResult | UserError]:
        return [
            UserError(failure)
            if failure is not None
            else TrainResult(jax.tree.map(lambda x: x[member].copy(), self.best_params), progress)  # noqa: B023
            for member, (progress, failure) in enumerate(
                zip(self.progress, self.failures, strict=True)
            )
        ]


def _read(
    feeds: Feed | Sequence[Feed], start: int, stop: int
) -> Iterator[tuple[Batch, ModelOutput | None]]:
    """The batches of steps ``start`` to ``stop - 1``, stacked over members with own feeds."""
    if isinstance(feeds, Feed):
        return feeds.read(start, stop)
    distinct = list(dict.fromkeys(feeds))
    which = [distinct.index(feed) for feed in feeds]

    def at(step: int) -> tuple[Batch, ModelOutput | None]:
        parts = [feed(step) for feed in distinct]
        try:
            return jax.tree.map(lambda *leaves: _stack([leaves[i] for i in which]), *parts)
        except ValueError as error:
            lengths = sorted({part[0].input_ids_BT.shape for part in parts})
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
