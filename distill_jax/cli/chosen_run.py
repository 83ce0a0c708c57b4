"""Which run is meant by a table's folder: the student that was best on validation."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from distill_jax.cli.results import LEDGER
from distill_jax.core.errors import UserError

if TYPE_CHECKING:
    from distill_jax.tables.ledger import LedgerRow

RANKS = "validation/ndcg@10"
"""By which recommenders and towers are chosen."""


def chosen_run(folder: Path, metric: str) -> Path:
    """A run's folder as it is; of a table's folder that of its best student, with a line on it.

    Only the runs of the table as it was made last count, and of these no teacher and no control
    whose teacher's words were shuffled.

    Args:
      metric: higher is better, on validation.

    Raises:
      UserError: for a table that is not finished, or of which no student is there.
    """
    if not (folder / LEDGER).is_file() or (folder / "model").is_dir():
        return folder
    from distill_jax.tables.outputs import SPEC, load_results

    if not (folder / SPEC).is_file():
        raise UserError(f"{folder} is a table that is not finished: the same command goes on")
    spec, rows = load_results(folder)
    by_hash = {row.hash: row for row in rows}
    students = [by_hash[place.hash] for place in spec.places if place.hash in by_hash]
    there = [row for row in students if _is_there(row, folder, metric)]
    if not there:
        raise UserError(
            f"{folder} is a table of which no student can be asked: expected the folder of a "
            "finished run (RUN/model), or of a table whose students are under runs/"
        )
    best = max(there, key=lambda row: row.metrics[metric])
    run = folder / "runs" / best.hash
    score = f"{metric} {best.metrics[metric]:.4f}, best of {len(there)}"
    print(f"{run}: {best.group}, {best.row}, seed {best.seed} ({score})", file=sys.stderr)
    return run


def _is_there(row: LedgerRow, folder: Path, metric: str) -> bool:
    measured = math.isfinite(row.metrics.get(metric, math.nan))
    kept = (folder / "runs" / row.hash / "model").is_dir()
    shuffled = row.config.get("placebo") or row.config.get("hears") == "shuffled"
    return measured and kept and not shuffled
