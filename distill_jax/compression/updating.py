"""An update as a whole: a finished run in, its successor and a report out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_jax.compression.pipeline import begun
from distill_jax.compression.update import Update, columns_of
from distill_jax.compression.update_report import Updated, updated
from distill_jax.core.errors import UserError
from distill_jax.engine.options import DEFAULTS, RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.tasks.classification.finished import kind_of, row_of

EXPERIMENT = "update"
ALL = 100.0
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
      folder: of a finished run of classifiers.
      settings: fields of ``Update``, but for the columns.
      output: of the ledger, the student's folder and the report.
      columns: ``text``, ``text_b`` and ``label``; None for the run's own.

    Raises:
      UserError: for anything the user can mend.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    if not (kind := kind_of(row_of(folder))).has_classes:
        raise UserError(
            f"{folder} is of a student of task {kind.name}; updated are those of classes. Train it "
            "on the old and the new data together"
        )
    with begun(folder, output, reporter, EXPERIMENT, ALL, options) as line:
        own = columns_of(line.run.splits.config, **columns)
        update = Update(**settings, **own).bound(line.run)
        line.go((update,))
        return updated(line, update)
