"""A finished recommender goes on with new interactions: its successor and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.data.continued_splits import TRAIN, Arrived
from distill_jax.data.interactions import Interactions
from distill_jax.engine.cell import Train
from distill_jax.engine.options import DEFAULTS, RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tables.names import MODEL
from distill_jax.tables.outputs import SPEC
from distill_jax.tables.spec import TableSpec
from distill_jax.tasks.recommendation.cells import RecommenderCell, Update
from distill_jax.tasks.recommendation.find_run import began_with, finished_run
from distill_jax.tasks.recommendation.finished_runs import FinishedRun
from distill_jax.tasks.recommendation.going_on import EXPERIMENT, applied, update_of, with_new
from distill_jax.training.recommender import FitConfig


@dataclass(frozen=True)
class NewInteractions:
    """What a student goes on with, and how.

    Attributes:
      data: the new data set's name, as of ``--data``, or a file.
      columns: of its files, as of ``RecData``; None for the run's.
      rehearse, teacher_too: see ``cells.Update``.
      objective: as text; empty for the run's own.
      epochs: passes over what it learns from; 0 for as many as the run took.
      rate: peak learning rate; 0 for the run's.
    """

    data: str
    columns: str | None = None
    rehearse: float = 1.0
    teacher_too: bool = False
    objective: str = ""
    epochs: int = 0
    rate: float = 0.0

    def training(self, own: FitConfig) -> FitConfig:
        """How it trains, where the run trained as ``own`` says."""
        if self.epochs < 0 or self.rate < 0:
            raise UserError("epochs and rate of an update must not be negative")
        epochs = self.epochs or own.epochs
        rate = self.rate or own.optimizer.learning_rate
        optimizer = dataclasses.replace(own.optimizer, learning_rate=rate)
        every = min(own.eval_every, epochs)
        return dataclasses.replace(own, epochs=epochs, eval_every=every, optimizer=optimizer)


@dataclass(frozen=True, eq=False)
class Updated:
    """A finished update.

    Attributes:
      run: what it began with.
      new: what it went on with.
      metrics: of its row in the ledger.
      distances: how far the new interactions are from the old.
      folder: of the student that came out.
      notes: what was told on the way.
    """

    run: FinishedRun
    new: NewInteractions
    metrics: Mapping[str, float]
    distances: Mapping[str, float]
    folder: Path
    notes: tuple[str, ...]

    @property
    def model(self) -> Path:
        """Of the student that came out."""
        return self.folder / MODEL


def update_recommender(
    folder: Path,
    new: NewInteractions,
    output: Path,
    reporter: Reporter,
    *,
    options: RunOptions = DEFAULTS,
) -> Updated:
    """Bring a finished student up to date with new interactions.

    Args:
      folder: of a finished run of recommenders.
      output: of the ledger, the student's folder and the report.

    Raises:
      UserError: for anything the user can mend.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    _check_own(output)
    run = finished_run(folder)
    if new.data and user_path(new.data).exists():
        new = dataclasses.replace(new, data=f"files:{new.data}")
    if new.teacher_too and run.cell.setup.teacher is None:
        raise UserError("the run has no teacher that could go on learning")
    update = Update(
        new.rehearse,
        data=new.data,
        teacher_too=new.teacher_too,
        columns=run.columns if new.columns is None else new.columns,
        began=began_with(folder, output),
    )
    split, arrived = with_new(run, update)
    task = update_of(run, _cell(run, new, update), split)
    spec, rows = run_table(task, output, reporter, strategy="sequential", options=options)
    (place,) = spec.places
    (row,) = (each for each in rows if each.hash == place.hash)
    rehearsed = split.rehearsed(round(new.rehearse * split.grown_U.sum()), run.cell.seed)
    learned = (
        f"{int((arrived.parts_N == TRAIN).sum()):,} new interactions of "
        f"{int(split.grown_U.sum()):,} users are learned from, {int(rehearsed.sum()):,} other "
        f"users rehearsed{', the teacher went on learning' if new.teacher_too else ''}"
    )
    prepared = applied(run.cell.setup.data)
    notes = (learned, split.protocol, *prepared, *arrived.notes, *split.data.notes, *run.notes)
    return Updated(
        run,
        new,
        row.metrics,
        distances(run.split.asked_data, arrived),
        output / "runs" / place.hash,
        notes,
    )


def _check_own(output: Path) -> None:
    """Raises ``UserError`` for an experiment's folder, whose table an update's would replace."""
    path = output / SPEC
    name = TableSpec.from_json(path.read_text("utf-8")).name if path.is_file() else EXPERIMENT
    if name != EXPERIMENT:
        raise UserError(f"--output {output} holds the table of {name!r}: name another folder")


def _cell(run: FinishedRun, new: NewInteractions, update: Update) -> RecommenderCell:
    """The student, brought up to date."""
    cell = run.cell
    last = Train(new.objective or cell.objective, new.training(cell.training))
    return dataclasses.replace(cell.but(update=update), stages=(last,))


def distances(old: Interactions, arrived: Arrived) -> dict[str, float]:
    """How far new interactions are from old ones.

    Returns:
      Counts of each under ``old/`` and ``new/``; ``unknown_items`` and ``unknown_users``, shares of
      the new interactions with an item or a user that the old do not have, and under ``names/`` of
      the items and users themselves; ``drift``, half the sum of the differences of the items'
      shares of all interactions (0: the same popularity, 1: other items altogether), and
      ``drift/by chance``, the same of a random part of the old, as large as the new (half of the
      old at most), against the rest.
    """
    items, users = np.unique(arrived.items_N), np.unique(arrived.users_N)
    chosen = np.random.default_rng(0).permutation(len(old))[: min(len(arrived), len(old) // 2)]
    part_N = np.isin(np.arange(len(old)), chosen)
    return {
        "old/interactions": len(old),
        "new/interactions": len(arrived),
        "old/users": int((old.lengths_U > 0).sum()),
        "new/users": len(users),
        "old/items": len(np.unique(old.items_N)),
        "new/items": len(items),
        "unknown_items": float((arrived.items_N >= old.num_items).mean()),
        "unknown_users": float((arrived.users_N >= old.num_users).mean()),
        "names/unknown_items": float((items >= old.num_items).mean()),
        "names/unknown_users": float((users >= old.num_users).mean()),
        "drift": apart(old.items_N, arrived.items_N),
        "drift/by chance": apart(old.items_N[~part_N], old.items_N[part_N]),
    }


def apart(one_N: np.ndarray, other_N: np.ndarray) -> float:
    """Half the sum of the differences of the shares that items have of either; NaN of nothing."""
    if not len(one_N) or not len(other_N):
        return float("nan")
    size = int(max(one_N.max(), other_N.max())) + 1
    shares = [np.bincount(each, minlength=size) / len(each) for each in (one_N, other_N)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)
