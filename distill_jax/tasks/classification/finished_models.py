"""A finished student as a teacher: ``run:HASH``, found in the tables that were run here."""

from __future__ import annotations

import re
from pathlib import Path

from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.tables.names import MODEL, RUNS
from distill_jax.tasks.classification.cells import RUN

RESULTS = Path("results")
_HASH = re.compile(r"[0-9a-f]{6,16}")


def located(name: str) -> Path | None:
    """The folder of a model that a teacher's name says; None for a name that is no folder's.

    Args:
      name: ``run:`` and a run's hash (its first six characters or more, of a table under
        ``results``) or a run's folder; or the folder of a run or of a model.

    Raises:
      UserError: where ``run:`` names none, or several.
    """
    if not name.startswith(RUN):
        folder = user_path(name)
        return _model_in(folder) if folder.is_dir() else None
    named = name.removeprefix(RUN)
    folder = user_path(named)
    if (folder / MODEL).is_dir():
        return folder / MODEL
    found = []
    if _HASH.fullmatch(named):
        found = sorted(RESULTS.glob(f"**/{RUNS}/{named}*/{MODEL}"))
    if len({path.parent.name for path in found}) > 1:
        shown = ", ".join(str(path.parent) for path in found[:3])
        raise UserError(f"--teacher {name}: several runs begin so: {shown}; write more of the hash")
    if not found:
        raise UserError(
            f"--teacher {name}: no finished run with a model at {folder}, nor under {RESULTS}/*/"
            f"{RUNS} one whose hash begins so (distill-jax ledger list shows them)"
        )
    return found[0]


def _model_in(folder: Path) -> Path:
    return folder / MODEL if (folder / MODEL).is_dir() else folder
