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
from distill_jax.data.continual_splits import ContinualRule, ContinualSplit, continual_split
from distill_jax.data.histories import HistoryTable
from distill_jax.data.interactions import Interactions, RankingSplit
from distill_jax.engine.engine import Engine
from distill_jax.engine.first_step import check_first_steps
from distill_jax.engine.interface import Run
from distill_jax.engine.merge import rows_in
from distill_jax.engine.options import DEFAULTS, Precision, RunOptions, Strategy, TrackTo
from distill_jax.engine.progress import Reporter
from distill_jax.engine.resume import Known
from distill_jax.engine.rows import ledger_row
from distill_jax.engine.run import run_table
from distill_jax.engine.strategies import clear_checkpoints
from distill_jax.engine.work import Work, compute_dtype
from distill_jax.evaluation.ranking import ndcg, user_means
from distill_jax.evaluation.recommend import rank_cases
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import load_recommender, recommender_digest
from distill_jax.objectives.items import resolve_ranking
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.columns import Column
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import Place, TableSpec, Where
from distill_jax.tasks.recommendation.build import build_recommender
from distill_jax.tasks.recommendation.cells import RecCell, RecData, RecModel
from distill_jax.tasks.recommendation.runs import (
    Catalogue,
    keep_model,
    recommender_work,
    scorer_of,
    trained_once,
)
from distill_jax.teachers.recommender_speaker import RecommenderSpeaker, table_for
from distill_jax.teachers.top_items import (
    Heard,
    TopItemsCache,
    TopItemsProvenance,
    build_top_items,
    open_top_items,
)
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
AS_IT_WAS = "as it was"


@dataclass(frozen=True)
class Update:
    """One way of bringing a student up to date.

    Attributes:
      objective: of the update.
      rehearse: users without anything new who come again, as a share of those who have something.
      anew: forget the old student: start at random, on everything.
    """

    label: str
    objective: str
    rehearse: float = 0.0
    anew: bool = False


@dataclass(frozen=True)
class ContinualSweep:
    """A continual run; the first update is what the others are tested against.

    Attributes:
      first: objective with which the student was distilled before.
      training, update_training: of teacher and student before, and of every update.
      precision: of the students.
    """

    data: RecData
    teacher: RecModel
    student: RecModel
    updates: tuple[Update, ...]
    first: str
    training: FitConfig
    update_training: FitConfig
    rule: ContinualRule = field(default_factory=ContinualRule)
    seeds: tuple[int, ...] = (0, 1, 2)
    top: int = 100
    precision: Precision = "f32"
    name: str = "recommendation_continual"

    def __post_init__(self) -> None:
        labels = [update.label for update in self.updates]
        if not labels or not self.seeds or len({*labels, AS_IT_WAS}) <= len(labels):
            raise UserError(
                f"a continual run needs seeds, and updates of different names: {labels}"
            )


def run_continual(
    sweep: ContinualSweep,
    data: Interactions,
    folder: Path,
    reporter: Reporter,
    *,
    track: TrackTo = "none",
    strategy: Strategy = "sequential",
    options: RunOptions = DEFAULTS,
) -> tuple[TableSpec, list[LedgerRow]]:
    """``run.run_table`` of a continual run."""
    table = ContinualTable(sweep, continual_split(data, sweep.rule))
    return run_table(table, folder, reporter, track=track, strategy=strategy, options=options)


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
    cache: TopItemsCache


@dataclass(frozen=True, eq=False)
class _First:
    """A student of the first moment: its cell, its end, and what it scored on what is old."""

    cell: RecCell
    params: Params
    old_score: float


@dataclass(eq=False)
class ContinualTable:
    """What is needed for a continual run, and its updates, see ``interface.TableTask``.

    The teachers of both moments and the students of the first stand before everything else: every
    part of a table needs them.
    """

    sweep: ContinualSweep
    split: ContinualSplit
    engine: Engine = field(init=False)
    teacher: Recommender = field(init=False)
    student: Recommender = field(init=False)
    old: _Known = field(init=False)
    new: _Known = field(init=False)
    firsts: dict[int, _First] = field(default_factory=dict)
    _catalogues: dict[str, Catalogue] = field(default_factory=dict)
    _heard: dict[Any, Heard] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.sweep.name

    def catalogue(self, split: RankingSplit) -> Catalogue:
        """Of a moment, one object each."""
        if split.digest not in self._catalogues:
            self._catalogues[split.digest] = Catalogue(self.engine, split)
        return self._catalogues[split.digest]

    def prepare(self, engine: Engine) -> None:
        self.engine = engine
        sweep, before = self.sweep, self.split.before()

        def texts() -> Any:
            return self.catalogue(before).texts[0]

        self.teacher = build_recommender(sweep.teacher, before, texts)
        self.student = build_recommender(sweep.student, before, texts)
        grown = int(self.split.grown_U.sum())
        engine.reporter.say(f"{self.split.data.name}: {self.split.protocol}")
        engine.reporter.say(f"{grown} users have something new")
        for training in (sweep.training, sweep.update_training):
            engine.check_batch_size(training.batch_size)
        for text in (sweep.first, *(update.objective for update in sweep.updates)):
            cell = self.cell(sweep.student, text, sweep.training, before, 0)
            objective = self.resolve(cell)
            if objective.needs_teacher and objective.teacher_capture.strata:
                raise UserError(
                    "popularity changes with new interactions: no strata in a continual run"
                )
            self.student.computing_in(compute_dtype(cell.precision), engine.options.remat)

    def settings(self) -> dict[Where, Known]:
        """Nothing is known of an update before its teachers."""
        return {}

    def raise_teachers(self, ledger: Ledger) -> None:
        before, after, sweep = self.split.before(), self.split.after(), self.sweep
        self.old = self._trained(before, sweep.training, None, before)
        self.new = self._trained(after, sweep.update_training, self.old, self.split.update())
        for seed in sweep.seeds:
            self.firsts[seed] = self._first(seed, ledger)

    def _trained(
        self,
        split: RankingSplit,
        training: FitConfig,
        start: _Known | None,
        asked: RankingSplit,
    ) -> _Known:
        """A teacher trained on everything up to a moment, and its words about ``asked``."""
        cell = self.cell(self.sweep.teacher, "full_softmax", training, split, 0, start)
        begun = start.params if start else self.teacher.init(jax.random.key(cell.seed))
        title = f"{cell.model.name}  teacher  seed 0"
        params, _ = trained_once(
            self.engine, split, cell, self.teacher, self.resolve(cell), begun, title
        )
        own = recommender_digest(self.teacher, params)
        table = table_for(self.teacher, HistoryTable(asked, "next", self.sweep.student.max_length))
        provenance = TopItemsProvenance(own, table.digest, self.sweep.top)
        cached = self.engine.folder / "teacher_outputs" / provenance.digest
        if not cached.is_dir():
            speaker = RecommenderSpeaker(self.teacher, params, self.sweep.top)
            build_top_items(
                cached, provenance, table, speaker, on_batch=lambda *_: self.engine.check_stop()
            )
        return _Known(params, own, open_top_items(cached, provenance))

    def _first(self, seed: int, ledger: Ledger) -> _First:
        """The student of the first moment, filed as ``as it was``."""
        sweep, split = self.sweep, self.split.before()
        cell = self.cell(sweep.student, sweep.first, sweep.training, split, seed, self.old)
        folder = self.engine.run_folder(cell.hash, shared=True)
        run = UpdateRun(self, Update(AS_IT_WAS, sweep.first), cell, split, None)
        row = rows_in(ledger.path.parent).get(cell.hash)
        if row is None or not (folder / "model").is_dir():
            started = time.perf_counter()
            [work] = run.works
            result = self.engine.train(
                work, run.start(), teacher=run.outputs(), label=run.title, folder=folder
            )
            row = run.written(result, time.perf_counter() - started, folder)
            if self.engine.options.share.holds(cell.hash) and is_lead():
                ledger.append(row)
            clear_checkpoints(folder)
            self.engine.reporter.say(f"{run.title}: {run.told(row)}")
        return _First(cell, load_recommender(folder / "model").params, row.metrics[OLD])

    @cached_property
    def updates(self) -> list[UpdateRun]:
        """Every update of every student, in the order of the table."""
        return [
            self._update(update, seed) for update in self.sweep.updates for seed in self.sweep.seeds
        ]

    def _update(self, update: Update, seed: int) -> UpdateRun:
        grown, first = self.split.grown_U, self.firsts[seed]
        rehearsed_U = self.split.rehearsed(round(update.rehearse * grown.sum()), seed)
        split = self.split.after() if update.anew else self.split.update(rehearsed_U)
        training = self.sweep.training if update.anew else self.sweep.update_training
        cell = self.cell(
            self.sweep.student, update.objective, training, split, seed, self.old, self.new
        )
        start = "" if update.anew else first.cell.hash
        cell = dataclasses.replace(cell, teacher_digest=digest([cell.teacher_digest, start]))
        return UpdateRun(self, update, cell, split, first)

    def runs(self) -> Sequence[Run]:
        return self.updates

    def cell(
        self,
        model: RecModel,
        objective: str,
        training: FitConfig,
        split: RankingSplit,
        seed: int,
        *known: _Known | None,
    ) -> RecCell:
        """A run's identity."""
        teachers = [each.digest for each in known if each]
        return RecCell(
            self.sweep.data,
            model,
            objective,
            training,
            seed,
            data_digest=digest([split.digest, dataclasses.asdict(self.sweep.rule)]),
            teacher_digest=digest(teachers) if teachers else "",
            top=self.sweep.top if teachers else 0,
            precision=self.sweep.precision if model == self.sweep.student else "f32",
        )

    def resolve(self, cell: RecCell) -> ResolvedObjective:
        """A cell's objective, fitted."""
        student = self.teacher if cell.model == self.sweep.teacher else self.student
        positions = cell.training.batch_size * cell.model.max_length
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

    def configs(self) -> dict[str, dict[str, Any]]:
        cells = [first.cell for first in self.firsts.values()]
        return {cell.hash: cell.config for cell in (*cells, *(run.cell for run in self.updates))}

    def self_check(self, runs: Sequence[Run]) -> None:
        check_first_steps(self.engine, runs)

    def spec(self) -> TableSpec:
        sweep, split = self.sweep, self.split
        cells = [(AS_IT_WAS, self.firsts[seed].cell) for seed in sweep.seeds]
        cells += [(run.update.label, run.cell) for run in self.updates]
        return TableSpec(
            name=sweep.name,
            title=f"A recommender brought up to date, {split.data.name}",
            layout="metrics",
            columns=COLUMNS,
            baseline=sweep.updates[0].label,
            places=tuple(Place(label, c.model.name, c.seed, c.hash) for label, c in cells),
            tested=(OLD, NEW),
            group_title="student",
            row_title="update",
            protocol=(
                f"{split.protocol}.",
                f"{int(split.grown_U.sum())} users have new interactions; the teacher "
                f"({sweep.teacher.name}) goes on with everything, a student with the users who "
                "have something new and those it rehearses, whose words come from the old cache.",
                "The catalogue of both periods is known from the start. Every witness counts once; "
                "tests over examples are tests over witnesses.",
            ),
        )


@dataclass(frozen=True, eq=False)
class UpdateRun:
    """One update of one student, see ``interface.Run``.

    Attributes:
      split: what it learns from.
      first: the student before; None for that itself.
    """

    table: ContinualTable
    update: Update
    cell: RecCell
    split: RankingSplit
    first: _First | None

    @property
    def hash(self) -> str:
        return self.cell.hash

    @property
    def title(self) -> str:
        return f"{self.cell.model.name}  {self.update.label}  seed {self.cell.seed}"

    @cached_property
    def works(self) -> tuple[Work, ...]:
        objective = self.table.resolve(self.cell)
        return (recommender_work(self.split, self.cell, self.table.student, objective),)

    @property
    def together(self) -> Mapping[str, Any]:
        return {"model": self.cell.model}

    def start(self) -> Params:
        if self.first is None or self.update.anew:
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
        asked = {"old": table.split.old, "new": table.split.new}
        values = {}
        for name, cases in asked.items():
            ranks_E = rank_cases(scorer, table.split.data, cases).ranks_E
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
            experiment=table.name,
            row=self.update.label,
            group=self.cell.model.name,
            seed=self.cell.seed,
            config=self.cell.config,
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
