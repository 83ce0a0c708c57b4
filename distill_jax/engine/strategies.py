"""How the pending cells of a table are trained: one after another, or many in one step.

Cells fall into groups by what has to be compiled. A group is run ``sequential``ly, as ``vmap``
(populations of students in one step, on one device), or ``sharded`` (populations over all
devices). ``auto`` times a few steps of each. All give the same results within float tolerance;
so that they are the same to the bit after a stop too, what was chosen is kept with the runs.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

import jax

from distill_jax.core.digests import digest
from distill_jax.core.distributed import is_lead
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.engine.engine import Engine, Placed
from distill_jax.engine.interface import Run
from distill_jax.engine.merge import rows_in
from distill_jax.engine.options import Strategy
from distill_jax.engine.work import Work
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.training.checkpoint import steps_in
from distill_jax.training.ends import Ended, kept_or
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult, step_numbers
from distill_jax.training.optimizer import static_part
from distill_jax.training.population import member_of, number_table, stack_members
from distill_jax.training.state import Params, TrainState
from distill_jax.training.step import CompiledStep

Chosen = Literal["sequential", "vmap", "sharded"]
MAX_MEMBERS = 32
"""Students in one step: more take memory and give no more speed."""
TIMED_STEPS = 3
POPULATIONS = "populations"
INTERMEDIATE, END = "intermediate", "end"
CHECKPOINTS = ("checkpoint", f"{INTERMEDIATE}*-checkpoint")
ENDS = (f"{INTERMEDIATE}*.safetensors", f"{END}.safetensors")
"""Of a run's folder, as patterns: stages before the last one are numbered from the second on."""


@dataclass(frozen=True)
class Population:
    """Cells that are trained together; one that is trained alone is a population of one.

    Attributes:
      hashes: of the cells.
      strategy: ``sequential`` for a population of one.
      size: members of the compiled population; a smaller one is filled up with its last.
    """

    hashes: tuple[str, ...]
    strategy: Chosen
    size: int

    @property
    def folder(self) -> str:
        """Its name on disk."""
        return digest({"strategy": self.strategy, "hashes": self.hashes, "size": self.size})


def run_pending(engine: Engine, runs: Sequence[Run], ledger: Ledger, strategy: Strategy) -> None:
    """Run the cells that no ledger holds yet; every finished one is appended at once.

    Args:
      runs: of the whole table; of them this part's are carried out.
      ledger: of this part. What the folder's other ledgers hold counts as finished too.

    Raises:
      UserError: when a member of a population diverged, once all others are in the ledger.
    """
    share = engine.options.share
    own = [run for run in runs if share.holds(run.hash)]
    finished = rows_in(ledger.path.parent).keys()
    pending = [run for run in own if run.hash not in finished]
    done = len(own) - len(pending)
    whose = "" if share.whole else f" of part {share}"
    engine.reporter.say(f"{done} of {len(own)} runs{whose} are finished already")
    by_hash = {run.hash: run for run in own}
    diverged: list[UserError] = []
    for population in plan_populations(engine, pending, runs, strategy):
        members = [by_hash[member] for member in population.hashes]
        label = f"[{done + 1}/{len(own)}] {members[0].title}"
        if population.strategy == "sequential":
            run_alone(engine, members[0], ledger, label)
        else:
            label += f" and {len(members) - 1} more" if len(members) > 1 else ""
            diverged += run_together(engine, population, members, ledger, label)
        done += sum(member not in finished for member in population.hashes)
        engine.stop.check()
    if diverged:
        raise diverged[0]


def populations_folder(engine: Engine) -> Path:
    """Where the populations of this part are; each part makes its own."""
    return engine.folder / f"{POPULATIONS}{engine.options.share.suffix}"


def group_of(run: Run) -> str:
    """Digest of what two runs must have in common to be trained in one compiled step.

    Where batches have several lengths, the order of the data decides which step has which, so
    only runs with one order go together.
    """
    works = run.works
    stages = [
        {
            "config": work.config,
            "structure": work.objective.structure,
            "teachers": repr(work.objective.teachers),
            "optimizer": static_part(work.optimizer),
            "precision": work.precision,
            "batch": (work.batch_size, work.lengths),
            "loop": work.loop,
            **({"pruning": work.pruning.static} if work.pruning else {}),
            **({"recipe": str(work.recipe)} if work.recipe else {}),
        }
        for work in works
    ]
    one_shape = all(len(work.lengths) == 1 for work in works)
    order = None if one_shape else works[-1].order
    return digest({"stages": stages, "order": order, **run.together})


def plan_populations(
    engine: Engine, pending: Sequence[Run], runs: Sequence[Run], strategy: Strategy
) -> list[Population]:
    """Populations of the pending cells; those that were begun before come first, as they were.

    The plan is on disk before the first step, so that a table that was killed goes on with the
    very same populations.
    """
    folder = populations_folder(engine)
    waiting = {run.hash: run for run in pending}
    known = {run.hash for run in runs}  # a population of another table's cells is left alone
    populations = [
        population
        for population in _read_populations(folder)
        if known.issuperset(population.hashes) and not waiting.keys().isdisjoint(population.hashes)
    ]
    begun = {member for population in populations for member in population.hashes}
    groups: dict[str, list[Run]] = {}
    resumes = engine.options.resume != "never"
    for run in pending:
        if run.hash in begun:
            continue
        if resumes and is_begun(engine.run_folder(run.hash)):  # by itself, and so it goes on
            populations.append(Population((run.hash,), "sequential", 1))
        else:
            groups.setdefault(group_of(run), []).append(run)
    for key, members in groups.items():
        chosen = _choose(engine, key, members, strategy)
        populations += _cut([member.hash for member in members], chosen)
    for number, population in enumerate(populations):
        if population.strategy != "sequential":
            facts = {"number": number, **vars(population)}
            write_atomic(folder / population.folder / "crew.json", json.dumps(facts, indent=1))
    return populations


def run_alone(engine: Engine, run: Run, ledger: Ledger, label: str) -> None:
    """The run by itself, from its start or its checkpoint to its row."""
    outputs = run.outputs()
    started = time.perf_counter()
    params = run.start()
    *before, last = run.works
    for number, work in enumerate(before, 1):
        name = stage_name(number)
        params = _stage_alone(engine, name, work, params, outputs, f"{label}, {name}").params
    result = _stage_alone(engine, END, last, params, outputs, label)
    row = run.finish(engine, result, time.perf_counter() - started)
    _file(engine, run, row, ledger, label)


def stage_name(number: int) -> str:
    """Of the files of a stage before the last, counted from 1."""
    return INTERMEDIATE if number == 1 else f"{INTERMEDIATE}-{number}"


def _stage_alone(
    engine: Engine,
    name: str,
    work: Work,
    params: Params,
    outputs: TeacherOutputs | None,
    label: str,
) -> TrainResult:
    def train() -> list[TrainResult]:
        return [engine.train(work, params, teacher=outputs, label=label)]

    path = engine.run_folder(work.identity.hash) / f"{name}.safetensors"
    [end] = kept_or(path, train, resume=engine.options.resume, say=engine.reporter.say)
    return ended_well(end)


def run_together(
    engine: Engine, population: Population, members: Sequence[Run], ledger: Ledger, label: str
) -> list[UserError]:
    """A population, stage by stage, to a row for each member that has none yet.

    Returns:
      What went wrong with members that diverged; they are tried again by the next call.
    """
    started = time.perf_counter()
    folder = populations_folder(engine) / population.folder
    filled = [*members, *[members[-1]] * (population.size - len(members))]
    outputs = [run.outputs() for run in filled]
    params = [run.start() for run in filled]
    *before, last = zip(*[run.works for run in filled], strict=True)
    placed: Placed = "sharded" if population.strategy == "sharded" else "vmap"

    def stage(
        number: int, works: Sequence[Work], starts: Sequence[Params]
    ) -> list[TrainResult | UserError]:
        def train() -> list[TrainResult | UserError]:
            return engine.train_population(
                works,
                starts,
                teachers=outputs,
                placed=placed,
                folder=folder / f"checkpoint-{number}",
                label=label,
            )

        return kept_or(
            folder / f"stage-{number}.safetensors",
            train,
            resume=engine.options.resume,
            say=engine.reporter.say,
        )

    for number, works in enumerate(before):
        params = [ended_well(end).params for end in stage(number, works, params)]
    results = stage(len(before), last, params)[: len(members)]
    seconds = (time.perf_counter() - started) / len(members)
    finished, diverged = ledger.finished_hashes(), []
    for run, result in zip(members, results, strict=True):
        if isinstance(result, UserError):
            diverged.append(UserError(f"{run.title}: {result}"))
        elif run.hash not in finished:
            _file(engine, run, run.finish(engine, result, seconds), ledger, run.title)
    rmtree(folder, ignore_errors=True)
    return diverged


def ended_well(end: Ended) -> TrainResult:
    """The result of a stage without whose end nothing can go on."""
    if isinstance(end, UserError):
        raise end
    return end


def _file(engine: Engine, run: Run, row: LedgerRow, ledger: Ledger, label: str) -> None:
    """Append a finished run, then drop its checkpoints."""
    if is_lead():
        ledger.append(row)
    clear_checkpoints(engine.run_folder(run.hash))
    engine.reporter.say(f"{label}: {run.told(row)}, {row.seconds['total']:.1f} s")


def clear_checkpoints(folder: Path) -> None:
    """Drop what a run needed to go on, now that it stands in the ledger."""
    if not is_lead():
        return
    for left_over in _matching(folder, CHECKPOINTS):
        rmtree(left_over, ignore_errors=True)
    for left_over in _matching(folder, ENDS):
        left_over.unlink(missing_ok=True)


def is_begun(folder: Path) -> bool:
    """Whether a run's folder holds what it can go on from, by itself."""
    return any(map(steps_in, _matching(folder, CHECKPOINTS))) or bool(_matching(folder, ENDS))


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _cut(hashes: Sequence[str], strategy: Chosen) -> list[Population]:
    """Populations of one size, as few as can be: one size is one compilation."""
    if strategy == "sequential":
        return [Population((member,), strategy, 1) for member in hashes]
    count = -(-len(hashes) // MAX_MEMBERS)
    size = -(-len(hashes) // count)
    cuts = range(0, len(hashes), size)
    return [Population(tuple(hashes[cut : cut + size]), strategy, size) for cut in cuts]


def _read_populations(folder: Path) -> list[Population]:
    """The populations that were begun, in their order."""
    found = []
    for path in folder.glob("*/crew.json"):
        try:
            facts = json.loads(path.read_text())
            population = Population(tuple(facts["hashes"]), facts["strategy"], facts["size"])
            found.append((facts["number"], population))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}); delete its folder") from error
    return [population for _, population in sorted(found, key=lambda pair: pair[0])]


def _choose(engine: Engine, key: str, members: Sequence[Run], strategy: Strategy) -> Chosen:
    """The strategy of a group: as asked, or the fastest, timed once and kept."""
    options = engine.options
    if options.parallel == "pmap" or options.fsdp > 1 or jax.process_count() > 1:
        if strategy in ("vmap", "sharded"):
            raise UserError(
                f"--strategy {strategy} trains many students at once, each whole on its device; "
                "--parallel pmap, --fsdp and several processes are for one student at a time"
            )
        return "sequential"
    if strategy != "auto":
        return strategy
    if len(members) == 1 or _by_rows(engine, members[0]):
        return "sequential"
    path = populations_folder(engine) / "choices.json"
    try:
        choices = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it") from error
    if key not in choices:
        seconds = time_strategies(engine, members)
        choices[key] = min(seconds, key=lambda name: seconds[name])
        told = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in seconds.items())
        engine.reporter.say(f"a step of a student takes: {told}; chosen: {choices[key]}")
        write_atomic(path, json.dumps(choices, indent=1))
    return choices[key]


def _by_rows(engine: Engine, run: Run) -> bool:
    """Whether the run touches few rows of large tables at a step: many of them at once would be as
    many whole tables."""
    work = run.works[-1]
    return work.items is not None and engine.by_rows(work, run.start()).by_rows is not None


def time_strategies(engine: Engine, members: Sequence[Run]) -> dict[Chosen, float]:
    """Seconds that a step takes for one student, by strategy; compilation does not count."""
    count = _cut([run.hash for run in members], "vmap")[0].size
    members = list(members)[:count]
    starts = [run.works[-1].adapted(run.start()) for run in members]
    works = [work for work, *_ in starts]
    outputs = [run.outputs() for run in members]
    states = [engine.new_state(work, own) for work, own, _ in starts]
    stacked = stack_members(states)  # on the host: a timed step donates what it is given
    batches = [work.feed(said)(0) for work, said in zip(works, outputs, strict=True)]
    first = works[0]
    layout = engine.layout
    alone = step_numbers(first.objective, first.optimizer, first.seed, 0, first.steps)
    smaller, start, _ = engine.as_trained(members[0].works[-1], members[0].start())
    given = (*layout.put_batch(*smaller.feed(outputs[0])(0)), layout.put_numbers(alone))
    state = layout.put_state(engine.new_state(smaller, start))
    seconds: dict[Chosen, float] = {"sequential": _timed(engine.step(smaller), state, given)}
    names: list[Placed] = ["vmap", "sharded"] if engine.mesh.size > 1 else ["vmap"]
    table = number_table(
        [work.objective for work in works],
        [work.optimizer for work in works],
        [work.seed for work in works],
        first.steps,
    )
    for name in names:
        engine.check_stop()
        step = engine.population_step(works, outputs, name)
        place = step.placement
        numbers = place.fill(member_of(table, 0))
        if step.shared_batch:
            batch = place.put_shared(batches[0])
        else:
            batch = place.put_members(stack_members(batches))
        state = place.put_members(stacked)
        seconds[name] = _timed(step, state, (*batch, numbers)) / count
    return seconds


def _timed(step: CompiledStep, state: TrainState, rest: tuple[Any, ...]) -> float:
    """Seconds of a step after the first."""
    state, _ = jax.block_until_ready(step(state, *rest))
    started = time.perf_counter()
    for _ in range(TIMED_STEPS):
        state, metrics = step(state, *rest)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - started) / TIMED_STEPS
