"""Where experiments are found by name."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill_jax.core.errors import UserError, nearest
from distill_jax.engine.parts import Part, ledgers_in

if TYPE_CHECKING:
    from rich.console import Console

    from distill_jax.tables.ledger import LedgerRow
    from distill_jax.tables.spec import TableSpec

ROOTS = (Path("results"), Path("experiments/results"))
"""Searched in this order: what was run here, then what came with the code."""
LEDGER = "ledger.jsonl"


def results_folder(name: str) -> Path:
    """The folder of an experiment: a path, or a name under ``results`` or ``experiments/results``.

    Raises:
      UserError: if there is none with a ledger, with the nearest name that has one.
    """
    for folder in (Path(name), *(root / name for root in ROOTS)):
        if (folder / LEDGER).is_file():
            return folder
        if ledgers_in(folder):
            raise UserError(
                f"{folder} has ledgers of parts only; merge them first: "
                f"distill-jax ledger merge {folder} --into {folder}"
            )
    known = sorted({path.parent.name for root in ROOTS for path in root.glob(f"*/{LEDGER}")})
    guess = nearest(name, known)
    hint = f" Did you mean {guess!r}?" if guess else ""
    among = f" Experiments here: {', '.join(known)}." if known else ""
    raise UserError(f"no ledger at {name}, nor of an experiment of this name.{hint}{among}")


def ledger_file(name: str) -> Path:
    """The ledger of an experiment; the path of a ledger is itself."""
    return Path(name) if Path(name).is_file() else results_folder(name) / LEDGER


def open_console() -> "Console":
    """Make JAX ready, with the processes that belong to this one; of several one talks."""
    from rich.console import Console

    from distill_jax.core.compiled import keep_compiled_programs
    from distill_jax.core.distributed import is_lead, join_processes

    join_processes()
    keep_compiled_programs()
    return Console(quiet=not is_lead())


def conclude(
    spec: "TableSpec",
    rows: Sequence["LedgerRow"],
    folder: Path,
    console: "Console",
    part: Part = Part(),  # noqa: B008
) -> None:
    """Write and print the outputs of a table, then the paths; of a part only its ledger's."""
    from distill_jax.core.distributed import is_lead
    from distill_jax.tables.build import table_of
    from distill_jax.tables.outputs import show, write_outputs

    if not is_lead():
        return
    if part.whole:
        table = table_of(spec, rows)
        paths = write_outputs(table, folder)
        show(table, console)
    else:
        paths = []
        console.print(
            f"part {part} is done; when all are: distill-jax ledger merge {folder} --into {folder}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for path in (*paths, folder / part.ledger):
        print(path)
    sys.stdout.flush()
