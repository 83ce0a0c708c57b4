"""Runs a sweep: what is not finished yet is trained, every finished run is a ledger row at once."""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distill_jax.core.distributed import is_lead, wait_for_all
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.core.mesh import check_batch_size
from distill_jax.core.types import Capture
from distill_jax.objectives.plugins import load_plugin, plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.sweeps.cells import Cell, config_of
from distill_jax.sweeps.engine import Engine
from distill_jax.sweeps.ledger import Ledger, LedgerRow
from distill_jax.sweeps.merge import check_merged, rows_in
from distill_jax.sweeps.models import check_student
from distill_jax.sweeps.options import DEFAULTS, RunOptions
from distill_jax.sweeps.outputs import SPEC
from distill_jax.sweeps.parts import Part, only_process
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.resume import Before, check_resumable, keep_settings
from distill_jax.sweeps.runs import Planned
from distill_jax.sweeps.self_checks import run_self_checks
from distill_jax.sweeps.spec import Place, TableSpec, Where
from distill_jax.sweeps.strategies import Strategy, run_pending
from distill_jax.sweeps.supplies import Supplies
from distill_jax.sweeps.sweep import Entry, Sweep
from distill_jax.sweeps.track import TrackTo
from distill_jax.sweeps.yardsticks import measure
from distill_jax.training.interrupt import StopRequest


def run_sweep(
    sweep: Sweep,
    folder: Path,
    reporter: Reporter,
    *,
    plugin: Path | None = None,
    track: TrackTo = "tensorboard",
    strategy: Strategy = "auto",
    options: RunOptions = DEFAULTS,
) -> tuple[TableSpec, list[LedgerRow]]:
    """Run what is not finished yet; returns the table's description and the ledger's rows.

    Of a table in parts (``options.part``) one part is run, and its rows are returned.

    Args:
      folder: of the ledger, ``table.json`` and the runs.
      plugin: a Python file with losses of the user's.
      track: where learning curves go.
      strategy: see ``strategies``.
      options: how runs are carried out.

    Raises:
      UserError: for anything the user can mend, before anything is trained where possible.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    started = time.perf_counter()
    if plugin is not None:
        load_plugin(plugin)
    entries = sweep.entries()
    with StopRequest(reporter.say) as stop, ExitStack() as held:
        engine = Engine(folder / "runs", reporter, stop, track if is_lead() else "none", options)
        supplies = Supplies(engine, sweep.name)
        ledger = _open_ledger(folder, options.share)
        finished = rows_in(folder)
        wait_for_all("the ledger is read")  # before the lead adds to it
        if is_lead():  # of several processes in one run, one stands for all
            held.enter_context(only_process(folder / "runs", options.share))
        before = Before(folder, list(finished.values()), options.allow_change)
        if options.resume == "must":
            check_resumable(folder, list(finished.values()))
        _check(entries, supplies)
        before.refuse_early(_known(entries, supplies))
        for cell in _distinct(entries):
            engine.heed()
            supplies.raise_teacher(cell, ledger)
        planned = _bind(entries, supplies)
        spec = sweep.spec(
            [Place(e.row, e.group, e.cell.seed, p.cell.hash, e.candidate) for e, p in planned],
            supplies.teacher_places(entries),
            measure(entries, supplies, ledger) if sweep.yardsticks else (),
        )
        settings = {p.cell.hash: config_of(p.cell, p.config) for _, p in planned}
        before.refuse([(place, settings[place.hash]) for place in spec.places])
        keep_settings(folder, settings)
        write_atomic(folder / SPEC, spec.to_json() + "\n")
        everything = list({p.cell.hash: p for _, p in planned}.values())
        share = options.share
        run_self_checks(
            [p for p in everything if share.holds(p.cell.hash) and p.cell.hash not in finished],
            lambda each: supplies.widest(each, everything).everything,
            reporter,
            stop.check,
        )
        run_pending(supplies, everything, ledger, strategy)
    wait_for_all("the table is whole")
    reporter.say(f"done in {time.perf_counter() - started:.0f} s")
    return spec, ledger.rows()


def _check(entries: Sequence[Entry], supplies: Supplies) -> None:
    """Every objective fits every student and teacher; says what was decided for them."""
    said = set()
    for cell in _distinct(entries):
        _, pretrained = supplies.of(cell)
        plugin_digest(*_objectives(cell))
        shape = check_student(cell, pretrained.config).shape
        for training in (cell.teacher.training, cell.training):
            engine = supplies.engine
            check_batch_size(training.batch_size, engine.mesh, engine.options.accumulate)
        for objective in _objectives(cell):
            resolved = resolve(objective, shape, pretrained.config.shape)
            _check_placebo(cell, objective, resolved)
            for note in resolved.notes:
                if (cell.student, note) not in said:
                    supplies.engine.reporter.say(f"{cell.student}: {note}")
                said.add((cell.student, note))


def _objectives(cell: Cell) -> list[str]:
    """Of its last stage and of the one before."""
    return [cell.objective, *([cell.intermediate.objective] if cell.intermediate else [])]


def _check_placebo(cell: Cell, objective: str, resolved: ResolvedObjective) -> None:
    """Raises ``UserError`` where a placebo would change nothing, or more than the teacher's words.

    A teacher's hidden states of another text have another length.
    """
    if cell.placebo and not resolved.needs_teacher:
        raise UserError(f"a placebo for {objective!r}, which listens to no teacher")
    if cell.placebo and resolved.teacher_capture != Capture():
        raise UserError(
            f"a placebo for {objective!r}: the words that are given to other examples are logits, "
            "and this objective reads more"
        )


def _known(entries: Sequence[Entry], supplies: Supplies) -> Iterator[tuple[Where, dict[str, Any]]]:
    """Where every run stands, and its settings as far as they are known without its teacher."""
    for entry in entries:
        task, pretrained = supplies.of(entry.cell)
        cell = dataclasses.replace(entry.cell, data_digest=task.digest)
        config = config_of(cell, check_student(cell, pretrained.config))
        yield entry.where, config


def _distinct(entries: Sequence[Entry]) -> list[Cell]:
    """The cells that differ in more than the seed."""
    cells: dict[str, Cell] = {}
    for entry in entries:
        cell = dataclasses.replace(entry.cell, seed=0)
        cells.setdefault(repr(cell), cell)
    return list(cells.values())


def _bind(entries: Sequence[Entry], supplies: Supplies) -> list[tuple[Entry, Planned]]:
    """Every entry with its cell's contents known."""
    first: dict[str, Planned] = {}
    planned = []
    for entry in entries:
        cell = entry.cell
        task, _ = supplies.of(cell)
        teacher, _ = supplies.teacher(cell)
        config = check_student(cell, teacher.pretrained.config)
        objective = resolve(cell.objective, config.shape, teacher.config.shape)
        before = None
        if cell.intermediate is not None:
            before = resolve(cell.intermediate.objective, config.shape, teacher.config.shape)
        cell = dataclasses.replace(
            cell,
            plugin=plugin_digest(*_objectives(cell)),
            teacher_dtype=_dtype(cell, objective, before),
            data_digest=task.digest,
            teacher_digest=teacher.digest,
        )
        bound = Planned(cell, entry.label, entry.group, task, teacher, config, objective, before)
        planned.append((entry, first.setdefault(cell.hash, bound)))
    return planned


def _dtype(cell: Cell, *objectives: ResolvedObjective | None) -> str:
    """How the teacher's outputs are kept, as far as it is read: the dtype of token-level ones, how
    many logits where not all, and in what they were computed."""
    cached = cell.teacher.outputs == "cache"
    tokenwise = any(o is not None and o.teacher_capture != Capture() for o in objectives)
    kept: str = cell.teacher.cache_dtype if cached and tokenwise else "float32"
    if cached and cell.teacher.cache_top_k is not None:
        kept = f"{kept}, top {cell.teacher.cache_top_k}"
    return kept if cell.teacher.precision == "f32" else f"{kept} of bfloat16"


def _open_ledger(folder: Path, part: Part) -> Ledger:
    """The part's ledger, found to be writable and whole before anything is trained.

    Raises:
      UserError: also when the whole table is asked for, but its rows lie in the parts' ledgers.
    """
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    ledger = Ledger(folder / part.ledger)
    ledger.rows()
    if part.whole:
        check_merged(folder)
    return ledger
