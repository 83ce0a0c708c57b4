"""Runs a table: what is not finished yet is trained, every finished run is a ledger row at once."""

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from distill_jax.core.distributed import is_lead, wait_for_all
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.engine.engine import Engine
from distill_jax.engine.interface import RunT, Task
from distill_jax.engine.merge import check_merged, rows_in
from distill_jax.engine.options import DEFAULTS, RunOptions, Strategy, TrackTo
from distill_jax.engine.parts import Part, only_process
from distill_jax.engine.progress import Reporter
from distill_jax.engine.resume import Before, check_resumable, keep_settings
from distill_jax.engine.strategies import run_pending
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.outputs import SPEC
from distill_jax.tables.spec import TableSpec
from distill_jax.training.interrupt import StopRequest


def run_table(
    task: Task[RunT],
    folder: Path,
    reporter: Reporter,
    *,
    track: TrackTo = "none",
    strategy: Strategy = "auto",
    options: RunOptions = DEFAULTS,
) -> tuple[TableSpec, list[LedgerRow]]:
    """Run what is not finished yet; returns the table's description and the ledger's rows.

    Of a table in parts (``options.part``) one part is run, and its rows are returned.

    Args:
      task: with the sweep that declares the table.
      folder: of the ledger, ``table.json`` and the runs.
      track: where learning curves go.
      strategy: see ``strategies``.
      options: how runs are carried out.

    Raises:
      UserError: for anything the user can mend, before anything is trained where possible.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    started = time.perf_counter()
    entries = task.sweep.entries()  # what is wrong with a table is said before a folder is made
    with StopRequest(reporter.say) as stop, ExitStack() as held:
        engine = Engine(folder / "runs", reporter, stop, track if is_lead() else "none", options)
        ledger = _open_ledger(folder, options.share)
        finished = rows_in(folder)
        wait_for_all("the ledger is read")  # before the lead adds to it
        if is_lead():  # of several processes in one run, one stands for all
            held.enter_context(only_process(folder / "runs", options.share))
        before = Before(folder, list(finished.values()), options.allow_change)
        if options.resume == "must":
            check_resumable(folder, list(finished.values()))
        task.prepare(engine, entries)
        known = [(entry.where, task.known(entry.cell)) for entry in entries]
        before.refuse_early((where, settings) for where, settings in known if settings)
        task.raise_teachers(ledger)
        runs: dict[str, RunT] = {}
        places = []
        for entry in entries:
            run = task.run(entry)
            runs.setdefault(run.hash, run)  # one run may stand at several places
            places.append(replace(entry, cell=run.cell).place)
        spec = task.described(task.sweep.spec(places))
        configs = {hash: run.config for hash, run in runs.items()}
        before.refuse([(place, configs[place.hash]) for place in places])
        keep_settings(folder, configs)
        write_atomic(folder / SPEC, spec.to_json() + "\n")
        share = options.share
        pending = [run for run in runs.values() if share.holds(run.hash)]
        task.self_check([run for run in pending if run.hash not in finished])
        run_pending(engine, list(runs.values()), ledger, strategy)
    wait_for_all("the table is whole")
    reporter.say(f"done in {time.perf_counter() - started:.0f} s")
    return spec, ledger.rows()


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
