"""New interactions arrive: a student is distilled again, and what it forgot is reported.

The teacher goes on learning from everything. The student learns from the users who have something
new, and where it rehearses, from some of the others too: what the teacher said of those lies in
the cache of the first time and is not asked for again.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core.digests import digest
from distill_jax.core.distributed import is_lead
from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch
from distill_jax.core.top_items import TopItems
from distill_jax.data.continual_splits import ContinualSplit
from distill_jax.data.histories import HistoryTable
from distill_jax.data.interactions import RankingSplit
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.first_step import check_first_steps
from distill_jax.engine.interface import Run
from distill_jax.engine.merge import rows_in
from distill_jax.engine.rows import ledger_row
from distill_jax.engine.strategies import clear_checkpoints
from distill_jax.engine.sweep import Entry, Sweep, objectives_told
from distill_jax.engine.work import Work, compute_dtype
from distill_jax.evaluation.ranking import ndcg, user_means
from distill_jax.evaluation.recommend import rank_cases
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import load_recommender
from distill_jax.objectives.items import parse_ranking, resolve_ranking
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.columns import Column
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import TableSpec
from distill_jax.tasks.recommendation.build import build_recommender
from distill_jax.tasks.recommendation.cells import RecommenderCell, RecommenderSetup, RecTeacher
from distill_jax.tasks.recommendation.runs import (
    Catalogue,
    asked,
    keep_model,
    recommender_work,
    scorer_of,
    trained_once,
)
from distill_jax.teachers.factor_words import FactorWords
from distill_jax.teachers.top_items import Heard, TopItemsCache
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.recommender import FitConfig
from distill_jax.training.state import Params

OLD, NEW, FORGOTTEN = "test/old_ndcg@10", "test/new_ndcg@10", "test/forgotten"
COLUMNS = (
    Column(OLD, "old NDCG@10", 1, 4, higher_is_better=True),
    Column(FORGOTTEN, "forgotten (old, before - after)", 1, 4, higher_is_better=False),
    Column(NEW, "new NDCG@10", 1, 4, higher_is_better=True),
    Column("steps", "steps", 1, 0, kind="value"),
    Column("seconds/total", "run (s)", 1, 0, kind="mean"),
)


def by_user(first: Heard, second: Heard, second_U: np.ndarray) -> Heard:
    """What two caches say: of the chosen users the second's word, of the others the first's."""

    def heard(batch: HistoryBatch) -> TopItems:
        users_B = np.asarray(batch.example_ids_B)
        chosen_B = second_U[np.maximum(users_B, 0)] & (users_B >= 0)
        ours, theirs = (
            speak(_only(batch, rows_B))
            for speak, rows_B in ((first, ~chosen_B), (second, chosen_B))
        )

        def pick(one: Any, other: Any) -> Any:
            return np.where(chosen_B.reshape(-1, *[1] * (one.ndim - 1)), other, one)

        return jax.tree.map(pick, ours, theirs)

    return heard


def _only(batch: HistoryBatch, rows_B: np.ndarray) -> HistoryBatch:
    """The batch with all other rows as padding."""
    arrays: dict[str, Any] = {
        "example_ids_B": np.where(rows_B, np.asarray(batch.example_ids_B), -1),
        "where_BT": np.asarray(batch.where_BT) & rows_B[:, None],
        "target_where_BT": np.asarray(batch.target_where_BT) & rows_B[:, None],
    }
    return dataclasses.replace(batch, **arrays)


@dataclass(frozen=True, eq=False)
class _Known:
    """A teacher at one moment and its cache."""

    params: Params
    digest: str
    cache: TopItemsCache | FactorWords


@dataclass(frozen=True, eq=False)
class _First:
    """A student of the first moment: its end, and what it scored on what is old."""

    hash: str
    params: Params
    old_score: float


@dataclass(eq=False)
class Continual:
    """What is needed for a continual run, and its updates.

    The teachers of both moments and the students of the first stand before everything else: every
    part of a table needs them.

    Attributes:
      sweep: rows without an ``update`` are students of the first moment.
      update_training: of the teacher at the second moment.
    """

    sweep: Sweep[RecommenderSetup]
    split: ContinualSplit
    update_training: FitConfig
    entries: Sequence[Entry[RecommenderSetup]] = ()
    engine: Engine = field(init=False)
    teacher: Recommender = field(init=False)
    student: Recommender = field(init=False)
    old: _Known = field(init=False)
    new: _Known = field(init=False)
    firsts: dict[int, _First] = field(default_factory=dict)
    _catalogues: dict[str, Catalogue] = field(default_factory=dict)
    _heard: dict[Any, Heard] = field(default_factory=dict)

    @property
    def setup(self) -> RecommenderSetup:
        """Of all entries, but for their updates."""
        return self.sweep.base.setup

    @property
    def config(self) -> RecTeacher:
        """Who teaches."""
        teacher = self.setup.teacher
        assert teacher is not None, "an update listens, which is checked when cells are settled"
        return teacher

    def catalogue(self, split: RankingSplit) -> Catalogue:
        """Of a moment, one object each."""
        if split.digest not in self._catalogues:
            self._catalogues[split.digest] = Catalogue(self.engine, split)
        return self._catalogues[split.digest]

    def prepare(self, engine: Engine, entries: Sequence[Entry[RecommenderSetup]]) -> None:
        self.engine, self.entries = engine, entries
        before = self.split.before()
        self.teacher, self.student = (
            build_recommender(model, before, lambda: self.catalogue(before).texts[0])
            for model in (self.config.model, self.setup.model)
        )
        for model, built in ((self.config.model, self.teacher), (self.setup.model, self.student)):
            if built.in_use is not built:
                raise UserError(
                    f"{model.name} is trained over the graph of one moment's interactions, which "
                    "an update has not: take another model, or train anew"
                )
        grown = int(self.split.grown_U.sum())
        engine.reporter.say(f"{self.split.data.name}: {self.split.protocol}")
        engine.reporter.say(f"{grown} users have something new")
        for line in (*self.split.data.notes, *self._learned_from()):
            engine.reporter.say(f"note: {line}")
        for training in (self.config.training, self.update_training):
            engine.check_batch_size(training.batch_size)
        if all(entry.cell.setup.update for entry in entries):
            raise UserError("a continual run needs a row without an update, for what was before")
        for entry in entries:
            engine.check_batch_size(entry.cell.training.batch_size)
            objective = self.resolve(entry.cell)
            if objective.needs_teacher and objective.teacher_capture.strata:
                raise UserError(
                    "popularity changes with new interactions: no strata in a continual run"
                )
            self.student.computing_in(compute_dtype(entry.cell.precision), engine.options.remat)

    def _learned_from(self) -> tuple[str, ...]:
        """The shares of the first moment's training part that teacher and student learn from."""
        windows, before = self.sweep.base.training.windows, self.split.before()
        told, built = {}, (self.teacher, self.student)
        names = (self.config.model.name, self.setup.model.name)
        for name, config in zip(names, (each.config for each in built), strict=True):
            table = HistoryTable(before, config.task, config.max_length, windows)
            told[name] = f"{name} learns from {table.told}."
        return tuple(told.values())

    def known(self, cell: RecommenderCell) -> None:
        """Nothing is known of an update before its teachers."""

    def raise_teachers(self, ledger: Ledger) -> None:
        before, after = self.split.before(), self.split.after()
        self.old = self._trained(before, self.config.training, None, before)
        self.new = self._trained(after, self.update_training, self.old, self.split.update())
        for entry in self.entries:
            if entry.cell.setup.update is None:
                self.firsts[entry.cell.seed] = self._first(entry, ledger)

    def _trained(
        self,
        split: RankingSplit,
        training: FitConfig,
        start: _Known | None,
        about: RankingSplit,
    ) -> _Known:
        """A teacher trained on everything up to a moment, and its words about some users."""
        setup = RecommenderSetup(
            self.setup.data, self.config.model, top=self.config.top if start else 0
        )
        stages = (Train(self.config.objective, training),)
        cell = self._bound(Cell(setup, stages, self.config.seed), split, start)
        begun = start.params if start else self.teacher.init(jax.random.key(cell.seed))
        title = f"{setup.model.name}  teacher  seed {cell.seed}"
        params, _ = trained_once(
            self.engine, split, cell, self.teacher, self.resolve(cell), begun, title
        )
        length, windows = self.setup.model.max_length, self.sweep.base.training.windows
        table = HistoryTable(about, "next", length, windows)
        return _Known(params, *asked(self.engine, self.teacher, params, table, self.config.top))

    def _first(self, entry: Entry[RecommenderSetup], ledger: Ledger) -> _First:
        """The student of the first moment, filed before the others need it."""
        run = self.run(entry)
        folder = self.engine.run_folder(run.hash, shared=True)
        row = rows_in(ledger.path.parent).get(run.hash)
        if row is None or not (folder / "model").is_dir():
            started = time.perf_counter()
            [work] = run.works
            result = self.engine.train(
                work, run.start(), teacher=run.outputs(), label=run.title, folder=folder
            )
            row = run.written(result, time.perf_counter() - started, folder)
            if self.engine.options.share.holds(run.hash) and is_lead():
                ledger.append(row)
            clear_checkpoints(folder)
            self.engine.reporter.say(f"{run.title}: {run.told(row)}")
        return _First(run.hash, load_recommender(folder / "model").params, row.metrics[OLD])

    def run(self, entry: Entry[RecommenderSetup]) -> UpdateRun:
        cell, update = entry.cell, entry.cell.setup.update
        cell = cell.but(plugin=plugin_digest(*cell.objectives, read=parse_ranking))
        if update is None:
            split, first = self.split.before(), None
            cell = self._bound(cell, split, self.old)
        else:
            grown, first = self.split.grown_U, self.firsts[cell.seed]
            rehearsed_U = self.split.rehearsed(round(update.rehearse * grown.sum()), cell.seed)
            split = self.split.after() if update.anew else self.split.update(rehearsed_U)
            cell = self._bound(cell, split, self.old, self.new)
            start = "" if update.anew else first.hash
            cell = cell.but(teacher_digest=digest([cell.teacher_digest, start]))
        return UpdateRun(dataclasses.replace(entry, cell=cell), self, split, first)

    def _bound(
        self, cell: RecommenderCell, split: RankingSplit, *known: _Known | None
    ) -> RecommenderCell:
        """A cell that knows what it learns from, and whom it hears."""
        teachers = [each.digest for each in known if each]
        return cell.but(
            data_digest=digest([split.digest, dataclasses.asdict(self.split.rule)]),
            teacher_digest=digest(teachers) if teachers else "",
        )

    def resolve(self, cell: RecommenderCell) -> ResolvedObjective:
        """A cell's objective, fitted."""
        model = cell.setup.model
        student = self.teacher if model == self.config.model else self.student
        positions = cell.training.batch_size * model.max_length
        return resolve_ranking(
            cell.objective, student.config.shape, self.teacher.config.shape, positions=positions
        )

    def heard(self, objective: ResolvedObjective, *, both: bool) -> Heard | None:
        """What an objective hears: of users with something new the later word, in updates."""
        if not objective.needs_teacher:
            return None
        key = objective.teacher_capture, both
        if key not in self._heard:
            first = self.old.cache.listen(objective.teacher_capture)
            self._heard[key] = first
            if both:
                second = self.new.cache.listen(objective.teacher_capture)
                self._heard[key] = by_user(first, second, self.split.grown_U)
        return self._heard[key]

    def self_check(self, runs: Sequence[Run]) -> None:
        check_first_steps(self.engine, runs)

    def described(self, spec: TableSpec) -> TableSpec:
        split = self.split
        protocol = (
            f"{split.protocol}.",
            f"{int(split.grown_U.sum())} users have new interactions; the teacher "
            f"({self.config.model.name}) goes on with everything, a student with the users who "
            "have something new and those it rehearses, whose words come from the old cache.",
            "The catalogue of both periods is known from the start. Every witness counts once; "
            "tests over examples are tests over witnesses.",
        )
        learned = (*self._learned_from(), *objectives_told(self.entries), *split.data.notes)
        told = (*spec.protocol, *protocol, *learned)
        return dataclasses.replace(spec, protocol=told)


@dataclass(frozen=True, eq=False)
class UpdateRun(Run):
    """A student of the first moment, or one update of it.

    Attributes:
      split: what it learns from.
      first: the student before; None for that itself.
    """

    table: Continual
    split: RankingSplit
    first: _First | None

    @cached_property
    def works(self) -> tuple[Work, ...]:
        objective = self.table.resolve(self.cell)
        return (recommender_work(self.split, self.cell, self.table.student, objective),)

    @property
    def together(self) -> Mapping[str, Any]:
        windows = {"windows": True} if self.cell.training.windows else {}
        return {"model": self.cell.setup.model, **windows}

    def start(self) -> Params:
        update = self.cell.setup.update
        if self.first is None or (update is not None and update.anew):
            return self.table.student.init(jax.random.key(self.cell.seed))
        return self.first.params

    def outputs(self) -> TeacherOutputs | None:
        return self.table.heard(self.table.resolve(self.cell), both=self.first is not None)

    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        return self.written(result, seconds, engine.run_folder(self.hash))

    def written(self, result: TrainResult, seconds: float, folder: Path) -> LedgerRow:
        """Ask the witnesses, keep the model, write the run up."""
        table = self.table
        scorer = scorer_of(table.student).of(result.params)
        values = {}
        for name, cases in (("old", table.split.old), ("new", table.split.new)):
            learned_U = self.split.learned_U  # no witness is among them
            ranked = rank_cases(scorer, table.split.data, cases, learned_U=learned_U)
            ranks_E = ranked.ranks_E
            # Targets of one witness are no independent cases: each witness counts once.
            _, values[name], _ = user_means(ndcg(ranks_E, 10), cases.users_E)
        metrics = {f"test/{name}_ndcg@10": float(each.mean()) for name, each in values.items()}
        if self.first is not None:
            metrics[FORGOTTEN] = self.first.old_score - metrics[OLD]
        metrics["steps"] = self.works[0].steps
        catalogue = table.catalogue(self.split)
        keep_model(catalogue, self.cell, table.student, result.params, folder / "model")
        return ledger_row(
            hash=self.hash,
            experiment=table.sweep.name,
            row=self.entry.label,
            group=self.entry.group,
            seed=self.cell.seed,
            config=self.config,
            metrics=metrics,
            fingerprints={"data": self.cell.data_digest, "teacher": self.cell.teacher_digest},
            training={"seconds": {"total": seconds}},
            test_scores={
                f"{name}_ndcg@10": pack_numbers(each)
                for name, each in values.items()
                if np.isfinite(each).all()
            },
        )

    def told(self, row: LedgerRow) -> str:
        return f"old {row.metrics[OLD]:.4f}, new {row.metrics[NEW]:.4f}"
