"""A table of recommenders: what the runner asks of it, see ``interface.TableTask``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core.distributed import is_lead
from distill_jax.core.errors import UserError
from distill_jax.data.histories import HistoryTable
from distill_jax.data.interactions import RankingSplit
from distill_jax.data.load_interactions import load_ranking_split
from distill_jax.engine.engine import Engine
from distill_jax.engine.first_step import check_first_steps
from distill_jax.engine.interface import Run
from distill_jax.engine.merge import rows_in
from distill_jax.engine.options import DEFAULTS, RunOptions, Strategy, TrackTo
from distill_jax.engine.progress import Reporter
from distill_jax.engine.resume import Known
from distill_jax.engine.rows import training_facts
from distill_jax.engine.run import run_table
from distill_jax.engine.work import Work, compute_dtype
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import recommender_digest
from distill_jax.models.recommenders.text_items import ItemTexts
from distill_jax.objectives.items import resolve_ranking
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import Place, TableSpec, Where
from distill_jax.tasks.recommendation.build import build_recommender, start_from_items
from distill_jax.tasks.recommendation.cells import RecCell, RecModel, RecTeacher
from distill_jax.tasks.recommendation.runs import (
    Catalogue,
    closed_form_cell,
    closed_form_row,
    recommender_work,
    scorer_of,
    trained_once,
    write_up,
)
from distill_jax.tasks.recommendation.sweep import RecRow, RecSweep
from distill_jax.teachers.recommender_speaker import RecommenderSpeaker, table_for
from distill_jax.teachers.top_items import (
    TopItemsCache,
    TopItemsProvenance,
    build_top_items,
    open_top_items,
    popularity_strata,
)
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.state import Params

TEACHER, PEER = "teacher", "not heard"
SHUFFLE = 20_011
"""Seed of the placebo's permutation, the same for all rows and seeds."""


def run_recommenders(
    sweep: RecSweep,
    folder: Path,
    reporter: Reporter,
    *,
    split: RankingSplit | None = None,
    track: TrackTo = "none",
    strategy: Strategy = "sequential",
    options: RunOptions = DEFAULTS,
) -> tuple[TableSpec, list[LedgerRow]]:
    """``run.run_table`` of recommenders.

    Args:
      split: the data, where it is loaded already.
    """
    table = RecTable(sweep, split)
    return run_table(table, folder, reporter, track=track, strategy=strategy, options=options)


@dataclass(frozen=True, eq=False)
class TaughtBy:
    """A trained teacher and what it said.

    Attributes:
      digest: of its content.
      cache: of its likeliest items at every training position.
      top_EK: what it shows each test user.
    """

    recommender: Recommender
    params: Params
    digest: str
    cache: TopItemsCache
    top_EK: np.ndarray


@dataclass(eq=False)
class RecTable:
    """What is needed for the runs of a sweep of recommenders, and the runs."""

    sweep: RecSweep
    given: RankingSplit | None = None
    engine: Engine = field(init=False)
    catalogue: Catalogue = field(init=False)
    teacher: TaughtBy | None = None
    _models: dict[RecModel, Recommender] = field(default_factory=dict)
    _heard: dict[Any, TeacherOutputs | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.sweep.name

    @property
    def split(self) -> RankingSplit:
        """The data."""
        return self.catalogue.split

    def prepare(self, engine: Engine) -> None:
        """Every model can be built and every objective be computed."""
        sweep, self.engine = self.sweep, engine
        split = self.given or load_ranking_split(sweep.data.name, split=sweep.data.split)
        self.catalogue = Catalogue(engine, split)
        data, say = split.data, engine.reporter.say
        say(f"{data.name}: {data.num_users:,} users, {data.num_items:,} items, {len(data):,}")
        say(f"protocol: {split.protocol}")
        teacher = None
        if sweep.teacher is not None:
            teacher = self.build(sweep.teacher.model)
            HistoryTable(split, "next", sweep.teacher.model.max_length)
            self.resolve(self.teacher_cell(), teacher, None)
            for peer in sweep.peers:
                self.build(peer)
            engine.check_batch_size(sweep.teacher.training.batch_size)
        said = set()
        for row, cell in self.cells("?"):
            student = self.build(cell.model)
            if row.start == "teacher_items" and student.config.items.source != "id":
                raise UserError(f"row {row.label!r}: {cell.model.name} has no item vectors to set")
            objective = self.resolve(cell, student, teacher)
            engine.check_batch_size(cell.training.batch_size)
            student.computing_in(compute_dtype(cell.precision), engine.options.remat)
            for note in objective.notes:
                if note not in said:
                    say(f"{row.label}: {note}")
                said.add(note)

    def build(self, model: RecModel) -> Recommender:
        """The recommender of a name, one object for all its runs."""
        if model not in self._models:
            self._models[model] = build_recommender(model, self.split, self._vectors)
        return self._models[model]

    def _vectors(self) -> ItemTexts:
        return self.catalogue.texts[0]

    def resolve(
        self, cell: RecCell, recommender: Recommender, teacher: Recommender | None
    ) -> ResolvedObjective:
        """The objective of a cell, fitted."""
        return resolve_ranking(
            cell.objective,
            recommender.config.shape,
            teacher.config.shape if teacher else None,
            positions=cell.training.batch_size * cell.model.max_length,
        )

    def cells(self, teacher_digest: str) -> list[tuple[RecRow, RecCell]]:
        """Every student, with the row that it stands in."""
        return list(self.sweep.cells(self.split.digest, teacher_digest))

    def teacher_cell(self, model: RecModel | None = None) -> RecCell:
        """The teacher's own training, or a peer's."""
        return self.sweep.teacher_cell(self.split.digest, model)

    def settings(self) -> dict[Where, Known]:
        return {
            (row.label, cell.model.name, cell.seed, ""): (cell.config, ("teacher_digest",))
            for row, cell in self.cells("")
        }

    def raise_teachers(self, ledger: Ledger) -> None:
        """Train the teacher unless it is there, ask it about every training position; then all
        that stands beside it: recommenders in closed form, and peers."""
        if self.sweep.teacher is not None:
            self.teacher = self._taught_by(self.sweep.teacher, ledger)
        for name in self.sweep.references:
            cell = self._closed_form(name)
            if self._is_due(cell, ledger):
                self.engine.check_stop()
                row = closed_form_row(self.catalogue, self.name, name, cell, self.shown_EK)
                self._append(ledger, name, row)
        for peer in self.sweep.peers:
            cell = self.teacher_cell(peer)
            if self._is_due(cell, ledger):
                self._trained(cell, PEER, ledger, self.shown_EK)

    @property
    def shown_EK(self) -> np.ndarray | None:
        """What the teacher shows each test user; None without one."""
        return None if self.teacher is None else self.teacher.top_EK

    def _closed_form(self, name: str) -> RecCell:
        """The cell of a reference: one for all tables of one teacher."""
        if self.sweep.teacher is not None:
            return closed_form_cell(self.teacher_cell(), name)
        return closed_form_cell(self.cells("")[0][1], name)

    def _is_due(self, cell: RecCell, ledger: Ledger) -> bool:
        """Whether this part of the table has to make a row."""
        share = self.engine.options.share
        return share.holds(cell.hash) and cell.hash not in rows_in(ledger.path.parent)

    def _taught_by(self, config: RecTeacher, ledger: Ledger) -> TaughtBy:
        params = self._trained(self.teacher_cell(), TEACHER, ledger, None)
        recommender = self.build(config.model)
        digest = recommender_digest(recommender, params)
        cache = self._ask(recommender, params, digest, config.top)
        top_EK = self.catalogue.test(scorer_of(recommender).of(params)).ranked.top_EK
        return TaughtBy(recommender, params, digest, cache, top_EK)

    def _trained(
        self, cell: RecCell, label: str, ledger: Ledger, teacher_top_EK: np.ndarray | None
    ) -> Params:
        """A teacher or a peer, trained on labels and filed."""
        recommender, title = self.build(cell.model), f"{label} {cell.model.name}"
        objective = self.resolve(cell, recommender, None)
        start = recommender.init(jax.random.key(cell.seed))
        params, facts = trained_once(
            self.engine, self.split, cell, recommender, objective, start, title
        )
        if self._is_due(cell, ledger):
            row = write_up(
                self.catalogue,
                self.name,
                cell,
                recommender,
                params,
                facts,
                row=label,
                group=cell.model.name,
                teacher_top_EK=teacher_top_EK,
            )
            self._append(ledger, title, row)
        return params

    def _append(self, ledger: Ledger, label: str, row: LedgerRow) -> None:
        if is_lead():
            ledger.append(row)
        self.engine.reporter.say(f"{label}: {told(row)}, {row.seconds['total']:.0f} s")

    def _ask(
        self, recommender: Recommender, params: Params, digest: str, top: int
    ) -> TopItemsCache:
        longest = max(model.max_length for model in self.sweep.students)
        table = table_for(recommender, HistoryTable(self.split, "next", longest))
        provenance = TopItemsProvenance(digest, table.digest, top)
        folder = self.engine.folder / "teacher_outputs" / provenance.digest
        if not folder.is_dir():
            speaker = RecommenderSpeaker(recommender, params, provenance.top)
            self.engine.reporter.say("asking the teacher about every training position")
            build_top_items(
                folder,
                provenance,
                table,
                speaker,
                on_batch=lambda done, total: self.engine.check_stop(),
            )
        return open_top_items(folder, provenance)

    @cached_property
    def everything(self) -> list[tuple[RecRow, RecCell]]:
        """Every student, now that its teacher is known."""
        return self.cells(self.teacher.digest if self.teacher else "")

    def runs(self) -> list[Run]:
        runs: dict[str, Run] = {}
        for row, cell in self.everything:
            runs.setdefault(cell.hash, RecRun(self, row, cell))
        return list(runs.values())

    def heard(self, objective: ResolvedObjective, placebo: bool) -> TeacherOutputs | None:
        """What an objective hears of the teacher, one object for all that hear the same."""
        if not objective.needs_teacher or self.teacher is None:
            return None
        key = objective.teacher_capture, placebo
        if key not in self._heard:
            self._heard[key] = heard(self.split, objective, self.teacher.cache, placebo)
        return self._heard[key]

    def spec(self) -> TableSpec:
        places = tuple(
            Place(row.label, each.model.name, each.seed, each.hash) for row, each in self.everything
        )
        labels = [TEACHER, *[PEER] * len(self.sweep.peers)]
        teachers = [
            Place(label, model.name, 0, self.teacher_cell(model).hash)
            for label, model in zip(labels, self.sweep.speakers, strict=False)
        ]
        teachers += [
            Place(name, "closed form", 0, self._closed_form(name).hash)
            for name in self.sweep.references
        ]
        return self.sweep.spec(places, tuple(teachers), self._protocol())

    def _protocol(self) -> tuple[str, ...]:
        training, data, teacher = self.sweep.training, self.split.data, self.sweep.teacher
        users_E = self.split.test.users_E
        weights = (
            "."
            if len(np.unique(users_E)) == len(users_E)
            else ", each with all items that are asked for, as the columns weigh them."
        )
        taught = teacher and (
            f"Teacher: {teacher.model.name}, trained with {teacher.objective} on the same "
            f"interactions; its likeliest {teacher.top} items at each training position are kept.",
        )
        return (
            f"Data: {data.name}, {data.num_users} users, {data.num_items} items.",
            f"Split: {self.split.protocol}.",
            "Ranks among all items, those of the user's own history left out, ties against the "
            f"model. Tests over examples are tests over users{weights}",
            *(taught or ()),
            f"Students: {training.epochs} epochs of batches of {training.batch_size} users, the "
            "same steps for every row; the step is chosen by validation NDCG@10, the test split "
            "is read once.",
            *data.notes,
            *self.sweep.protocol,
        )

    def configs(self) -> dict[str, dict[str, Any]]:
        return {cell.hash: cell.config for _, cell in self.everything}

    def self_check(self, runs: Sequence[Run]) -> None:
        check_first_steps(self.engine, runs)


@dataclass(frozen=True, eq=False)
class RecRun:
    """A student, see ``interface.Run``."""

    table: RecTable
    row: RecRow
    cell: RecCell

    @property
    def hash(self) -> str:
        return self.cell.hash

    @property
    def title(self) -> str:
        return f"{self.cell.model.name}  {self.row.label}  seed {self.cell.seed}"

    @property
    def recommender(self) -> Recommender:
        """What is trained."""
        return self.table.build(self.cell.model)

    @property
    def objective(self) -> ResolvedObjective:
        """Fitted."""
        teacher = self.table.teacher.recommender if self.table.teacher else None
        return self.table.resolve(self.cell, self.recommender, teacher)

    @property
    def works(self) -> tuple[Work, ...]:
        return (recommender_work(self.table.split, self.cell, self.recommender, self.objective),)

    @property
    def together(self) -> Mapping[str, Any]:
        return {"model": self.cell.model}

    def start(self) -> Params:
        recommender, teacher = self.recommender, self.table.teacher
        params = recommender.init(jax.random.key(self.cell.seed))
        if self.cell.start != "teacher_items" or teacher is None:
            return params
        items_ID = np.asarray(teacher.recommender.item_vectors(teacher.params))
        return start_from_items(recommender, params, items_ID)

    def outputs(self) -> TeacherOutputs | None:
        return self.table.heard(self.objective, self.cell.placebo)

    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        return write_up(
            self.table.catalogue,
            self.table.name,
            self.cell,
            self.recommender,
            result.params,
            training_facts(result, seconds),
            row=self.row.label,
            group=self.cell.model.name,
            teacher_top_EK=self.table.shown_EK,
        )

    def told(self, row: LedgerRow) -> str:
        return told(row)


def told(row: LedgerRow) -> str:
    """Main scores, in a line."""
    return f"NDCG@10 {row.metrics['test/ndcg@10']:.4f}, HR@10 {row.metrics['test/hr@10']:.4f}"


def heard(
    split: RankingSplit, objective: ResolvedObjective, cache: TopItemsCache, placebo: bool
) -> TeacherOutputs | None:
    """What an objective hears of a teacher; None where it listens to none."""
    if not objective.needs_teacher:
        return None
    wanted = objective.teacher_capture
    strata_I = popularity_strata(split.train_counts_I, wanted.strata) if wanted.strata else None
    return cache.listen(wanted, strata_I=strata_I, shuffle=SHUFFLE if placebo else None)
