"""New interactions arrive: a student is distilled again, and what it forgot is reported.

The teacher goes on learning from everything. The student learns from the users who have something
new, and where it rehearses, from some of the others too: what the teacher said of those lies in
the cache of the first time and is not asked for again.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.core.ranking_types import HistoryBatch
from distill_jax.core.top_items import TopItems
from distill_jax.data.continual_splits import ContinualRule, ContinualSplit, continual_split
from distill_jax.data.histories import HistoryTable
from distill_jax.data.interactions import Interactions, RankingSplit
from distill_jax.evaluation.ranking import ndcg, user_means
from distill_jax.evaluation.recommend import rank_cases
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import load_recommender, recommender_digest
from distill_jax.objectives.ranking_objective import resolve_ranking
from distill_jax.sweeps.columns import Column
from distill_jax.sweeps.evidence import pack_numbers
from distill_jax.sweeps.ledger import Ledger, LedgerRow, provenance
from distill_jax.sweeps.outputs import LEDGER, SPEC
from distill_jax.sweeps.parts import Part, only_process
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.recommend.build import build_recommender
from distill_jax.sweeps.recommend.cells import RecCell, RecData, RecModel
from distill_jax.sweeps.recommend.runs import (
    Workshop,
    clear_checkpoint,
    keep_model,
    scorer_of,
    steps_of,
    train_cell,
)
from distill_jax.sweeps.spec import Place, TableSpec
from distill_jax.teachers.recommender_speaker import RecommenderSpeaker, table_for
from distill_jax.teachers.top_items import (
    Heard,
    TopItemsCache,
    TopItemsProvenance,
    build_top_items,
    open_top_items,
)
from distill_jax.training.interrupt import StopRequest
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
    name: str = "recommendation_continual"

    def __post_init__(self) -> None:
        labels = [update.label for update in self.updates]
        if not labels or not self.seeds or len({*labels, AS_IT_WAS}) <= len(labels):
            raise UserError(
                f"a continual run needs seeds, and updates of different names: {labels}"
            )


def run_continual(
    sweep: ContinualSweep, data: Interactions, folder: Path, reporter: Reporter
) -> tuple[TableSpec, list[LedgerRow]]:
    """Run what is not finished yet; returns the table's description and the ledger's rows.

    Raises:
      UserError: for anything the user can mend.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    with StopRequest(reporter.say) as stop, ExitStack() as held:
        held.enter_context(only_process(folder / "runs", Part()))
        runner = _Runner(sweep, continual_split(data, sweep.rule), folder, reporter, stop)
        spec = runner.run()
        write_atomic(folder / SPEC, spec.to_json() + "\n")
    return spec, runner.ledger.rows()


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


class _Runner:
    """All runs of a continual table, in order."""

    def __init__(
        self,
        sweep: ContinualSweep,
        split: ContinualSplit,
        folder: Path,
        reporter: Reporter,
        stop: StopRequest,
    ) -> None:
        self.sweep, self.split, self.folder = sweep, split, folder / "runs"
        self.reporter, self.stop = reporter, stop
        self.ledger = Ledger(folder / LEDGER)
        self._shops: dict[str, Workshop] = {}
        first = self.shop(split.before())

        def texts() -> Any:
            return first.texts[0]

        self.teacher = build_recommender(sweep.teacher, first.split, texts)
        self.student = build_recommender(sweep.student, first.split, texts)

    def shop(self, split: RankingSplit) -> Workshop:
        """The workshop of a stage, one object a stage."""
        if split.digest not in self._shops:
            self._shops[split.digest] = Workshop(self.folder, split, self.reporter, self.stop)
        return self._shops[split.digest]

    def run(self) -> TableSpec:
        """Teacher and students of both moments."""
        before, after = self.split.before(), self.split.after()
        grown = int(self.split.grown_U.sum())
        self.reporter.say(f"{self.split.data.name}: {self.split.protocol}")
        self.reporter.say(f"{grown} users have something new")
        old = self.raise_teacher(before, self.sweep.training, None, before)
        new = self.raise_teacher(after, self.sweep.update_training, old, self.split.update())
        places = []
        for seed in self.sweep.seeds:
            cell, params = self.first_student(before, old, seed)
            places.append((AS_IT_WAS, cell))
            scores = self.ledger.find(cell.hash)
            assert scores is not None
            for update in self.sweep.updates:
                own = self.update(update, seed, params, cell.hash, old, new, scores.metrics[OLD])
                places.append((update.label, own))
        order = [AS_IT_WAS, *(update.label for update in self.sweep.updates)]
        places.sort(key=lambda place: order.index(place[0]))
        return self.describe(
            tuple(Place(label, c.model.name, c.seed, c.hash) for label, c in places)
        )

    def raise_teacher(
        self,
        split: RankingSplit,
        training: FitConfig,
        start: _Known | None,
        asked: RankingSplit,
    ) -> _Known:
        """A teacher trained on everything up to a moment, and its words about ``asked``."""
        cell = self.cell(self.sweep.teacher, "full_softmax", training, split, 0, start)
        folder = self.folder / cell.hash / "model"
        if not folder.is_dir():
            params = start.params if start else None
            result = self.train(cell, self.teacher, split, "teacher", params=params)
            keep_model(self.shop(split), cell, self.teacher, result)
            clear_checkpoint(self.folder / cell.hash)
        params = load_recommender(folder).params
        own = recommender_digest(self.teacher, params)
        longest = self.sweep.student.max_length
        table = table_for(self.teacher, HistoryTable(asked, "next", longest))
        provenance_of = TopItemsProvenance(own, table.digest, self.sweep.top)
        cached = self.folder / "teacher_outputs" / provenance_of.digest
        if not cached.is_dir():
            speaker = RecommenderSpeaker(self.teacher, params, self.sweep.top)
            build_top_items(
                cached, provenance_of, table, speaker, on_batch=lambda *_: self.stop.check()
            )
        return _Known(params, own, open_top_items(cached, provenance_of))

    def first_student(self, split: RankingSplit, old: _Known, seed: int) -> tuple[RecCell, Params]:
        """The student of the first moment, filed as ``as it was``."""
        cell = self.cell(
            self.sweep.student, self.sweep.first, self.sweep.training, split, seed, old
        )
        folder = self.folder / cell.hash / "model"
        if self.ledger.find(cell.hash) is None or not folder.is_dir():
            heard = self.listen(cell, old.cache)
            self.run_cell(cell, split, AS_IT_WAS, None, heard, None)
        return cell, load_recommender(folder).params

    def update(
        self,
        update: Update,
        seed: int,
        params: Params,
        before: str,
        old: _Known,
        new: _Known,
        old_score: float,
    ) -> RecCell:
        """One update of one student."""
        grown = self.split.grown_U
        rehearsed_U = self.split.rehearsed(round(update.rehearse * grown.sum()), seed)
        split = self.split.after() if update.anew else self.split.update(rehearsed_U)
        training = self.sweep.training if update.anew else self.sweep.update_training
        cell = self.cell(self.sweep.student, update.objective, training, split, seed, old, new)
        start = "" if update.anew else before
        cell = dataclasses.replace(cell, teacher_digest=digest([cell.teacher_digest, start]))
        if self.ledger.find(cell.hash) is None:
            heard = self.listen(cell, old.cache, new.cache)
            own = None if update.anew else params
            self.run_cell(cell, split, update.label, own, heard, old_score)
        return cell

    def listen(self, cell: RecCell, *caches: TopItemsCache) -> Heard | None:
        """What an objective hears: of users with something new the later word."""
        objective = self.resolve(cell)
        if not objective.needs_teacher:
            return None
        if objective.wanted.strata:
            raise UserError(
                "popularity changes with new interactions: no strata in a continual run"
            )
        heard = [cache.listen(objective.wanted) for cache in caches]
        return heard[0] if len(heard) == 1 else by_user(heard[0], heard[1], self.split.grown_U)

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
        )

    def resolve(self, cell: RecCell) -> Any:
        """Its objective, fitted."""
        student = self.teacher if cell.model == self.sweep.teacher else self.student
        positions = cell.training.batch_size * cell.model.max_length
        return resolve_ranking(
            cell.objective, student.config.shape, self.teacher.config.shape, positions=positions
        )

    def train(
        self,
        cell: RecCell,
        recommender: Recommender,
        split: RankingSplit,
        label: str,
        *,
        params: Params | None = None,
        heard: Heard | None = None,
    ) -> Params:
        """The parameters that a stage ends with."""
        shop, objective = self.shop(split), self.resolve(cell)
        title = f"{cell.model.name}  {label}  seed {cell.seed}"
        result = train_cell(shop, cell, recommender, objective, title, params=params, teacher=heard)
        return result.params

    def run_cell(
        self,
        cell: RecCell,
        split: RankingSplit,
        label: str,
        params: Params | None,
        heard: Heard | None,
        old_score: float | None,
    ) -> None:
        """Train a student, ask the witnesses, file it."""
        started = time.perf_counter()
        self.stop.check()
        found = self.train(cell, self.student, split, label, params=params, heard=heard)
        shop = self.shop(split)
        scorer = scorer_of(self.student).of(found)
        asked = {"old": self.split.old, "new": self.split.new}
        values = {}
        for name, cases in asked.items():
            ranks_E = rank_cases(scorer, self.split.data, cases).ranks_E
            # Targets of one witness are no independent cases: each witness counts once.
            _, values[name], _ = user_means(ndcg(ranks_E, 10), cases.users_E)
        metrics = {f"test/{name}_ndcg@10": float(each.mean()) for name, each in values.items()}
        if old_score is not None:
            metrics[FORGOTTEN] = old_score - metrics[OLD]
        metrics["steps"] = steps_of(split, self.student, cell)
        keep_model(shop, cell, self.student, found)
        row = LedgerRow(
            hash=cell.hash,
            experiment=self.sweep.name,
            row=label,
            group=cell.model.name,
            seed=cell.seed,
            config=_plain(cell),
            metrics=metrics,
            selected_step=None,
            fingerprints={"data": cell.data_digest, "teacher": cell.teacher_digest},
            seconds={"total": time.perf_counter() - started},
            examples_per_second=None,
            test_scores={
                f"{name}_ndcg@10": pack_numbers(each)
                for name, each in values.items()
                if np.isfinite(each).all()
            },
            **provenance(),
        )
        self.ledger.append(row)
        clear_checkpoint(self.folder / cell.hash)
        self.reporter.say(
            f"{label}, seed {cell.seed}: old {metrics[OLD]:.4f}, new {metrics[NEW]:.4f}, "
            f"{row.seconds['total']:.0f} s"
        )

    def describe(self, places: tuple[Place, ...]) -> TableSpec:
        """The table without its numbers."""
        sweep, split = self.sweep, self.split
        return TableSpec(
            name=sweep.name,
            title=f"A recommender brought up to date, {split.data.name}",
            layout="metrics",
            columns=COLUMNS,
            baseline=sweep.updates[0].label,
            places=places,
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


def _plain(cell: RecCell) -> dict[str, Any]:
    from distill_jax.core.settings import plain

    return plain(cell.config)
