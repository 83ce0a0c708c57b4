"""Query-product search: a cross-encoder teaches two towers, see ``interface.Task``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core.distributed import is_lead, to_host
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.first_step import check_first_steps
from distill_jax.engine.interface import Run
from distill_jax.engine.merge import rows_in
from distill_jax.engine.resume import Known
from distill_jax.engine.rows import ledger_row, training_facts
from distill_jax.engine.sweep import Entry, Sweep, distinct, objectives_told
from distill_jax.engine.work import Work, compute_dtype
from distill_jax.evaluation.item_catalogue import Catalogue
from distill_jax.evaluation.latency import call_latency, cpu_device, parameter_count
from distill_jax.evaluation.open_search import OpenSearch, save_search
from distill_jax.evaluation.search import PROTOCOL, Encoder, SearchScores, retrieval_scores
from distill_jax.models.build import build_model
from distill_jax.models.narrowed import embeddings_from
from distill_jax.models.students import init_student, parse_preset, student_config
from distill_jax.models.two_tower import (
    TwoTower,
    TwoTowerConfig,
    init_two_tower,
    pretrained_towers,
)
from distill_jax.objectives.lists import resolve_lists
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import Place, TableSpec
from distill_jax.tasks.search.cells import (
    SearchCell,
    SearchDataConfig,
    SearchSetup,
    SearchTeacherConfig,
)
from distill_jax.tasks.search.task import (
    SELECT,
    SearchTask,
    SearchTeacher,
    prepare,
    search_work,
    train_teacher,
)
from distill_jax.teachers.pair_scores import PairScores
from distill_jax.training.checkpoint import Identity
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.state import Params

TEACHER, RETRIEVER = "cross-encoder, reranks", "encoder as it came"


@dataclass(frozen=True, eq=False)
class _Taught:
    """What the cells of one data set and one teacher share.

    Attributes:
      shuffled: seed -> the teacher's scores, given to other candidates of the same query.
    """

    task: SearchTask
    teacher: SearchTeacher
    scores: PairScores
    shuffled: dict[int, PairScores] = field(default_factory=dict)

    def heard(self, cell: SearchCell) -> PairScores:
        """What a cell hears of the teacher, one object for all that hear the same."""
        if cell.setup.hears == "teacher":
            return self.scores
        if cell.seed not in self.shuffled:
            self.shuffled[cell.seed] = self.scores.shuffled(cell.seed)
        return self.shuffled[cell.seed]


@dataclass(eq=False)
class Search:
    """What is needed for the runs of a sweep of search students, and the runs."""

    sweep: Sweep[SearchSetup]
    entries: Sequence[Entry[SearchSetup]] = ()
    engine: Engine = field(init=False)
    _tasks: dict[Any, SearchTask] = field(default_factory=dict)
    _taught: dict[Any, _Taught] = field(default_factory=dict)
    _references: list[Place] = field(default_factory=list)

    def prepare(self, engine: Engine, entries: Sequence[Entry[SearchSetup]]) -> None:
        self.engine, self.entries = engine, entries
        for cell in distinct(entries):
            key = _key(cell)
            if key not in self._tasks:
                self._tasks[key] = task = prepare(*key)
                for note in (*task.data.notes, *task.told):
                    engine.reporter.say(f"data: {note}")
            plugin_digest(cell.objective)
            objective_of(cell)
            config, _ = start_student(cell, self._tasks[key])
            build_model(config, compute_dtype(cell.precision), engine.options.remat)
            for training in (cell.setup.teacher.training, cell.training):
                engine.check_batch_size(training.batch_size)

    def known(self, cell: SearchCell) -> Known:
        known = cell.but(data_digest=self._tasks[_key(cell)].digest)
        return known.config, ("teacher_digest", "plugin")

    def raise_teachers(self, ledger: Ledger) -> None:
        for entry in self.entries:
            key = _key(entry.cell)
            if key in self._taught:
                continue
            task = self._tasks[key]
            teacher = train_teacher(self.engine, task, entry.cell.setup.teacher)
            self.engine.check_stop()
            self.engine.reporter.say("asking the teacher about the candidates")
            self._taught[key] = _Taught(task, teacher, teacher.pair_scores(task))
            self._file_references(entry.cell, self._taught[key], ledger)

    def run(self, entry: Entry[SearchSetup]) -> SearchRun:
        taught = self._taught[_key(entry.cell)]
        cell = entry.cell.but(
            plugin=plugin_digest(entry.cell.objective),
            data_digest=taught.task.digest,
            teacher_digest=taught.teacher.digest,
        )
        return SearchRun(dataclasses.replace(entry, cell=cell), self.sweep.name, taught)

    def described(self, spec: TableSpec) -> TableSpec:
        below = dict.fromkeys(line for task in self._tasks.values() for line in task.below)
        protocol = (*spec.protocol, *objectives_told(self.entries), PROTOCOL, *below)
        return dataclasses.replace(spec, teachers=tuple(self._references), protocol=protocol)

    def self_check(self, runs: Sequence[Run]) -> None:
        check_first_steps(self.engine, runs)

    def _file_references(self, cell: SearchCell, taught: _Taught, ledger: Ledger) -> None:
        """The teacher, and the encoder that it and the candidates come from, in the ledger."""
        group, task = self.sweep.groups[0].label, taught.task
        for label, digest_ in ((TEACHER, taught.teacher.digest), (RETRIEVER, task.encoder.digest)):
            setup = SearchSetup(
                cell.setup.data, cell.setup.teacher, label, in_batch=False, transfer=False
            )
            own = Cell(
                setup,
                (Train("", cell.setup.teacher.training),),
                precision=cell.precision,
                data_digest=task.digest,
                teacher_digest=digest_,
            )
            place = Place(label, group, 0, own.hash)
            if place in self._references:
                continue
            self._references.append(place)
            due = self.engine.options.share.holds(own.hash)
            if due and own.hash not in rows_in(ledger.path.parent) and is_lead():
                ledger.append(self._reference(own, label, group, taught))

    def _reference(self, cell: SearchCell, label: str, group: str, taught: _Taught) -> LedgerRow:
        task, teacher = taught.task, taught.teacher
        if label == TEACHER:
            found = teacher.rerank(task, "test", cell.setup.teacher.candidates)
            params, training = teacher.params, teacher.training
        else:
            rows = task.data.splits["test"]
            found = retrieval_scores(task.data, rows, task.retrieved_QK[rows])
            params, training = task.encoder.params, {}
        return ledger_row(
            hash=cell.hash,
            experiment=self.sweep.name,
            row=label,
            group=group,
            seed=0,
            config=cell.config,
            metrics={**_test_metrics(found), "parameters": parameter_count(params)},
            fingerprints=_fingerprints(task, teacher),
            training=training,
            history=_shown(training.get("history", [])),
            test_scores={SELECT: pack_numbers(found.by_query[SELECT])},
        )


@dataclass(frozen=True, eq=False)
class SearchRun(Run):
    """A student."""

    experiment: str
    taught: _Taught

    @property
    def task(self) -> SearchTask:
        """What it learns from."""
        return self.taught.task

    @cached_property
    def _begun(self) -> tuple[TwoTowerConfig, Params]:
        return start_student(self.cell, self.task)

    @cached_property
    def works(self) -> tuple[Work, ...]:
        cell, task, config = self.cell, self.task, self._begun[0]
        objective, encoder = objective_of(cell), Encoder(TwoTower(config))
        use_transfer = cell.setup.transfer and objective.needs_teacher
        table = task.table(
            list_size=cell.training.list_size,
            use_transfer=use_transfer,
            scores_QM=self.taught.heard(cell).scores_QM,
        )

        def validate(params: Params, mesh: Mesh, on_batch: Callable[[], None]) -> dict[str, float]:
            return task.find(encoder, to_host(params), "validation").means

        work = search_work(
            Identity(cell.hash, self.config),
            cell.seed,
            config,
            objective,
            cell.training,
            table,
            data=f"{task.digest} {use_transfer} {cell.setup.hears} {cell.teacher_digest}",
            evaluate=validate,
            precision=cell.precision,
        )
        return (work,)

    @property
    def together(self) -> Mapping[str, Any]:
        return {"start": self.cell.setup.start}

    def start(self) -> Params:
        return self._begun[1]

    def outputs(self) -> TeacherOutputs | None:
        return self.taught.heard(self.cell) if objective_of(self.cell).needs_teacher else None

    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        task, (config, _) = self.task, self._begun
        found = task.find(Encoder(TwoTower(config)), result.params, "test")
        if is_lead():
            folder = engine.run_folder(self.hash) / "model"
            products = Catalogue(task.data.item_ids, task.data.items)
            tokenizer = task.encoder.tokenizer_file
            save_search(folder, config, result.params, products, task.limits, tokenizer)
        return ledger_row(
            hash=self.hash,
            experiment=self.experiment,
            row=self.entry.label,
            group=self.entry.group,
            seed=self.cell.seed,
            config=self.config,
            metrics={
                **_test_metrics(found),
                **_query_costs(config, result.params, task),
                f"validation/{SELECT}": result.progress.best_score,
            },
            fingerprints=_fingerprints(task, self.taught.teacher),
            training=training_facts(result, seconds),
            history=_shown(result.progress.history),
            test_scores={SELECT: pack_numbers(found.by_query[SELECT])},
        )

    def told(self, row: LedgerRow) -> str:
        return f"nDCG@10 {row.metrics[f'test/{SELECT}']:.3f}"


def objective_of(cell: SearchCell) -> ResolvedObjective:
    """A cell's objective, fitted to its lists."""
    return resolve_lists(
        cell.objective,
        list_size=cell.training.list_size,
        teacher=True,
        in_batch=cell.setup.in_batch,
    )


def _key(cell: SearchCell) -> tuple[SearchDataConfig, SearchTeacherConfig]:
    return cell.setup.data, cell.setup.teacher


def _shown(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """What a learning curve shows."""
    return [{"step": at["step"], SELECT: at[SELECT]} for at in history]


def start_student(cell: SearchCell, task: SearchTask) -> tuple[TwoTowerConfig, Any]:
    """A cell's student before its first step.

    Raises:
      UserError: for an unknown size.
    """
    encoder, setup = task.encoder, cell.setup
    rng = jax.random.key(cell.seed)
    bert = student_config(setup.student, encoder.config)
    if parse_preset(setup.student).copies_teacher:
        layers = init_student(setup.student, encoder.config, encoder.params, rng)
        config, params = pretrained_towers(bert, layers, shared=setup.shared)
        return dataclasses.replace(config, similarity=setup.similarity), params
    bert = dataclasses.replace(bert, num_labels=bert.hidden_size)
    config = TwoTowerConfig(bert, setup.shared, setup.similarity)
    params = jax.device_get(init_two_tower(config, rng))
    if setup.start == "words":
        params = {name: embeddings_from(own, encoder.params) for name, own in params.items()}
    return config, params


def _test_metrics(found: SearchScores) -> dict[str, float]:
    return {f"test/{name}": value for name, value in found.means.items()}


def _query_costs(config: TwoTowerConfig, params: Any, task: SearchTask) -> dict[str, float]:
    """Size, and the time of one query on the CPU through the door that people use, ``search`` of
    the opened towers: a text in, ten products out; products have vectors before."""
    rows = task.data.splits["test"][:: max(len(task.data.splits["test"]) // 50, 1)][:50]
    vectors_ID = np.random.default_rng(0).normal(size=(len(task.items), config.vector_size))
    with jax.default_device(cpu_device()):
        opened = OpenSearch(
            config,
            jax.device_get(params),
            Catalogue(task.data.item_ids, task.data.items),
            task.limits,
            task.encoder.tokenizer_file,
            vectors_ID.astype(np.float32),
        )
        asked = [[task.data.queries[int(row)]] for row in rows]
        latency = call_latency(opened.search, asked, repeats=5)
    return {
        "parameters": parameter_count(params),
        "latency/p50_ms": latency.p50_ms,
        "latency/p95_ms": latency.p95_ms,
    }


def _fingerprints(task: SearchTask, teacher: SearchTeacher) -> dict[str, str]:
    return {
        "teacher": teacher.digest,
        "pretrained": task.encoder.digest,
        "data": task.data.digest,
        "tokens": task.digest,
    }
