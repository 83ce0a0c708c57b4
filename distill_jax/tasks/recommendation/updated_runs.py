"""A recommender that was brought up to date, as what the next update begins with.

All that has been is found again: the run of a table that came first, and what came to it since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from distill_jax.core.errors import UserError
from distill_jax.data.continual_splits import ContinualSplit
from distill_jax.engine.engine import Engine
from distill_jax.models.recommenders.build import Recommender
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tasks.recommendation.build import with_new_rows
from distill_jax.tasks.recommendation.catalogue import Catalogue
from distill_jax.tasks.recommendation.finished_runs import FinishedRun, known_of
from distill_jax.tasks.recommendation.going_on import update_of
from distill_jax.tasks.recommendation.moments import Known


@dataclass(eq=False, kw_only=True)
class UpdatedRun(FinishedRun):
    """A student that went on; see ``moments.Begun``.

    Attributes:
      before: what it went on from.
      went: the interactions of that, with those that had come.
    """

    before: FinishedRun
    went: ContinualSplit

    @property
    def columns(self) -> str | None:
        update = self.cell.setup.update
        return update.columns if update else None

    def teacher(self, engine: Engine, teacher: Recommender, ledger: Ledger) -> Known:
        """See ``Begun``: what was said at each moment, of the users who had something new then.

        Raises:
          UserError: the teacher of some moment is not what it was.
        """
        task = update_of(self.before, self.cell, self.went, self.kept(engine))
        (entry,) = task.sweep.entries()
        task.open(engine, [entry])
        task.raise_teachers(ledger)
        if task.run(entry).hash != self.row.hash:
            raise UserError(f"the teacher of {self.row.hash} is not what it was")
        if not task.is_heard:  # then, but now it is
            task.hear(ledger)
        assert task.new is not None, "it has been raised"
        params = with_new_rows(teacher, task.new.params)
        return Known(params, task.new.digest, task.words, known_of(task.new.among, teacher))

    def rows(self) -> Iterator[LedgerRow]:
        yield from self.before.rows()
        yield self.row

    def _read(self, engine: Engine) -> Catalogue:
        data, first = self.cell.setup.data, self.before.catalogue(engine).root
        return Catalogue(engine, self.split, data.item_vectors, data.item_features, first)
