"""How the pending cells of a table are trained: one after another, or many in one step."""

from collections.abc import Sequence
from typing import Literal

from distill_jax.sweeps.ledger import Ledger, LedgerRow
from distill_jax.sweeps.runs import Planned, clear_checkpoints, run_cell
from distill_jax.sweeps.supplies import Supplies

Strategy = Literal["auto", "sequential", "vmap", "sharded"]


def run_pending(
    supplies: Supplies, planned: Sequence[Planned], ledger: Ledger, strategy: Strategy
) -> None:
    """Run the cells that the ledger does not hold yet; every finished one is appended at once."""
    finished = ledger.finished_hashes()
    pending = [each for each in planned if each.cell.hash not in finished]
    done = len(planned) - len(pending)
    supplies.engine.reporter.say(f"{done} of {len(planned)} runs are finished already")
    for number, each in enumerate(pending, done + 1):
        label = f"[{number}/{len(planned)}] {each.title}"
        run_one(supplies, each, planned, ledger, label)


def run_one(
    supplies: Supplies, each: Planned, planned: Sequence[Planned], ledger: Ledger, label: str
) -> None:
    """The cell by itself, from its start or its checkpoint to its row."""
    outputs = supplies.outputs(each, planned)
    row = run_cell(
        supplies.engine, supplies.experiment, each, outputs, supplies.teacher_on_test(each), label
    )
    file(supplies, row, ledger, label)
    supplies.engine.stop.check()


def file(supplies: Supplies, row: LedgerRow, ledger: Ledger, label: str) -> None:
    """Append a finished run, then drop its checkpoints."""
    ledger.append(row)
    clear_checkpoints(supplies.engine.folder / row.hash)
    supplies.engine.reporter.say(
        f"{label}: test accuracy {100 * row.metrics['test/accuracy']:.1f}%, "
        f"{row.seconds['total']:.0f} s"
    )
