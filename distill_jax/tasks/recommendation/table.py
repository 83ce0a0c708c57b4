"""Sequential recommendation, see ``interface.Task``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from distill_jax.core.distributed import is_lead
from distill_jax.core.errors import UserError
from distill_jax.data.histories import HistoryTable
from distill_jax.data.interactions import RankingSplit
from distill_jax.data.load_interactions import load_ranking_split
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.first_step import check_first_steps
from distill_jax.engine.interface import Run
from distill_jax.engine.merge import rows_in
from distill_jax.engine.resume import Known
from distill_jax.engine.rows import training_facts
from distill_jax.engine.sweep import Entry, Sweep, objectives_told
from distill_jax.engine.work import Work, compute_dtype
from distill_jax.models.recommenders.build import Recommender, parse_model
from distill_jax.models.recommenders.closed_forms import fitting
from distill_jax.objectives.items import parse_ranking, resolve_ranking
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import Place, TableSpec
from distill_jax.tasks.recommendation.build import build_recommender, start_from_items
from distill_jax.tasks.recommendation.catalogue import Catalogue
from distill_jax.tasks.recommendation.cells import (
    RecModel,
    RecommenderCell,
    RecommenderSetup,
    RecTeacher,
)
from distill_jax.tasks.recommendation.runs import (
    closed_form_row,
    recommender_work,
    scorer_of,
    write_up,
)
from distill_jax.tasks.recommendation.taught import Kept, asked, kept_items, trained_once
from distill_jax.teachers.factor_words import FactorWords
from distill_jax.teachers.top_items import TopItemsCache, popularity_strata
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.recommender import NDCG, FitConfig
from distill_jax.training.state import Params

TEACHER, PEER = "teacher", "not heard"
SHUFFLE = 20_011
"""Seed of the placebo's permutation, the same for all rows and seeds."""


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
    cache: TopItemsCache | FactorWords
    top_EK: np.ndarray


@dataclass(eq=False)
class Recommendation:
    """What is needed for the runs of a sweep of recommenders, and the runs.

    Attributes:
      given: the data, where they are loaded already.
      peers: other models of the teacher's training that stand beside it; nobody listens to them.
      kept: what the table left that this one's run is of.
      references: in closed form, as far as the catalogue can have them.
      left_out: what is said of the others, and of peers that the data cannot have.
    """

    sweep: Sweep[RecommenderSetup]
    given: RankingSplit | None = None
    peers: tuple[RecModel, ...] = ()
    kept: Kept | None = None
    entries: Sequence[Entry[RecommenderSetup]] = ()
    engine: Engine = field(init=False)
    catalogue: Catalogue = field(init=False)
    references: tuple[str, ...] = field(init=False, default=())
    left_out: tuple[str, ...] = field(init=False, default=())
    taught: TaughtBy | None = None
    _models: dict[RecModel, Recommender] = field(default_factory=dict)
    _heard: dict[Any, TeacherOutputs] = field(default_factory=dict)

    @property
    def setup(self) -> RecommenderSetup:
        """Of all entries, but for what they change."""
        return self.sweep.base.setup

    @property
    def split(self) -> RankingSplit:
        """The data."""
        return self.catalogue.split

    def prepare(self, engine: Engine, entries: Sequence[Entry[RecommenderSetup]]) -> None:
        """Every model can be built and every objective be computed."""
        self.engine, self.entries = engine, entries
        fitting(self.sweep.references, 1)  # their names, before anything is read
        own = self.setup.data
        split = self.given or load_ranking_split(
            own.name,
            split=own.split,
            preparation=own.preparation,
            columns=own.read_columns,
            asked=own.asked,
        )
        self.catalogue = Catalogue(engine, split, own.item_vectors, own.item_features)
        data, say = split.data, engine.reporter.say
        say(f"{data.name}: {data.num_users:,} users, {data.num_items:,} items, {len(data):,}")
        self.references, self.left_out = fitting(self.sweep.references, data.num_items)
        self._leave_out_readers()
        for note in (*data.notes, *self.left_out):
            say(f"note: {note}")
        say(f"protocol: {split.protocol}")
        teacher = self._prepare_teacher()
        for line in self.learned_from:
            say(line)
        said = set()
        for entry in entries:
            cell = entry.cell
            student = self.build(cell.setup.model)
            if cell.setup.start == "teacher_items" and not student.config.items.only_own:
                name = cell.setup.model.name
                raise UserError(f"row {entry.label!r}: {name} has not only item vectors of its own")
            objective = self.resolve(cell, student, teacher)
            cell.training.check_kinds(data.kind_names)
            engine.check_batch_size(cell.training.batch_size)
            student.computing_in(compute_dtype(cell.precision), engine.options.remat)
            for note in objective.notes:
                if note not in said:
                    say(f"{entry.label}: {note}")
                said.add(note)

    def _leave_out_readers(self) -> None:
        """No peers that read texts where there are none: nobody hears them."""
        readers = [each for each in self.peers if parse_model(each.name).source in ("text", "both")]
        if self.split.data.item_texts is None and readers:
            names = ", ".join(each.name for each in readers)
            self.peers = tuple(each for each in self.peers if each not in readers)
            note = f"{names}: no row, as the data has no texts of items"
            self.left_out = (*self.left_out, note)

    def _prepare_teacher(self) -> Recommender | None:
        config = self.setup.teacher
        if config is None:
            return None
        teacher = self.build(config.model)
        HistoryTable(self.split, "next", config.model.max_length)
        self.resolve(self.teacher_cell(), teacher, None)
        config.training.check_kinds(self.split.data.kind_names)
        for peer in self.peers:
            self.build(peer)
        self.engine.check_batch_size(config.training.batch_size)
        return teacher

    def build(self, model: RecModel) -> Recommender:
        """The recommender of a name, one object for all its runs."""
        model = dataclasses.replace(model, vectors="", features="")
        if model not in self._models:
            catalogue = self.catalogue
            self._models[model] = build_recommender(
                model,
                self.split,
                lambda: catalogue.texts[0],
                lambda: catalogue.given,
                lambda: catalogue.fields,
            )
        return self._models[model]

    def bound(self, model: RecModel) -> RecModel:
        """A model that knows which vectors and fields of items it reads."""
        items = self.build(model).config.items
        vectors = self.catalogue.given_digest if items.given_width else ""
        features = self.catalogue.fields.digest if items.fields else ""
        return dataclasses.replace(model, vectors=vectors, features=features)

    @property
    def learned_from(self) -> tuple[str, ...]:
        """A sentence a model: the share of the training part that it learns from."""
        cells = [entry.cell for entry in self.entries]
        if self.setup.teacher is not None:
            cells = [self.teacher_cell(), *map(self.teacher_cell, self.peers), *cells]
        told = {}
        for cell in cells:
            model, windows = cell.setup.model, cell.training.windows
            config = self.build(model).config
            table = HistoryTable(self.split, config.task, config.max_length, windows)
            told[model.name, config.max_length, windows] = f"{model.name} learns from {table.told}."
        return tuple(told.values())

    def resolve(
        self, cell: RecommenderCell, recommender: Recommender, teacher: Recommender | None
    ) -> ResolvedObjective:
        """The objective of a cell, fitted."""
        return resolve_ranking(
            cell.objective,
            recommender.config.shape,
            teacher.config.shape if teacher else None,
            positions=cell.training.batch_size * cell.setup.model.max_length,
        )

    def teacher_cell(self, model: RecModel | None = None) -> RecommenderCell:
        """The teacher's own training, or a peer's."""
        config = self.setup.teacher
        assert config is not None, "asked of tables with a teacher"
        own = self.setup
        setup = RecommenderSetup(own.data, self.bound(model or config.model), among=own.among)
        stages = (Train(config.objective, config.training),)
        return Cell(setup, stages, config.seed, data_digest=self.split.digest)

    def known(self, cell: RecommenderCell) -> Known:
        model = self.bound(cell.setup.model)
        known = cell.but(data_digest=self.split.digest, model=model)
        return known.config, ("teacher_digest", "plugin")

    def raise_teachers(self, ledger: Ledger) -> None:
        """Train the teacher unless it is there, ask it about every training position; then all
        that stands beside it: recommenders in closed form, and peers."""
        if self.setup.teacher is not None:
            self.taught = self._taught_by(self.setup.teacher, ledger)
        for name in self.references:
            cell = self._closed_form(name)
            if self._is_due(cell, ledger):
                self.engine.check_stop()
                row = closed_form_row(self.catalogue, self.sweep.name, name, cell, self.shown_EK)
                self._append(ledger, name, row)
        for peer in self.peers:
            cell = self.teacher_cell(peer)
            if self._is_due(cell, ledger):
                self._trained(cell, PEER, ledger, self.shown_EK)

    @property
    def shown_EK(self) -> np.ndarray | None:
        """What the teacher shows each test user; None without one."""
        return None if self.taught is None else self.taught.top_EK

    def _closed_form(self, name: str) -> RecommenderCell:
        """The cell of a reference, whose model's fields say nothing: one for all tables of one
        teacher."""
        first = self.entries[0].cell.but(data_digest=self.split.digest)
        own = first if self.setup.teacher is None else self.teacher_cell()
        return own.but(objective=name, teacher_digest="", top=0, seed=0)

    def _is_due(self, cell: RecommenderCell, ledger: Ledger) -> bool:
        """Whether this part of the table has to make a row."""
        share = self.engine.options.share
        return share.holds(cell.hash) and cell.hash not in rows_in(ledger.path.parent)

    def _taught_by(self, config: RecTeacher, ledger: Ledger) -> TaughtBy:
        params = self._trained(self.teacher_cell(), TEACHER, ledger, None)
        recommender = self.build(config.model)
        longest = max(entry.cell.setup.model.max_length for entry in self.entries)
        windows = any(each.training.windows for entry in self.entries for each in entry.cell.making)
        table = HistoryTable(self.split, "next", longest, windows)
        digest, cache = asked(
            self.engine,
            recommender,
            params,
            table,
            config.top,
            users=config.users,
            kept=self.kept,
        )
        top_EK = self.catalogue.test(scorer_of(recommender).of(params)).ranked.top_EK
        return TaughtBy(recommender, params, digest, cache, top_EK)

    def _trained(
        self, cell: RecommenderCell, label: str, ledger: Ledger, teacher_top_EK: np.ndarray | None
    ) -> Params:
        """A teacher or a peer, trained on labels and filed."""
        recommender, title = self.build(cell.setup.model), f"{label} {cell.setup.model.name}"
        objective = self.resolve(cell, recommender, None)
        start = recommender.init(jax.random.key(cell.seed))
        params, facts = trained_once(
            self.engine, self.split, cell, recommender, objective, start, title, self.kept
        )
        if self._is_due(cell, ledger):
            row = write_up(
                self.catalogue,
                self.sweep.name,
                cell,
                recommender,
                params,
                facts,
                row=label,
                group=cell.setup.model.name,
                teacher_top_EK=teacher_top_EK,
            )
            self._append(ledger, title, row)
        return params

    def _append(self, ledger: Ledger, label: str, row: LedgerRow) -> None:
        if is_lead():
            ledger.append(row)
        self.engine.reporter.say(f"{label}: {told(row)}, {row.seconds['total']:.0f} s")

    def run(self, entry: Entry[RecommenderSetup]) -> RecommenderRun:
        cell = entry.cell
        heard = self.taught if cell.setup.top else None
        cell = cell.but(
            plugin=plugin_digest(*cell.objectives, read=parse_ranking),
            model=self.bound(cell.setup.model),
            data_digest=self.split.digest,
            teacher_digest=heard.digest if heard else "",
        )
        return RecommenderRun(dataclasses.replace(entry, cell=cell), self)

    def heard(self, objective: ResolvedObjective, placebo: bool) -> TeacherOutputs | None:
        """What an objective hears of the teacher, one object for all that hear the same."""
        if not objective.needs_teacher or self.taught is None:
            return None
        wanted = objective.teacher_capture
        if (wanted, placebo) not in self._heard:
            counts_I = self.split.train_counts_I
            strata_I = popularity_strata(counts_I, wanted.strata) if wanted.strata else None
            shuffle = SHUFFLE if placebo else None
            heard = self.taught.cache.listen(wanted, strata_I=strata_I, shuffle=shuffle)
            self._heard[wanted, placebo] = heard
        return self._heard[wanted, placebo]

    def described(self, spec: TableSpec) -> TableSpec:
        config = self.setup.teacher
        speakers = (
            [(TEACHER, config.model), *((PEER, peer) for peer in self.peers)] if config else []
        )
        teachers = [
            Place(label, model.name, 0, self.teacher_cell(model).hash) for label, model in speakers
        ]
        closed = [
            Place(name, "closed form", 0, self._closed_form(name).hash) for name in self.references
        ]
        protocol = (*self._protocol(), *spec.protocol)
        return dataclasses.replace(spec, teachers=(*teachers, *closed), protocol=protocol)

    def _protocol(self) -> tuple[str, ...]:
        training, data, teacher = self.sweep.base.training, self.split.data, self.setup.teacher
        users_E = self.split.test.users_E
        weights = (
            "."
            if len(np.unique(users_E)) == len(users_E)
            else ", each with all items that are asked for, as the columns weigh them."
        )
        seen = "too" if data.repeats else "left out"
        seen = f"as {data.kind_names[0]!r} {seen}" if data.kind_names else seen
        taught = teacher and (
            f"Teacher: {teacher.model.name}, trained with {teacher.objective} on the same "
            f"interactions; {self._kept(teacher)}.",
            *self._privileged(teacher),
        )
        return (
            f"Data: {data.name}, {data.num_users} users, {data.num_items} items.",
            f"Split: {self.split.protocol}.",
            f"Ranks among all items, those of the user's own history {seen}, ties against the "
            f"model. Tests over examples are tests over users{weights}",
            *(taught or ()),
            self._trained_how(training),
            *self._sampled(),
            *self._weights_told(),
            *self.learned_from,
            *objectives_told(self.entries),
            *data.notes,
            *self.left_out,
            *self.catalogue.unknown,
        )

    def _privileged(self, teacher: RecTeacher) -> tuple[str, ...]:
        """What the teacher reads of events that those who ask for a list do not have."""
        if not parse_model(teacher.model.name).privileged:
            return ()
        fields = ", ".join(self.split.data.field_names)
        return (f"{teacher.model.name} reads privileged fields of every event: {fields}.",)

    def _weights_told(self) -> tuple[str, ...]:
        """How much each kind of feedback counts, where rows do not differ in it."""
        names = self.split.data.kind_names
        weights = {entry.cell.training.kind_weights for entry in self.entries}
        if not names or len(weights) > 1:
            return ()
        numbers = next(iter(weights)) or (1.0,) * len(names)
        each = ", ".join(f"{name} {x:g}" for name, x in zip(names, numbers, strict=True))
        return (f"Weights of the kinds of feedback in training: {each}.",)

    def _kept(self, teacher: RecTeacher) -> str:
        if self.build(teacher.model).config.knows_users:
            return "its vectors and its lists of a user's or an item's likeliest are asked directly"
        top = kept_items(teacher.top, self.split.data.num_items)
        kept = f"its likeliest {top} items at each training position"
        return f"{kept} are kept" + (f", of {teacher.users} users at most" if teacher.users else "")

    def _trained_how(self, training: FitConfig) -> str:
        single = training.windows and self.sweep.base.setup.model.max_length == 1
        rows = "interactions" if single else "users"
        batches = f"batches of {training.batch_size} {rows}"
        chosen = "NDCG@10" if training.select == NDCG else training.select
        if not training.patience:
            steps = f"{training.epochs} epochs of {batches}, the same steps for every row"
        else:
            watched = " or ".join((chosen, *training.watched))
            each = f"{training.eval_every} epochs" if training.eval_every > 1 else "epoch"
            steps = (
                f"at most {training.epochs} epochs of {batches}; training ends when in "
                f"{training.patience} evaluations, one every {each}, {watched} was no better"
            )
        return (
            f"Students: {steps}; the step is chosen by validation {chosen}, the test split is "
            "read once."
        )

    def _sampled(self) -> tuple[str, ...]:
        if not (among := self.setup.among):
            return ()
        seeds = ", ".join(map(str, self.sweep.seeds))
        return (
            f"Sampled figures rank each target among {among} items that its user never took, drawn "
            f"anew for each user by the run's seed ({seeds}); ties against the model. They are "
            "higher than those over all items and need not order models as those do (Krichene "
            "and Rendle 2020).",
        )

    def self_check(self, runs: Sequence[Run]) -> None:
        check_first_steps(self.engine, runs)


@dataclass(frozen=True, eq=False)
class RecommenderRun(Run):
    """A student."""

    table: Recommendation

    @property
    def recommender(self) -> Recommender:
        """What is trained."""
        return self.table.build(self.cell.setup.model)

    @property
    def objective(self) -> ResolvedObjective:
        """Fitted."""
        teacher = self.table.taught.recommender if self.table.taught else None
        return self.table.resolve(self.cell, self.recommender, teacher)

    @property
    def works(self) -> tuple[Work, ...]:
        return (recommender_work(self.table.split, self.cell, self.recommender, self.objective),)

    @property
    def together(self) -> Mapping[str, Any]:
        return {"model": self.cell.setup.model, **batches_of(self.cell.training)}

    def start(self) -> Params:
        recommender, teacher = self.recommender, self.table.taught
        params = recommender.init(jax.random.key(self.cell.seed))
        if self.cell.setup.start != "teacher_items" or teacher is None:
            return params
        items_ID = np.asarray(teacher.recommender.item_vectors(teacher.params))
        return start_from_items(recommender, params, items_ID)

    def outputs(self) -> TeacherOutputs | None:
        return self.table.heard(self.objective, self.cell.setup.placebo)

    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        return write_up(
            self.table.catalogue,
            self.table.sweep.name,
            self.cell,
            self.recommender,
            result.params,
            training_facts(result, seconds),
            row=self.entry.label,
            group=self.entry.group,
            teacher_top_EK=self.table.shown_EK,
        )

    def told(self, row: LedgerRow) -> str:
        return told(row)


def batches_of(training: FitConfig) -> dict[str, Any]:
    """What makes the batches of one training others than those of another, beside its sizes."""
    windows = {"windows": True} if training.windows else {}
    weights = {"kind_weights": training.kind_weights} if training.kind_weights else {}
    return {**windows, **weights}


def told(row: LedgerRow) -> str:
    """Main scores, in a line."""
    return f"NDCG@10 {row.metrics['test/ndcg@10']:.4f}, HR@10 {row.metrics['test/hr@10']:.4f}"
