"""Where experiments are found by name."""

from pathlib import Path

from distill_jax.core.errors import UserError, nearest

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
    known = sorted({path.parent.name for root in ROOTS for path in root.glob(f"*/{LEDGER}")})
    guess = nearest(name, known)
    hint = f" Did you mean {guess!r}?" if guess else ""
    among = f" Experiments here: {', '.join(known)}." if known else ""
    raise UserError(f"no ledger at {name}, nor of an experiment of this name.{hint}{among}")


def ledger_file(name: str) -> Path:
    """The ledger of an experiment; the path of a ledger is itself."""
    return Path(name) if Path(name).is_file() else results_folder(name) / LEDGER
