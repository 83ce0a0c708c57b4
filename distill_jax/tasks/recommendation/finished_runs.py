"""A finished recommender as what an update begins with: data, student, teacher, found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.interactions import RankingSplit
from distill_jax.engine.engine import Engine
from distill_jax.engine.merge import rows_in
from distill_jax.engine.sweep import Point, Sweep
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import load_recommender
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.names import MODEL
from distill_jax.tasks.recommendation.build import with_new_rows
from distill_jax.tasks.recommendation.catalogue import Catalogue
from distill_jax.tasks.recommendation.cells import RecommenderCell, RecommenderSetup
from distill_jax.tasks.recommendation.columns import COLUMNS
from distill_jax.tasks.recommendation.moments import First, Known
from distill_jax.tasks.recommendation.table import TEACHER, Recommendation
from distill_jax.tasks.recommendation.taught import Kept


@dataclass(eq=False)
class FinishedRun:
    """A student of a table of recommenders; see ``moments.Begun``.

    Attributes:
      folder: of the run.
      row: of its ledger.
      split: its data.
      notes: what was told on the way, of all that it went on from too.
      last_U: see ``continued_splits.Arrived``; None where the data say it.
    """

    folder: Path
    row: LedgerRow
    cell: RecommenderCell
    split: RankingSplit
    notes: list[str] = field(default_factory=list)
    last_U: np.ndarray | None = None
    _catalogue: Catalogue | None = None

    @property
    def runs(self) -> Path:
        """The folder that its own is in."""
        return self.folder.resolve().parent

    @property
    def columns(self) -> str | None:
        """Of the files that it read last, as of ``RecData``."""
        return self.cell.setup.data.columns

    def catalogue(self, engine: Engine) -> Catalogue:
        """See ``Begun``."""
        if self._catalogue is None:
            self._catalogue = self._read(engine)
        return self._catalogue

    def first(self, student: Recommender, ledger: Ledger) -> First:
        """See ``Begun``.

        Raises:
          UserError: the model is damaged, or of another catalogue.
        """
        for row in self.rows():
            if row.hash not in ledger.finished_hashes():
                ledger.append(row)
        saved = load_recommender(self.folder / MODEL)
        if saved.item_names != self.split.data.item_names:
            raise UserError(f"{self.folder / MODEL} has other items than the data of its run")
        params = with_new_rows(student, saved.params)
        return First(self.row.hash, params, known_of(self.split.data.num_items, student))

    def teacher(self, engine: Engine, teacher: Recommender, ledger: Ledger) -> Known:
        """See ``Begun``.

        Raises:
          UserError: the teacher is not what it was.
        """
        task = Recommendation(self._table(), self.split, kept=self.kept(engine))
        (entry,) = task.sweep.entries()
        task.prepare(engine, [entry])
        task.raise_teachers(ledger)
        taught = task.taught
        if task.run(entry).hash != self.row.hash or taught is None:
            raise UserError(f"the teacher of {self.row.hash} is not what it was")
        params = with_new_rows(teacher, taught.params)
        known = known_of(self.split.data.num_items, teacher)
        return Known(params, taught.digest, taught.cache, known)

    def kept(self, engine: Engine) -> Kept:
        """What it left; where something is gone, that is noted."""

        def tell(note: str) -> None:
            engine.reporter.say(f"note: {note}")
            self.notes.append(note)

        return Kept(self.runs, tell)

    def rows(self) -> Iterator[LedgerRow]:
        """Its own and those of what came before it, the oldest first."""
        config = self.cell.setup.teacher
        for row in rows_in(self.runs.parent).values():
            if config and row.row == TEACHER and row.group == config.model.name:
                yield row
        yield self.row

    def _read(self, engine: Engine) -> Catalogue:
        data = self.cell.setup.data
        return Catalogue(engine, self.split, data.item_vectors, data.item_features)

    def _table(self) -> Sweep[RecommenderSetup]:
        """The run alone."""
        return Sweep(
            name=self.row.experiment,
            title=self.row.hash,
            base=self.cell,
            rows=(Point(self.row.row),),
            groups=(Point(self.row.group),),
            seeds=(self.cell.seed,),
            columns=COLUMNS,
        )


def known_of(items: int, grown: Recommender) -> int:
    """Of so many items, the first ones, a model knows something before it learns of the others: of
    all where it reads what is written about them, or the vectors of a file.

    Args:
      items: that it has learned of.
      grown: the model of a catalogue of more.
    """
    config = grown.config.items
    return items if config.only_own else config.num_items
