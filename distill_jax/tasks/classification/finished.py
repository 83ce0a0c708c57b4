"""A finished run, found again: from its folder to its cell, data and teachers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Stage
from distill_jax.engine.engine import Engine
from distill_jax.engine.merge import rows_in
from distill_jax.engine.sweep import Point, Sweep
from distill_jax.models.build import family_in
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.names import MODEL
from distill_jax.tasks.classification.cells import (
    TEACHER,
    ClassifierCell,
    ClassifierSetup,
    DataConfig,
)
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.table import Classification
from distill_jax.tasks.finished import NO_STEPS, cell_again, row_in
from distill_jax.tasks.kinds.kind import Kind
from distill_jax.tasks.kinds.kinds import kind_named


def row_of(folder: Path) -> LedgerRow:
    """The ledger's row of a finished student, by the folder of its run.

    Raises:
      UserError: it is not one, or no classifier, or the ledger beside it does not have it.
    """
    row = row_in(folder)
    family_in(folder / MODEL)
    if row.row == TEACHER or "objective" not in row.config:
        raise UserError(f"{folder.resolve()} is of a {row.row}, not of a student")
    return row


def kind_of(row: LedgerRow) -> Kind:
    """What the student of a row predicts."""
    data = row.config.get("data")
    return kind_named(str(data.get("task", DataConfig.task)) if data else DataConfig.task)


def cell_of(row: LedgerRow, steps: Mapping[str, type[Stage]] = NO_STEPS) -> ClassifierCell:
    """The cell of a classifier's row; see ``cell_again``."""
    return cell_again(row, ClassifierSetup, "a classifier", steps)


def teachers_of(folder: Path, row: LedgerRow) -> list[LedgerRow]:
    """The rows of a student's teachers in its table.

    Args:
      folder: of the student's run.
    """
    names = [row.config["teacher"]["name"]]
    names += [each["name"] for each in row.config.get("more_teachers", ())]
    rows = rows_in(folder.resolve().parent.parent).values()
    return [
        each
        for each in rows
        if each.config.get("student") == TEACHER and each.config["teacher"]["name"] in names
    ]


def found_again(engine: Engine, cell: ClassifierCell, ledger: Ledger) -> ClassifierRun:
    """The run with its examples and teachers; the row of a teacher goes to the ledger, where it is
    not there yet.

    Raises:
      UserError: data or teachers are not there any more, or others than they were.
    """
    sweep = Sweep(
        name="compress",
        title=cell.hash,
        base=cell,
        rows=(Point(cell.objective),),
        groups=(Point(cell.setup.student),),
        seeds=(cell.seed,),
        columns=cell.setup.data.kind.columns[:1],
    )
    task = Classification(sweep)
    (entry,) = sweep.entries()
    task.prepare(engine, [entry])
    task.raise_teachers(ledger)
    run = task.run(entry)
    if run.hash != cell.hash:
        changed = [
            name.removesuffix("_digest")
            for name in ("data_digest", "teacher_digest", "plugin")
            if getattr(run.cell, name) != getattr(cell, name)
        ]
        raise UserError(f"{' and '.join(changed)} of {cell.hash} are not what they were")
    return run
