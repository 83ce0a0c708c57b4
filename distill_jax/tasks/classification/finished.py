"""A finished run, found again: from its folder to its cell, data and teachers."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.merge import rows_in
from distill_jax.engine.sweep import Point, Sweep
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.names import MODEL
from distill_jax.tasks.classification.cells import (
    TEACHER,
    ClassifierCell,
    ClassifierSetup,
    DataConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.table import Classification
from distill_jax.tasks.kinds.kind import Kind
from distill_jax.tasks.kinds.kinds import kind_named


def row_of(folder: Path) -> LedgerRow:
    """The ledger's row of a finished student, by the folder of its run.

    Raises:
      UserError: it is not one, or the ledger beside it does not have it.
    """
    if not (folder / MODEL).is_dir():
        raise UserError(
            f"no finished run at {folder}: expected a folder like results/compare_losses/runs/HASH"
        )
    folder = folder.resolve()
    rows = rows_in(folder.parent.parent)
    if folder.name not in rows:
        raise UserError(f"the ledger in {folder.parent.parent} has no run {folder.name}")
    row = rows[folder.name]
    if row.row == TEACHER or "objective" not in row.config:
        raise UserError(f"{folder} is of a {row.row}, not of a student")
    if "steps" in row.config:
        raise UserError(
            f"{folder} is of a student that was compressed; name the run that it began with, and "
            "all steps"
        )
    return row


def kind_of(row: LedgerRow) -> Kind:
    """What the student of a row predicts."""
    data = row.config.get("data")
    return kind_named(str(data.get("task", DataConfig.task)) if data else DataConfig.task)


def cell_of(row: LedgerRow) -> ClassifierCell:
    """The cell of a classifier's row.

    Raises:
      UserError: it is another task's, or this version would make another run of it.
    """
    config = row.config
    made = f"{row.hash} was not made as a classifier by this version; run its table again first"
    try:
        before = config["intermediate"] or []
        stages = [*(before if isinstance(before, list) else [before]), config]
        cell: ClassifierCell = Cell(
            _rebuilt(ClassifierSetup, config),
            tuple(
                Train(each["objective"], _rebuilt(TrainingConfig, each["training"]))
                for each in stages
            ),
            **{
                name: config[name]
                for name in ("seed", "precision", "plugin", "data_digest", "teacher_digest")
            },
        )
        found = cell.hash
    except (LookupError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{made} ({error})") from error
    if found != row.hash:
        raise UserError(made)
    return cell


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


def found_again(engine: Engine, row: LedgerRow, ledger: Ledger) -> ClassifierRun:
    """The run with its examples and teachers; the row of a teacher goes to the ledger, where it is
    not there yet.

    Raises:
      UserError: data or teachers are not there any more, or others than they were.
    """
    cell = cell_of(row)
    sweep = Sweep(
        name="compress",
        title=row.hash,
        base=cell,
        rows=(Point(cell.objective),),
        groups=(Point(cell.setup.student),),
        seeds=(cell.seed,),
        columns=(ACCURACY,),
    )
    task = Classification(sweep)
    (entry,) = sweep.entries()
    task.prepare(engine, [entry])
    task.raise_teachers(ledger)
    run = task.run(entry)
    if run.hash != row.hash:
        changed = [
            name.removesuffix("_digest")
            for name in ("data_digest", "teacher_digest", "plugin")
            if getattr(run.cell, name) != getattr(cell, name)
        ]
        raise UserError(f"{' and '.join(changed)} of {row.hash} are not what they were")
    return run


def _rebuilt(kind: Any, value: Any) -> Any:
    """What a ledger's plain JSON was made of, of an annotated kind."""
    kinds = [kind, *typing.get_args(kind)]
    if isinstance(value, list):
        inner = next((k for k in kinds if typing.get_origin(k) is tuple), None)
        each = typing.get_args(inner)[0] if inner is not None else Any
        return tuple(_rebuilt(each, item) for item in value)
    if not isinstance(value, Mapping):
        return value
    found = next(k for k in kinds if dataclasses.is_dataclass(k))
    hints = typing.get_type_hints(found)
    known = {field.name for field in dataclasses.fields(found)} & value.keys()
    return found(**{name: _rebuilt(hints[name], value[name]) for name in known})  # type: ignore
