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
from distill_jax.sweeps.engine import Placed, Work
from distill_jax.sweeps.ledger import Ledger, LedgerRow
from distill_jax.sweeps.merge import rows_in
from distill_jax.sweeps.models import params_of_student
from distill_jax.sweeps.runs import (
    Planned,
    clear_checkpoints,
    ended_well,
    finish_run,
    is_begun,
    run_cell,
)
from distill_jax.sweeps.supplies import Supplies
from distill_jax.training.ends import kept_or
from distill_jax.training.loop import TrainResult, step_numbers
from distill_jax.training.optimizer import static_part
from distill_jax.training.population import number_table, stack_members
from distill_jax.training.state import Params, TrainState
from distill_jax.training.step import CompiledStep

Strategy = Literal["auto", "sequential", "vmap", "sharded"]
MAX_MEMBERS = 32
"""Students in one step: more take memory and give no more speed."""
TIMED_STEPS = 3
POPULATIONS = "populations"


@dataclass(frozen=True)
class Crew:
    """Cells that are trained together.

    Attributes:
      hashes: of the cells.
      strategy: ``sequential`` for a crew of one.
      size: members of the compiled population; a smaller crew is filled up with its last.
    """

    hashes: tuple[str, ...]
    strategy: Literal["sequential", "vmap", "sharded"]
    size: int

    @property
    def folder(self) -> str:
        """Its name on disk."""
        return digest({"strategy": self.strategy, "hashes": self.hashes, "size": self.size})


def run_pending(
    supplies: Supplies, planned: Sequence[Planned], ledger: Ledger, strategy: Strategy
) -> None:
    """Run the cells that no ledger holds yet; every finished one is appended at once.

    Args:
      planned: the whole table; of it this part's cells are run.
      ledger: of this part. What the folder's other ledgers hold counts as finished too.

    Raises:
      UserError: when a member of a population diverged, once all others are in the ledger.
    """
    share = supplies.engine.options.share
    own = [each for each in planned if share.holds(each.cell.hash)]
    finished = rows_in(ledger.path.parent).keys()
    pending = [each for each in own if each.cell.hash not in finished]
    done = len(own) - len(pending)
    whose = "" if share.whole else f" of part {share}"
    supplies.engine.reporter.say(f"{done} of {len(own)} runs{whose} are finished already")
    by_hash = {each.cell.hash: each for each in own}
    diverged: list[UserError] = []
    for crew in plan_crews(supplies, pending, planned, strategy):
        members = [by_hash[member] for member in crew.hashes]
        label = f"[{done + 1}/{len(own)}] {members[0].title}"
        if crew.strategy == "sequential":
            run_alone(supplies, members[0], planned, ledger, label)
        else:
            label += f" and {len(members) - 1} more" if len(members) > 1 else ""
            diverged += run_together(supplies, crew, members, planned, ledger, label)
        done += sum(member not in finished for member in crew.hashes)
        supplies.engine.stop.check()
    if diverged:
        raise diverged[0]


def populations(supplies: Supplies) -> Path:
    """Where the populations of this part are; each part makes its own."""
    return supplies.engine.folder / f"{POPULATIONS}{supplies.engine.options.share.suffix}"


def group_of(each: Planned) -> str:
    """Digest of what two cells must have in common to be trained in one compiled step.

    Where batches have several lengths, the order of the data decides which step has which, so
    only cells with one order go together.
    """
    works = each.works
    stages = [
        {
            "structure": work.objective.structure,
            "optimizer": static_part(work.training.optimizer),
            "batch": (work.training.batch_size, work.lengths),
            "loop": work.loop,
        }
        for work in works
    ]
    one_shape = all(len(work.lengths) == 1 for work in works)
    order = None if one_shape else (each.cell.seed, each.task.digest, each.teacher.digest)
    return digest(
        {
            "config": each.config,
            "precision": each.cell.precision,
            "stages": stages,
            "evaluation": each.task.tokens_digest,
            "live": each.cell.teacher.outputs == "live",
            "order": order,
        }
    )


def plan_crews(
    supplies: Supplies, pending: Sequence[Planned], planned: Sequence[Planned], strategy: Strategy
) -> list[Crew]:
    """Crews of the pending cells; those that were begun before come first, as they were.

    The plan is on disk before the first step, so that a table that was killed goes on with the
    very same populations.
    """
    folder = populations(supplies)
    waiting = {each.cell.hash: each for each in pending}
    known = {each.cell.hash for each in planned}  # a crew of another table's cells is left alone
    crews = [
        crew
        for crew in _read_crews(folder)
        if known.issuperset(crew.hashes) and not waiting.keys().isdisjoint(crew.hashes)
    ]
    begun = {member for crew in crews for member in crew.hashes}
    groups: dict[str, list[Planned]] = {}
    for each in pending:
        if each.cell.hash in begun:
            continue
        if supplies.engine.options.resume != "never" and is_begun(
            supplies.engine.folder / each.cell.hash
        ):  # by itself, and so it goes on
            crews.append(Crew((each.cell.hash,), "sequential", 1))
        else:
            groups.setdefault(group_of(each), []).append(each)
    for key, members in groups.items():
        chosen = _choose(supplies, key, members, planned, strategy)
        crews += _cut([member.cell.hash for member in members], chosen)
    for number, crew in enumerate(crews):
        if crew.strategy != "sequential":
            facts = {"number": number, **vars(crew)}
            write_atomic(folder / crew.folder / "crew.json", json.dumps(facts, indent=1))
    return crews


def run_alone(
    supplies: Supplies, each: Planned, planned: Sequence[Planned], ledger: Ledger, label: str
) -> None:
    """The cell by itself, from its start or its checkpoint to its row."""
    outputs = supplies.outputs(each, planned)
    on_test_NC = supplies.teacher_on_test(each)
    row = run_cell(supplies.engine, supplies.experiment, each, outputs, on_test_NC, label)
    _file(supplies, row, ledger, label)


def run_together(
    supplies: Supplies,
    crew: Crew,
    members: Sequence[Planned],
    planned: Sequence[Planned],
    ledger: Ledger,
    label: str,
) -> list[UserError]:
    """A population, stage by stage, to a row for each member that has none yet.

    Returns:
      What went wrong with members that diverged; they are tried again by the next call.
    """
    engine, started = supplies.engine, time.perf_counter()
    folder = populations(supplies) / crew.folder
    filled = [*members, *[members[-1]] * (crew.size - len(members))]
    outputs = [supplies.outputs(each, planned) for each in filled]
    params = [params_of_student(each.cell, each.teacher.pretrained) for each in filled]
    *before, last = zip(*[each.works for each in filled], strict=True)
    placed: Placed = "sharded" if crew.strategy == "sharded" else "vmap"

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
    finished = ledger.finished_hashes()
    for each, result in zip(members, results, strict=True):
        if isinstance(result, UserError) or each.cell.hash in finished:
            continue
        on_test_NC = supplies.teacher_on_test(each)
        row = finish_run(engine, supplies.experiment, each, result, on_test_NC, seconds)
        _file(supplies, row, ledger, each.title)
    rmtree(folder, ignore_errors=True)
    return [
        UserError(f"{each.title}: {result}")
        for each, result in zip(members, results, strict=True)
        if isinstance(result, UserError)
    ]


def _file(supplies: Supplies, row: LedgerRow, ledger: Ledger, label: str) -> None:
    """Append a finished run, then drop its checkpoints."""
    if is_lead():
        ledger.append(row)
    clear_checkpoints(supplies.engine.folder / row.hash)
    supplies.engine.reporter.say(
        f"{label}: test accuracy {100 * row.metrics['test/accuracy']:.1f}%, "
        f"{row.seconds['total']:.1f} s"
    )


def _cut(hashes: Sequence[str], strategy: Literal["sequential", "vmap", "sharded"]) -> list[Crew]:
    """Crews of one size, as few as can be: one size is one compilation."""
    if strategy == "sequential":
        return [Crew((member,), strategy, 1) for member in hashes]
    count = -(-len(hashes) // MAX_MEMBERS)
    size = -(-len(hashes) // count)
    cuts = range(0, len(hashes), size)
    return [Crew(tuple(hashes[cut : cut + size]), strategy, size) for cut in cuts]


def _read_crews(folder: Path) -> list[Crew]:
    """The populations that were begun, in their order."""
    found = []
    for path in folder.glob("*/crew.json"):
        try:
            facts = json.loads(path.read_text())
            crew = Crew(tuple(facts["hashes"]), facts["strategy"], facts["size"])
            found.append((facts["number"], crew))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}); delete its folder") from error
    return [crew for _, crew in sorted(found, key=lambda pair: pair[0])]


def _choose(
    supplies: Supplies,
    key: str,
    members: Sequence[Planned],
    planned: Sequence[Planned],
    strategy: Strategy,
) -> Literal["sequential", "vmap", "sharded"]:
    """The strategy of a group: as asked, or the fastest, timed once and kept."""
    options = supplies.engine.options
    if options.parallel == "pmap" or options.fsdp > 1 or jax.process_count() > 1:
        if strategy in ("vmap", "sharded"):
            raise UserError(
                f"--strategy {strategy} trains many students at once, each whole on its device; "
                "--parallel pmap, --fsdp and several processes are for one student at a time"
            )
        return "sequential"
    if strategy != "auto":
        return strategy
    if len(members) == 1:
        return "sequential"
    path = populations(supplies) / "choices.json"
    try:
        choices = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it") from error
    if key not in choices:
        seconds = time_strategies(supplies, members, planned)
        choices[key] = min(seconds, key=lambda name: seconds[name])
        told = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in seconds.items())
        supplies.engine.reporter.say(f"a step of a student takes: {told}; chosen: {choices[key]}")
        write_atomic(path, json.dumps(choices, indent=1))
    return choices[key]


def time_strategies(
    supplies: Supplies, members: Sequence[Planned], planned: Sequence[Planned]
) -> dict[Literal["sequential", "vmap", "sharded"], float]:
    """Seconds that a step takes for one student, by strategy; compilation does not count."""
    engine = supplies.engine
    count = _cut([each.cell.hash for each in members], "vmap")[0].size
    members = list(members)[:count]
    works = [each.works[-1] for each in members]
    outputs = [supplies.outputs(each, planned) for each in members]
    states = [
        engine.new_state(work, params_of_student(each.cell, each.teacher.pretrained))
        for work, each in zip(works, members, strict=True)
    ]
    stacked = stack_members(states)  # on the host: a timed step donates what it is given
    batches = [work.feed(said)(0) for work, said in zip(works, outputs, strict=True)]
    first = works[0]
    optimizer = first.training.optimizer
    alone = step_numbers(first.objective, optimizer, first.cell.seed, 0, first.steps)
    one = engine.step(first)
    seconds: dict[Literal["sequential", "vmap", "sharded"], float] = {
        "sequential": _timed(
            one,
            engine.layout.put_state(states[0]),
            (*engine.layout.put_batch(*batches[0]), engine.layout.put_numbers(alone)),
        )
    }
    names: list[Placed] = ["vmap", "sharded"] if engine.mesh.size > 1 else ["vmap"]
    objectives = [work.objective for work in works]
    optimizers = [work.training.optimizer for work in works]
    seeds = [work.cell.seed for work in works]
    for name in names:
        engine.heed()
        step = engine.population_step(works, outputs, name)
        place = step.placement
        table = place.fill(number_table(objectives, optimizers, seeds, first.steps), axis=1)
        numbers = jax.tree.map(lambda values: values[0], table)
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
