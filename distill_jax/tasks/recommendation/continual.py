"""New interactions arrive: a student is distilled again, and what it forgot is reported.

The teacher goes on learning from everything. The student learns from the users who have something
new, and where it rehearses, from some of the others too: what the teacher said of those lies in
the cache of the first time and is not asked for again.

A table of updates makes its first moment itself; a finished run that goes on (``begun``) brings it.
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
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import load_recommender
from distill_jax.objectives.items import parse_ranking, resolve_ranking
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import TableSpec
from distill_jax.tasks.recommendation.build import build_recommender
from distill_jax.tasks.recommendation.catalogue import Catalogue
from distill_jax.tasks.recommendation.cells import (
    RecModel,
    RecommenderCell,
    RecommenderSetup,
    RecTeacher,
)
from distill_jax.tasks.recommendation.moments import Begun, First, Known
from distill_jax.tasks.recommendation.old_and_new import FORGOTTEN, NEW, OLD, OldAndNew
from distill_jax.tasks.recommendation.runs import keep_model, recommender_work
from distill_jax.tasks.recommendation.table import batches_of
from distill_jax.tasks.recommendation.taught import Kept, asked, trained_once
from distill_jax.tasks.recommendation.words_since import WordsSince
from distill_jax.teachers.top_items import Heard
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.recommender import FitConfig
from distill_jax.training.state import Params


@dataclass(eq=False)
class Continual:
    """What is needed for a continual run, and its updates.

    The teachers of both moments and the students of the first stand before everything else: every
    part of a table needs them.

    Attributes:
      sweep: rows without an ``update`` are students of the first moment.
      update_training: of the teacher at the second moment; None where it does not go on learning.
      begun: what is there of the first moment; None where the table makes it.
      kept: what the call left that carried the update out, where it is found again.
    """

    sweep: Sweep[RecommenderSetup]
    split: ContinualSplit
    update_training: FitConfig | None
    begun: Begun | None = None
    kept: Kept | None = None
    entries: Sequence[Entry[RecommenderSetup]] = ()
    engine: Engine = field(init=False)
    teacher: Recommender | None = field(init=False, default=None)
    student: Recommender = field(init=False)
    old: Known | None = field(init=False, default=None)
    new: Known | None = field(init=False, default=None)
    firsts: dict[int, First] = field(default_factory=dict)
    _catalogues: dict[str, Catalogue] = field(default_factory=dict)
    _heard: dict[Any, Heard] = field(default_factory=dict)

    @property
    def setup(self) -> RecommenderSetup:
        """Of all entries, but for their updates."""
        return self.sweep.base.setup

    @property
    def config(self) -> RecTeacher | None:
        """Who teaches."""
        return self.setup.teacher

    def catalogue(self, split: RankingSplit) -> Catalogue:
        """Of a moment, one object each."""
        if split.digest not in self._catalogues:
            first = None if self.begun is None else self.begun.catalogue(self.engine).root
            data = self.setup.data
            self._catalogues[split.digest] = Catalogue(
                self.engine, split, data.item_vectors, data.item_features, first
            )
        return self._catalogues[split.digest]

    def prepare(self, engine: Engine, entries: Sequence[Entry[RecommenderSetup]]) -> None:
        self.open(engine, entries)
        grown = int(self.split.grown_U.sum())
        engine.reporter.say(f"{self.split.data.name}: {self.split.protocol}")
        engine.reporter.say(f"{grown} users have something new")
        for line in (*self.split.data.notes, *self._learned_from()):
            engine.reporter.say(f"note: {line}")
        trainings = [self.config.training, self.update_training] if self.config else []
        for training in trainings:
            if training is not None:
                engine.check_batch_size(training.batch_size)
        if self.begun is None and all(entry.cell.setup.update for entry in entries):
            raise UserError("a continual run needs a row without an update, for what was before")
        for entry in entries:
            engine.check_batch_size(entry.cell.training.batch_size)
            objective = self.resolve(entry.cell)
            if objective.needs_teacher and objective.teacher_capture.strata:
                raise UserError(
                    "popularity changes with new interactions: no strata in a continual run"
                )
            if self.begun is not None and objective.teacher_capture.knows_users:
                raise UserError(
                    f"{entry.cell.objective!r} reads lists of users and items, which teachers of "
                    "two moments do not share: name another --objective"
                )
            self.student.computing_in(compute_dtype(entry.cell.precision), engine.options.remat)

    def open(self, engine: Engine, entries: Sequence[Entry[RecommenderSetup]]) -> None:
        """Build the models of the whole catalogue."""
        self.engine, self.entries = engine, entries
        self.student = self._built(self.setup.model)
        if self.config is not None:
            self.teacher = self._built(self.config.model)

    def _built(self, model: RecModel) -> Recommender:
        """Of the whole catalogue."""
        before = self.split.before()
        own = self.catalogue(before)
        built = build_recommender(
            model, before, lambda: own.texts[0], lambda: own.given, lambda: own.fields
        )
        if built.in_use is not built:
            raise UserError(
                f"{model.name} is trained over the graph of one moment's interactions, which an "
                "update has not: take another model, or train anew"
            )
        return built

    def _learned_from(self) -> tuple[str, ...]:
        """The shares of the first moment's training part that teacher and student learn from."""
        windows, before = self.sweep.base.training.windows, self.split.before()
        told, built = {}, {self.setup.model.name: self.student}
        if self.config is not None and self.teacher is not None:
            built = {self.config.model.name: self.teacher} | built
        for name, model in built.items():
            config = model.config
            table = HistoryTable(before, config.task, config.max_length, windows)
            told[name] = f"{name} learns from {table.told}."
        return tuple(told.values())

    def known(self, cell: RecommenderCell) -> None:
        """Nothing is known of an update before its teachers."""

    def raise_teachers(self, ledger: Ledger) -> None:
        if self.begun is not None:
            first = self.begun.first(self.student, ledger)
            self.firsts = {entry.cell.seed: first for entry in self.entries}
        if self.is_heard:
            self.hear(ledger)
        for entry in self.entries:
            if entry.cell.setup.update is None:
                self.firsts[entry.cell.seed] = self._first(entry, ledger)

    def hear(self, ledger: Ledger) -> None:
        """The teacher of either moment, and what it says."""
        before, after, config = self.split.before(), self.split.after(), self.config
        assert config is not None and self.teacher is not None, "who teaches"
        if self.begun is not None:
            self.old = self.begun.teacher(self.engine, self.teacher, ledger)
        else:
            self.old = self._trained(before, config.training, None, before)
        training, update = self.update_training, self.split.update()
        self.new = (
            self._asked(self.old.params, update, self.old.among)
            if training is None
            else self._trained(after, training, self.old, update)
        )

    @property
    def is_heard(self) -> bool:
        """Whether there is a teacher to be heard: in a table always, after a run where anybody
        listens, or it goes on learning."""
        if self.config is None or self.begun is None:
            return self.config is not None
        heard = any(self.resolve(entry.cell).needs_teacher for entry in self.entries)
        return heard or self.update_training is not None

    def _trained(
        self,
        split: RankingSplit,
        training: FitConfig,
        start: Known | None,
        about: RankingSplit,
    ) -> Known:
        """A teacher trained on everything up to a moment, and its words about some users."""
        config, teacher = self.config, self.teacher
        assert config is not None and teacher is not None, "who is trained"
        own, top = self.setup, config.top if start else 0
        setup = RecommenderSetup(own.data, config.model, top=top, among=own.among)
        stages = (Train(config.objective, training),)
        cell = self._bound(Cell(setup, stages, config.seed), split, start)
        begun = start.params if start else teacher.init(jax.random.key(cell.seed))
        title = f"{setup.model.name}  teacher  seed {cell.seed}"
        objective = self.resolve(cell)
        params, _ = trained_once(
            self.engine, split, cell, teacher, objective, begun, title, kept=self.kept
        )
        return self._asked(params, about, split.data.num_items)

    def _asked(self, params: Params, about: RankingSplit, among: int) -> Known:
        """A teacher's words about some users."""
        config, teacher = self.config, self.teacher
        assert config is not None and teacher is not None, "who is asked"
        length, windows = self.setup.model.max_length, self.sweep.base.training.windows
        table = HistoryTable(about, "next", length, windows)
        digest, cache = asked(
            self.engine, teacher, params, table, config.top, kept=self.kept, among=among
        )
        return Known(params, digest, cache, among)

    def _first(self, entry: Entry[RecommenderSetup], ledger: Ledger) -> First:
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
        params = load_recommender(folder / "model").params
        return First(run.hash, params, self.split.data.num_items)

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
        self, cell: RecommenderCell, split: RankingSplit, *known: Known | None
    ) -> RecommenderCell:
        """A cell that knows what it learns from, and whom it hears."""
        teachers = [each.digest for each in known if each]
        reads, own = self.model_of(cell).config.items, self.catalogue(self.split.before())
        if reads.given_width:
            cell = cell.but(model=dataclasses.replace(cell.setup.model, vectors=own.given_digest))
        if reads.fields:
            cell = cell.but(model=dataclasses.replace(cell.setup.model, features=own.fields.digest))
        return cell.but(
            data_digest=digest([split.digest, dataclasses.asdict(self.split.rule)]),
            teacher_digest=digest(teachers) if teachers else "",
        )

    def model_of(self, cell: RecommenderCell) -> Recommender:
        """What a cell trains."""
        name, teacher = cell.setup.model.name, self.teacher
        is_teacher = self.config is not None and name == self.config.model.name
        return teacher if is_teacher and teacher is not None else self.student

    def resolve(self, cell: RecommenderCell) -> ResolvedObjective:
        """A cell's objective, fitted."""
        model, teacher, student = cell.setup.model, self.teacher, self.model_of(cell)
        positions = cell.training.batch_size * model.max_length
        shape = None if teacher is None else teacher.config.shape
        return resolve_ranking(cell.objective, student.config.shape, shape, positions=positions)

    @property
    def words(self) -> WordsSince:
        """What the teachers of both moments say, once they have been raised."""
        assert self.old is not None and self.new is not None, "they have been raised"
        among = self.new.among
        known = among if among < self.split.data.num_items else None
        return WordsSince(self.old.words, self.new.words, self.split.grown_U, known)

    def heard(self, objective: ResolvedObjective, *, both: bool) -> Heard | None:
        """What an objective hears: of users with something new the later word, in updates."""
        if not objective.needs_teacher:
            return None
        assert self.old is not None, "it has been raised"
        key = objective.teacher_capture, both
        if key not in self._heard:
            words = self.words if both else self.old.words
            self._heard[key] = words.listen(objective.teacher_capture)
        return self._heard[key]

    @property
    def tests(self) -> OldAndNew:
        """What is asked of both moments."""
        return OldAndNew(self.split, self.known_items, self.engine.check_stop)

    @property
    def known_items(self) -> int:
        """How many items there were at the first moment."""
        if self.begun is None:
            return self.split.data.num_items
        return self.begun.catalogue(self.engine).split.data.num_items

    def of_teachers(self) -> dict[str, float]:
        """Scores of the teacher of either moment on both tests."""
        metrics, tests = {}, self.tests
        moments = {
            "before": (self.old, self.split.before()),
            "after": (self.new, self.split.after()),
        }
        for moment, (known, split) in moments.items():
            if known is not None and self.teacher is not None:
                ranks = tests.ranks(self.teacher, known.params, split, known.among)
                for name, each in tests.user_scores(ranks).items():
                    metrics[f"teacher/{name}/{moment}"] = float(each.mean())
        return metrics

    def self_check(self, runs: Sequence[Run]) -> None:
        check_first_steps(self.engine, runs)

    def described(self, spec: TableSpec) -> TableSpec:
        split = self.split
        taught = self.config and f"the teacher ({self.config.model.name}) goes on with everything, "
        catalogue = "The catalogue of both periods is known from the start. "
        protocol = (
            f"{split.protocol}.",
            f"{int(split.grown_U.sum())} users have new interactions; "
            f"{taught if self.update_training else ''}a student with the users who "
            "have something new and those it rehearses, whose words come from the old cache.",
            f"{catalogue if self.begun is None else ''}Every witness counts once; "
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
    first: First | None

    @cached_property
    def works(self) -> tuple[Work, ...]:
        objective = self.table.resolve(self.cell)
        return (recommender_work(self.split, self.cell, self.table.student, objective),)

    @property
    def together(self) -> Mapping[str, Any]:
        return {"model": self.cell.setup.model, **batches_of(self.cell.training)}

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
        table, first = self.table, self.first
        kept = table.split.after() if first else self.split  # what it has learned from in all
        tests, student = table.tests, table.student
        ranks = tests.ranks(student, result.params, kept, table.split.data.num_items)
        values = tests.user_scores(ranks)
        metrics = {f"test/{name}": float(each.mean()) for name, each in values.items()}
        if first is not None:
            before = tests.ranks(student, first.params, table.split.before(), first.among)
            metrics |= tests.compared(before, ranks)
            metrics[FORGOTTEN] = metrics["before/old_ndcg@10"] - metrics[OLD]
        if table.begun is not None:
            metrics |= table.of_teachers()
        metrics["steps"] = self.works[0].steps
        keep_model(table.catalogue(kept), self.cell, student, result.params, folder / "model")
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
                name: pack_numbers(values[name])
                for name in (OLD.removeprefix("test/"), NEW.removeprefix("test/"))
                if np.isfinite(values[name]).all()
            },
        )

    def told(self, row: LedgerRow) -> str:
        return f"old {row.metrics[OLD]:.4f}, new {row.metrics[NEW]:.4f}"
