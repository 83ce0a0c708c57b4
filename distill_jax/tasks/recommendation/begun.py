"""A finished recommender as what an update begins with: data, student, teacher, found again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from distill_jax.core.errors import UserError
from distill_jax.core.files import home
from distill_jax.data.column_names import parse_columns
from distill_jax.data.interactions import RankingSplit
from distill_jax.data.load_interactions import load_ranking_split
from distill_jax.engine.engine import Engine
from distill_jax.engine.merge import rows_in
from distill_jax.engine.sweep import Point, Sweep
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.closed_forms import is_closed_form
from distill_jax.models.recommenders.save import load_recommender
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.names import MODEL
from distill_jax.tasks.finished import cell_again, row_in
from distill_jax.tasks.recommendation.build import with_new_rows
from distill_jax.tasks.recommendation.catalogue import Catalogue
from distill_jax.tasks.recommendation.cells import RecommenderCell, RecommenderSetup
from distill_jax.tasks.recommendation.columns import COLUMNS
from distill_jax.tasks.recommendation.continual import First, Known
from distill_jax.tasks.recommendation.table import PEER, TEACHER, Recommendation
from distill_jax.tasks.recommendation.taught import TEACHER_OUTPUTS
from distill_jax.teachers.top_items import TopItemsCache


@dataclass(eq=False)
class FinishedRun:
    """A student of a table of recommenders; see ``continual.Begun``.

    Attributes:
      folder: of the run.
      row: of its ledger.
      split: its data.
      notes: what was told on the way.
    """

    folder: Path
    row: LedgerRow
    cell: RecommenderCell
    split: RankingSplit
    notes: list[str] = field(default_factory=list)
    _catalogue: Catalogue | None = None

    def catalogue(self, engine: Engine) -> Catalogue:
        """See ``Begun``."""
        if self._catalogue is None:
            vectors = self.cell.setup.data.item_vectors
            self._catalogue = Catalogue(engine, self.split, vectors)
        return self._catalogue

    def first(self, student: Recommender, ledger: Ledger) -> First:
        """See ``Begun``.

        Raises:
          UserError: the model is damaged, or of another catalogue.
        """
        for row in (*self._of_teacher(), self.row):
            if row.hash not in ledger.finished_hashes():
                ledger.append(row)
        saved = load_recommender(self.folder / MODEL)
        if saved.item_names != self.split.data.item_names:
            raise UserError(f"{self.folder / MODEL} has other items than the data of its run")
        params = with_new_rows(student, saved.params)
        return First(self.row.hash, params, self._known_to(student))

    def teacher(self, engine: Engine, teacher: Recommender, ledger: Ledger) -> Known:
        """See ``Begun``.

        Raises:
          UserError: the teacher is not what it was.
        """
        runs = self.folder.resolve().parent
        task = Recommendation(self._table(), self.split, kept=runs)
        (entry,) = task.sweep.entries()
        task.prepare(engine, [entry])
        if not (home() / "recommenders" / task.teacher_cell().hash).is_dir():
            self._tell(engine, "the run's teacher is not kept any more: it was trained again")
        task.raise_teachers(ledger)
        taught = task.taught
        if task.run(entry).hash != self.row.hash or taught is None:
            raise UserError(f"the teacher of {self.row.hash} is not what it was")
        cache, caches = taught.cache, runs / TEACHER_OUTPUTS  # of vectors alone none is on disk
        if isinstance(cache, TopItemsCache) and not (caches / cache.provenance.digest).is_dir():
            self._tell(
                engine,
                f"{caches} has no cache of what the teacher said of the old "
                "interactions: it was asked again",
            )
        params = with_new_rows(teacher, taught.params)
        return Known(params, taught.digest, taught.cache, self._known_to(teacher))

    def _tell(self, engine: Engine, note: str) -> None:
        engine.reporter.say(f"note: {note}")
        self.notes.append(note)

    def _known_to(self, grown: Recommender) -> int:
        """Of so many items, the first ones, a model knows something before it learns of the others:
        of all where it reads what is written about them, or the vectors of a file."""
        items = grown.config.items
        return self.split.data.num_items if items.only_own else items.num_items

    def _of_teacher(self) -> list[LedgerRow]:
        """The teacher's row in the run's table."""
        config = self.cell.setup.teacher
        rows = rows_in(self.folder.resolve().parent.parent).values()
        return [
            row for row in rows if config and row.row == TEACHER and row.group == config.model.name
        ]

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


def finished_run(folder: Path) -> FinishedRun:
    """A recommender's run by its folder, with its data loaded.

    Raises:
      UserError: it cannot be brought up to date, or its data are not what they were.
    """
    row = row_in(folder)
    if is_closed_form(folder / MODEL):
        raise UserError(
            f"{folder} is {row.row}, which is fitted and not trained: put old and new data "
            "together and run its table again"
        )
    if row.row in (TEACHER, PEER):
        raise UserError(f"{folder} is of a {row.row}, not of a student")
    if row.config.get("update"):
        raise UserError(
            f"{folder} was brought up to date before; name the run that it began with, and put "
            "all new data together"
        )
    cell = cell_again(row, RecommenderSetup, "a recommender")
    if cell.setup.placebo:
        raise UserError("the run is a placebo: its student hears of other positions")
    own = cell.setup.data
    split = load_ranking_split(
        own.name,
        split=own.split,
        preparation=own.preparation,
        columns=parse_columns(own.columns),
    )
    if split.digest != cell.data_digest:
        raise UserError(f"the data of {row.hash}, {own.name}, are not what they were")
    return FinishedRun(folder, row, cell, split)
