"""From a folder to the recommender's run in it, and through all updates to the run of a table."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.data.continued_splits import as_old
from distill_jax.data.load_interactions import load_ranking_split, short_name
from distill_jax.models.recommenders.closed_forms import is_closed_form
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.names import MODEL
from distill_jax.tasks.finished import cell_again, row_in
from distill_jax.tasks.recommendation.cells import RecommenderCell, RecommenderSetup
from distill_jax.tasks.recommendation.finished_runs import FinishedRun
from distill_jax.tasks.recommendation.going_on import with_new
from distill_jax.tasks.recommendation.table import PEER, TEACHER
from distill_jax.tasks.recommendation.updated_runs import UpdatedRun


@dataclass(frozen=True)
class Found:
    """A run as its folder and its ledger tell of it."""

    folder: Path
    row: LedgerRow
    cell: RecommenderCell

    @property
    def began(self) -> Path | None:
        """The folder of the run that it went on from; None of a table's.

        Raises:
          UserError: it was not written down.
        """
        update = self.cell.setup.update
        if update is None:
            return None
        if not update.began:
            raise UserError(
                f"{self.folder} was brought up to date by a version that did not write down what "
                "it began with: bring that up to date anew, with another --output"
            )
        return Path(os.path.normpath(self.folder.resolve().parent / update.began))


def finished_run(folder: Path) -> FinishedRun:
    """A recommender's run by its folder, with its data loaded, and all that it went on from.

    Raises:
      UserError: it cannot be brought up to date, or its data are not what they were.
    """
    *updates, first = _found(folder)
    run = _of_table(first)
    for each in reversed(updates):
        run = _went_on(run, each)
    return run


def began_with(folder: Path, output: Path) -> str:
    """How ``Update.began`` names a run's folder.

    Args:
      output: of the update.
    """
    return os.path.relpath(folder.resolve(), (output / "runs").resolve())


def _found(folder: Path) -> list[Found]:
    """A run, what it went on from, and so on to a table's run."""
    found = [_at(folder)]
    while (began := found[-1].began) is not None:
        if any(began == each.folder.resolve() for each in found):
            raise UserError(f"{found[-1].folder} went on from itself: its ledger is damaged")
        try:
            found.append(_at(began))
        except UserError as error:
            raise UserError(f"{folder} needs what it went on from: {error}") from error
    return found


def _at(folder: Path) -> Found:
    row = row_in(folder)
    if is_closed_form(folder / MODEL):
        raise UserError(
            f"{folder} is {row.row}, which is fitted and not trained: put old and new data "
            "together and run its table again"
        )
    if row.row in (TEACHER, PEER):
        raise UserError(f"{folder} is of a {row.row}, not of a student")
    cell = cell_again(row, RecommenderSetup, "a recommender")
    if cell.setup.placebo:
        raise UserError("the run is a placebo: its student hears of other positions")
    return Found(folder, row, cell)


def _of_table(found: Found) -> FinishedRun:
    """A table's run, with its data."""
    row, cell = found.row, found.cell
    own = cell.setup.data
    split = load_ranking_split(
        own.name,
        split=own.split,
        preparation=own.preparation,
        columns=own.read_columns,
        asked=own.asked,
    )
    if split.digest != cell.data_digest:
        raise UserError(f"the data of {row.hash}, {own.name}, are not what they were")
    return FinishedRun(found.folder, row, cell, split)


def _went_on(run: FinishedRun, found: Found) -> UpdatedRun:
    """A run that went on from another, with the data of both."""
    row, cell, update = found.row, found.cell, found.cell.setup.update
    assert update is not None, "it went on"
    changed = f"the new data of {row.hash}, {update.data}, are not what they were"
    try:
        went, arrived = with_new(run, update)
    except UserError as error:
        raise UserError(f"{changed}: {error}") from error
    learned = went.update(went.rehearsed(round(update.rehearse * went.grown_U.sum()), cell.seed))
    if digest([learned.digest, asdict(went.rule)]) != cell.data_digest:
        raise UserError(changed)
    split = as_old(run.split, went, short_name(update.data))
    run.notes.append(f"{run.row.hash} was brought up to date with {update.data} before")
    return UpdatedRun(
        found.folder, row, cell, split, run.notes, arrived.last_U, before=run, went=went
    )
