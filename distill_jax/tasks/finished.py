"""A finished run of any task, found again: from its folder to its row, from that to its cell."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Cell, SetupT, Stage, Train
from distill_jax.engine.merge import rows_in
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.names import MODEL

NO_STEPS: Mapping[str, type[Stage]] = MappingProxyType({})


def row_in(folder: Path) -> LedgerRow:
    """The ledger's row of a finished run, by its folder.

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
    return rows[folder.name]


def cell_again(
    row: LedgerRow, setup: type[SetupT], made_as: str, steps: Mapping[str, type[Stage]] = NO_STEPS
) -> Cell[SetupT]:
    """The cell of a row.

    Args:
      setup: what the cell of such a row is.
      made_as: for people, what such a row is of.
      steps: what may have been done to the finished student, by kind.

    Raises:
      UserError: it is another task's, or this version would make another run of it.
    """
    config = row.config
    made = f"{row.hash} was not made as {made_as} by this version; run its table again first"
    try:
        before = config["intermediate"] or []
        stages = [*(before if isinstance(before, list) else [before]), config]
        cell: Cell[SetupT] = Cell(
            rebuilt(setup, config),
            (
                *(
                    Train(each["objective"], rebuilt(setup.Training, each["training"]))
                    for each in stages
                ),
                *(rebuilt(steps[each["kind"]], each) for each in config.get("steps", ())),
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


def rebuilt(kind: Any, value: Any) -> Any:
    """What a ledger's plain JSON was made of, of an annotated kind."""
    kinds = [kind, *typing.get_args(kind)]
    if isinstance(value, list):
        inner = next((k for k in kinds if typing.get_origin(k) is tuple), None)
        each = typing.get_args(inner)[0] if inner is not None else Any
        return tuple(rebuilt(each, item) for item in value)
    if not isinstance(value, Mapping):
        return value
    found = next(k for k in kinds if dataclasses.is_dataclass(k))
    hints = typing.get_type_hints(found)
    known = {field.name for field in dataclasses.fields(found)} & value.keys()
    return found(**{name: rebuilt(hints[name], value[name]) for name in known})  # type: ignore
