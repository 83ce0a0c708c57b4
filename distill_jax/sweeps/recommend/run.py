"""Runs a table of recommenders, one after another; every finished run is a ledger row at once."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.data.histories import HistoryTable
from distill_jax.data.interactions import RankingSplit
from distill_jax.data.load_interactions import load_ranking_split
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import load_recommender, recommender_digest
from distill_jax.models.recommenders.text_items import ItemTexts
from distill_jax.objectives.ranking_objective import RankingObjective, resolve_ranking
from distill_jax.sweeps.ledger import Ledger, LedgerRow
from distill_jax.sweeps.outputs import LEDGER, SPEC
from distill_jax.sweeps.parts import Part, only_process
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.recommend.build import (
    build_recommender,
    start_from_items,
)
from distill_jax.sweeps.recommend.cells import RecCell
from distill_jax.sweeps.recommend.runs import (
    Workshop,
    clear_checkpoint,
    closed_form_cell,
    closed_form_row,
    scorer_of,
    train_cell,
    write_up,
)
from distill_jax.sweeps.recommend.sweep import RecRow, RecSweep
from distill_jax.sweeps.spec import Place, TableSpec
from distill_jax.teachers.recommender_speaker import RecommenderSpeaker, table_for
from distill_jax.teachers.top_items import (
    TopItemsCache,
    TopItemsProvenance,
    build_top_items,
    open_top_items,
    popularity_strata,
)
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.state import Params

TEACHER, PEER = "teacher", "not heard"
SHUFFLE = 20_011
"""Seed of the placebo's permutation, the same for all rows and seeds."""


@dataclasses.dataclass(frozen=True, eq=False)
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


def run_recommenders(
    sweep: RecSweep, folder: Path, reporter: Reporter, *, split: RankingSplit | None = None
) -> tuple[TableSpec, list[LedgerRow]]:
    """Run what is not finished yet; returns the table's description and the ledger's rows.

    Args:
      folder: of the ledger, ``table.json`` and the runs.
      split: the data, where it is loaded already.

    Raises:
      UserError: for anything the user can mend, before anything is trained where possible.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    started = time.perf_counter()
    split = split or load_ranking_split(sweep.data.name, split=sweep.data.split)
    data = split.data
    reporter.say(f"{data.name}: {data.num_users:,} users, {data.num_items:,} items, {len(data):,}")
    reporter.say(f"protocol: {split.protocol}")
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    with StopRequest(reporter.say) as stop, ExitStack() as held:
        held.enter_context(only_process(folder / "runs", Part()))
        shop = Workshop(folder / "runs", split, reporter, stop)
        table = _Runner(sweep, shop, Ledger(folder / LEDGER))
        table.check()
        teacher = table.raise_teacher()
        spec = table.describe(teacher)
        write_atomic(folder / SPEC, spec.to_json() + "\n")
        table.run_all(teacher)
    reporter.say(f"done in {time.perf_counter() - started:.0f} s")
    return spec, table.ledger.rows()


class _Runner:
    """The runs of one table, in order."""

    def __init__(self, sweep: RecSweep, shop: Workshop, ledger: Ledger) -> None:
        self.sweep, self.shop, self.ledger = sweep, shop, ledger
        self._models: dict[Any, Recommender] = {}

    def check(self) -> None:
        """Every model can be built and every objective be computed, before anything is trained."""
        teacher = self.build(self.sweep.teacher.model)
        HistoryTable(self.shop.split, "next", self.sweep.teacher.model.max_length)
        self.resolve(self.sweep.teacher_cell(self.shop.split.digest), teacher, None)
        said = set()
        for peer in self.sweep.peers:
            self.build(peer)
        for row, cell in self.cells("?"):
            student = self.build(cell.model)
            if row.start == "teacher_items" and student.config.items.source != "id":
                raise UserError(f"row {row.label!r}: {cell.model.name} has no item vectors to set")
            for note in self.resolve(cell, student, teacher).notes:
                if note not in said:
                    self.shop.reporter.say(f"{row.label}: {note}")
                said.add(note)

    def build(self, model: Any) -> Recommender:
        """The recommender of a name, one object for all its runs."""
        if model not in self._models:
            self._models[model] = build_recommender(model, self.shop.split, self._vectors)
        return self._models[model]

    def _vectors(self) -> ItemTexts:
        return self.shop.texts[0]

    def resolve(
        self, cell: RecCell, recommender: Recommender, teacher: Recommender | None
    ) -> RankingObjective:
        """The objective of a cell, fitted."""
        return resolve_ranking(
            cell.objective,
            recommender.config.shape,
            teacher.config.shape if teacher else None,
            positions=cell.training.batch_size * cell.model.max_length,
        )

    def cells(self, teacher_digest: str) -> list[tuple[RecRow, RecCell]]:
        return list(self.sweep.cells(self.shop.split.digest, teacher_digest))

    def raise_teacher(self) -> TaughtBy:
        """Train the teacher unless it is there, and ask it about every training position."""
        cell = self.sweep.teacher_cell(self.shop.split.digest)
        recommender = self.train_teacher(cell, TEACHER)
        params = load_recommender(self.shop.folder / cell.hash / "model").params
        digest = recommender_digest(recommender, params)
        cache = self._ask(recommender, params, digest)
        top_EK = self.shop.test(scorer_of(recommender).of(params)).ranked.top_EK
        return TaughtBy(recommender, params, digest, cache, top_EK)

    def train_teacher(
        self, cell: RecCell, row_label: str, teacher_top_EK: np.ndarray | None = None
    ) -> Recommender:
        """A teacher or a peer, trained on labels and filed, unless it is there."""
        recommender = self.build(cell.model)
        folder = self.shop.folder / cell.hash
        if self.ledger.find(cell.hash) is None or not (folder / "model").is_dir():
            started = time.perf_counter()
            objective = self.resolve(cell, recommender, None)
            label = f"{row_label} {cell.model.name}"
            result = train_cell(self.shop, cell, recommender, objective, label)
            seconds = time.perf_counter() - started
            row = write_up(
                self.shop,
                self.sweep.name,
                cell,
                recommender,
                result,
                row=row_label,
                group=cell.model.name,
                teacher_top_EK=teacher_top_EK,
                seconds=seconds,
            )
            self.ledger.append(row)
            clear_checkpoint(folder)
            self.say(label, row)
        return recommender

    def _ask(self, recommender: Recommender, params: Params, digest: str) -> TopItemsCache:
        longest = max(model.max_length for model in self.sweep.students)
        table = table_for(recommender, HistoryTable(self.shop.split, "next", longest))
        provenance = TopItemsProvenance(digest, table.digest, self.sweep.teacher.top)
        folder = self.shop.folder / "teacher_outputs" / provenance.digest
        if not folder.is_dir():
            speaker = RecommenderSpeaker(recommender, params, provenance.top)
            self.shop.reporter.say("asking the teacher about every training position")
            build_top_items(
                folder,
                provenance,
                table,
                speaker,
                on_batch=lambda done, total: self.shop.stop.check(),
            )
        return open_top_items(folder, provenance)

    def describe(self, teacher: TaughtBy) -> TableSpec:
        """The table without its numbers."""
        cell = self.sweep.teacher_cell(self.shop.split.digest)
        places = tuple(
            Place(row.label, each.model.name, each.seed, each.hash)
            for row, each in self.cells(teacher.digest)
        )
        teachers = [Place(TEACHER, cell.model.name, 0, cell.hash)]
        teachers += [
            Place(PEER, peer.name, 0, self.sweep.teacher_cell(cell.data_digest, peer).hash)
            for peer in self.sweep.peers
        ]
        teachers += [
            Place(name, "closed form", 0, closed_form_cell(cell, name).hash)
            for name in self.sweep.references
        ]
        return self.sweep.spec(places, tuple(teachers), self._protocol(cell))

    def _protocol(self, cell: RecCell) -> tuple[str, ...]:
        training, data = self.sweep.training, self.shop.split.data
        users_E = self.shop.split.test.users_E
        weights = (
            "."
            if len(np.unique(users_E)) == len(users_E)
            else ", each with all items that are asked for, as the columns weigh them."
        )
        return (
            f"Data: {data.name}, {data.num_users} users, {data.num_items} items.",
            f"Split: {self.shop.split.protocol}.",
            "Ranks among all items, those of the user's own history left out, ties against the "
            f"model. Tests over examples are tests over users{weights}",
            f"Teacher: {cell.model.name}, trained with {cell.objective} on the same interactions; "
            f"its likeliest {self.sweep.teacher.top} items at each training position are kept.",
            f"Students: {training.epochs} epochs of batches of {training.batch_size} users, the "
            "same steps for every row; the step is chosen by validation NDCG@10, the test split "
            "is read once.",
            *data.notes,
        )

    def run_all(self, teacher: TaughtBy) -> None:
        """Whatever is not in the ledger yet."""
        base = self.sweep.teacher_cell(self.shop.split.digest)
        for name in self.sweep.references:
            cell = closed_form_cell(base, name)
            if self.ledger.find(cell.hash) is None:
                made = closed_form_row(self.shop, self.sweep.name, name, cell, teacher.top_EK)
                self.ledger.append(made)
                self.say(name, made)
        for peer in self.sweep.peers:
            peer_cell = self.sweep.teacher_cell(self.shop.split.digest, peer)
            self.train_teacher(peer_cell, PEER, teacher.top_EK)
        finished = self.ledger.finished_hashes()
        for row, cell in self.cells(teacher.digest):
            if cell.hash not in finished:
                self.run_cell(row, cell, teacher)
                finished.add(cell.hash)

    def run_cell(self, row: RecRow, cell: RecCell, teacher: TaughtBy) -> None:
        """Train one student and file it."""
        started = time.perf_counter()
        self.shop.stop.check()
        recommender = self.build(cell.model)
        objective = self.resolve(cell, recommender, teacher.recommender)
        params = recommender.init(jax.random.key(cell.seed))
        if cell.start == "teacher_items":
            items_ID = np.asarray(teacher.recommender.item_vectors(teacher.params))
            params = start_from_items(recommender, params, items_ID)
        label = f"{cell.model.name}  {row.label}  seed {cell.seed}"
        result = train_cell(
            self.shop,
            cell,
            recommender,
            objective,
            label,
            params=params,
            teacher=heard(self.shop.split, objective, teacher.cache, cell.placebo),
        )
        filed = write_up(
            self.shop,
            self.sweep.name,
            cell,
            recommender,
            result,
            row=row.label,
            group=cell.model.name,
            teacher_top_EK=teacher.top_EK,
            seconds=time.perf_counter() - started,
        )
        self.ledger.append(filed)
        clear_checkpoint(self.shop.folder / cell.hash)
        self.say(label, filed)

    def say(self, label: str, row: LedgerRow) -> None:
        figures = [f"NDCG@10 {row.metrics['test/ndcg@10']:.4f}"]
        figures.append(f"HR@10 {row.metrics['test/hr@10']:.4f}")
        self.shop.reporter.say(f"{label}: {', '.join(figures)}, {row.seconds['total']:.0f} s")


def heard(
    split: RankingSplit, objective: RankingObjective, cache: TopItemsCache, placebo: bool
) -> TeacherOutputs | None:
    """What an objective hears of a teacher; None where it listens to none."""
    if not objective.needs_teacher:
        return None
    wanted = objective.wanted
    strata_I = popularity_strata(split.train_counts_I, wanted.strata) if wanted.strata else None
    return cache.listen(wanted, strata_I=strata_I, shuffle=SHUFFLE if placebo else None)
