"""From a folder to the run in it, through all updates: what came out of one begins the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from distill_jax.compression.update import TEACHERS, Update, digest_of, new_data
from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Stage
from distill_jax.engine.engine import Engine
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tasks.classification.cells import ClassifierCell
from distill_jax.tasks.classification.finished import cell_of, found_again
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.updated_runs import updated_run

UPDATES: Mapping[str, type[Stage]] = {Update.kind: Update}


def check_steps(folder: Path, row: LedgerRow, *, updates: bool) -> None:
    """Raises ``UserError`` for a student to whom something was done after which it cannot go on.

    Args:
      folder: of its run.
      updates: whether it may have been brought up to date.
    """
    kinds = _kinds(row.config.get("steps", ()))
    begun = "name the run that it began with"
    if kinds - {Update.kind}:
        told = f"was compressed; {begun}" + ("" if updates else ", and all steps")
    elif kinds and not updates:
        told = f"was brought up to date, which is not compressed; {begun}"
    else:
        return
    raise UserError(f"{folder.resolve()} is of a student that {told}")


def _kinds(steps: Any) -> set[str]:
    """Of what a ledger says was done; "" for what no version of this wrote."""
    if not isinstance(steps, Sequence):
        return {""}
    return {str(step.get("kind")) if isinstance(step, Mapping) else "" for step in steps}


def went_on(engine: Engine, row: LedgerRow, ledger: Ledger) -> ClassifierRun:
    """The run of a row, found again with all that it went on with.

    Raises:
      UserError: some data or teacher is not there any more, or another than it was.
    """
    cell = cell_of(row, UPDATES)
    run = found_again(engine, dataclasses.replace(cell, stages=cell.making), ledger)
    for number, update in enumerate(cast(Sequence[Update], cell.steps), 1):
        at = dataclasses.replace(cell, stages=(*cell.making, *cell.steps[:number]))
        run = _updated(engine, run, update, at)
    now = digest_of(run.teachers)
    if row.fingerprints.get(TEACHERS, now) != now:
        raise UserError(f"the teacher of {row.hash} is not what it was")
    return run


def _updated(
    engine: Engine, run: ClassifierRun, update: Update, cell: ClassifierCell
) -> ClassifierRun:
    """What an update made of a run."""
    changed = f"the new data of {cell.hash}, {update.data}, are not what they were"
    try:
        new = new_data(update, run)
    except UserError as error:
        raise UserError(f"{changed}: {error}") from error
    if new.digest != update.content:
        raise UserError(changed)
    return updated_run(run, cell, new, update.teachers(engine, run, new))
