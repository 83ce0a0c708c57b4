"""An update as a whole: a finished run in, its successor and a report out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_jax.compression.pipeline import begun
from distill_jax.compression.update import Update, columns_of
from distill_jax.compression.update_report import Updated, updated
from distill_jax.engine.options import DEFAULTS, RunOptions
from distill_jax.engine.progress import Reporter

EXPERIMENT = "update"
ALL = math.inf
"""Points that it may lose: an update is kept whatever it forgot, which its report says."""


def update_run(
    folder: Path,
    settings: Mapping[str, Any],
    output: Path,
    reporter: Reporter,
    *,
    columns: Mapping[str, str | None],
    options: RunOptions = DEFAULTS,
) -> Updated:
    """Bring a finished student up to date with new data.

    Args:
      folder: of a finished run of students of texts or images.
      settings: fields of ``Update``, but for the columns.
      output: of the ledger, the student's folder and the report.
      columns: ``text``, ``text_b`` and ``label``; None for the run's own.

    Raises:
      UserError: for anything the user can mend.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    with begun(folder, output, reporter, EXPERIMENT, ALL, options, updates=True) as line:
        own = columns_of(line.run.cell, **columns)
        update = Update(**settings, **own).bound(line.run)
        line.go((update,))
        return updated(line, update)
