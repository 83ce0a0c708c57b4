"""A table of search students: what the runner asks of it, see ``interface.TableTask``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from distill_jax.core.distributed import is_lead, to_host
from distill_jax.engine.engine import Engine
from distill_jax.engine.first_step import check_first_steps
from distill_jax.engine.interface import Run
from distill_jax.engine.merge import rows_in
from distill_jax.engine.options import DEFAULTS, RunOptions, Strategy, TrackTo
from distill_jax.engine.progress import Reporter
from distill_jax.engine.resume import Known
from distill_jax.engine.rows import ledger_row, training_facts
from distill_jax.engine.run import run_table
from distill_jax.engine.work import Work, compute_dtype
from distill_jax.evaluation.item_catalogue import Catalogue
from distill_jax.evaluation.latency import cpu_latencies
from distill_jax.evaluation.open_search import save_search
from distill_jax.evaluation.search import PROTOCOL, Encoder, SearchScores, retrieval_scores
from distill_jax.evaluation.size import model_size
from distill_jax.models.bert import Bert, BertConfig
from distill_jax.models.students import init_student, parse_preset, student_config
from distill_jax.models.two_tower import (
    TwoTower,
    TwoTowerConfig,
    embeddings_from,
    init_two_tower,
    pretrained_towers,
)
from distill_jax.objectives.lists import resolve_lists
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tables.columns import Column
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import Place, TableSpec, Where
from distill_jax.tasks.search.cells import SearchCell, SearchSweep
from distill_jax.tasks.search.task import (
    SELECT,
    SearchTask,
    SearchTeacher,
    prepare,
    search_model,
    search_work,
    train_teacher,
)
from distill_jax.teachers.pair_scores import PairScores
from distill_jax.training.checkpoint import Identity
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.state import Params

TEACHER, RETRIEVER = "cross-encoder, reranks", "encoder as it came"
COLUMNS = (
    Column("test/ndcg@10", "nDCG@10", 1, 3, higher_is_better=True),
    Column("test/mrr@10", "MRR@10", 1, 3, higher_is_better=True),
    Column("test/recall@10", "recall@10", 1, 3, higher_is_better=True),
    Column("test/recall@100", "recall@100", 1, 3, higher_is_better=True),
    Column("parameters", "parameters (M)", 1e-6, 2, kind="value"),
    Column("latency/p50_ms", "query p50 (ms)", 1, 2, kind="mean"),
    Column("seconds/train", "train (s)", 1, 0, kind="mean"),
)


def run_search(
    sweep: SearchSweep,
    folder: Path,
    reporter: Reporter | None = None,
    *,
    track: TrackTo = "none",
    strategy: Strategy = "sequential",
    options: RunOptions = DEFAULTS,
) -> tuple[TableSpec, list[LedgerRow]]:
    """``run.run_table`` of search students."""
    return run_table(
        SearchTable(sweep),
        folder,
        reporter or Reporter(),
        track=track,
        strategy=strategy,
        options=options,
    )


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
        if cell.hears == "teacher":
            return self.scores
        if cell.seed not in self.shuffled:
            self.shuffled[cell.seed] = self.scores.shuffled(cell.seed)
        return self.shuffled[cell.seed]


@dataclass(eq=False)
class SearchTable:
    """What is needed for the runs of a sweep of search students, and the runs."""

    sweep: SearchSweep
    engine: Engine = field(init=False)
    _tasks: dict[Any, SearchTask] = field(default_factory=dict)
    _taught: dict[Any, _Taught] = field(default_factory=dict)
    _references: list[Place] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.sweep.name

    @property
    def cells(self) -> list[tuple[str, str, SearchCell]]:
        """(row, group, cell) in the order of the table."""
        return [
            (row, group, self.sweep.cell(row, group, s)) for row, group, s in self.sweep.entries
        ]

    def prepare(self, engine: Engine) -> None:
        self.engine = engine
        for cell in dict.fromkeys(dataclasses.replace(cell, seed=0) for _, _, cell in self.cells):
            key = cell.data, cell.teacher
            if key not in self._tasks:
                self._tasks[key] = task = prepare(*key)
                for note in (*task.data.notes, *task.told):
                    engine.reporter.say(f"data: {note}")
            plugin_digest(cell.objective)
            objective_of(cell)
            config, _ = start_student(cell, self._tasks[key])
            search_model(config, compute_dtype(cell.precision), engine.options.remat)
            for training in (cell.teacher.training, cell.training):
                engine.check_batch_size(training.batch_size)

    def settings(self) -> dict[Where, Known]:
        return {
            (row, group, cell.seed, ""): (
                dataclasses.replace(
                    cell, data_digest=self._tasks[cell.data, cell.teacher].digest
                ).config,
                ("teacher_digest", "plugin"),
            )
            for row, group, cell in self.cells
        }

    def raise_teachers(self, ledger: Ledger) -> None:
        for _, _, cell in self.cells:
            key = cell.data, cell.teacher
            if key in self._taught:
                continue
            task = self._tasks[key]
            teacher = train_teacher(self.engine, task, cell.teacher)
            self.engine.check_stop()
            self.engine.reporter.say("asking the teacher about the candidates")
            self._taught[key] = _Taught(task, teacher, teacher.pair_scores(task))
            self._file_references(cell, self._taught[key], ledger)

    @cached_property
    def everything(self) -> list[SearchRun]:
        """Every entry, now that its teacher is known."""
        runs = []
        for row, group, cell in self.cells:
            taught = self._taught[cell.data, cell.teacher]
            cell = dataclasses.replace(
                cell,
                plugin=plugin_digest(cell.objective),
                data_digest=taught.task.digest,
                teacher_digest=taught.teacher.digest,
            )
            runs.append(SearchRun(self.name, row, group, cell, taught))
        return runs

    def runs(self) -> list[Run]:
        runs: dict[str, Run] = {}
        for run in self.everything:
            runs.setdefault(run.hash, run)
        return list(runs.values())

    def configs(self) -> dict[str, dict[str, Any]]:
        return {run.hash: run.cell.config for run in self.everything}

    def self_check(self, runs: Sequence[Run]) -> None:
        check_first_steps(self.engine, runs)

    def spec(self) -> TableSpec:
        return TableSpec(
            name=self.name,
            title=self.sweep.title,
            layout="metrics",
            columns=COLUMNS,
            baseline=next(iter(self.sweep.rows)),
            places=tuple(Place(r.row, r.group, r.cell.seed, r.hash) for r in self.everything),
            teachers=tuple(self._references),
            tested=(f"test/{SELECT}",),
            protocol=(*self.sweep.protocol, PROTOCOL),
        )

    def _file_references(self, cell: SearchCell, taught: _Taught, ledger: Ledger) -> None:
        """The teacher, and the encoder that it and the candidates come from, in the ledger."""
        group, task = next(iter(self.sweep.groups)), taught.task
        for label, digest_ in ((TEACHER, taught.teacher.digest), (RETRIEVER, task.encoder.digest)):
            own = dataclasses.replace(
                cell,
                student=label,
                objective="",
                seed=0,
                data_digest=task.digest,
                teacher_digest=digest_,
                training=cell.teacher.training,
            )
            own = dataclasses.replace(
                own, start="words", shared=True, similarity="cosine", in_batch=False,
                hears="teacher", transfer=False,
            )  # fmt: skip
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
            found = teacher.rerank(task, "test", cell.teacher.candidates)
            params, training = teacher.params, teacher.training
        else:
            rows = task.data.splits["test"]
            found = retrieval_scores(task.data, rows, task.retrieved_QK[rows])
            params, training = task.encoder.params, {}
        return ledger_row(
            hash=cell.hash,
            experiment=self.name,
            row=label,
            group=group,
            seed=0,
            config=cell.config,
            metrics={**_test_metrics(found), "parameters": model_size(params).parameters},
            fingerprints=_fingerprints(task, teacher),
            training=training,
            history=_shown(training.get("history", [])),
            test_scores={SELECT: pack_numbers(found.by_query[SELECT])},
        )


@dataclass(frozen=True, eq=False)
class SearchRun:
    """A student, see ``interface.Run``."""

    experiment: str
    row: str
    group: str
    cell: SearchCell
    taught: _Taught

    @property
    def hash(self) -> str:
        return self.cell.hash

    @property
    def title(self) -> str:
        return f"{self.group}  {self.row}  seed {self.cell.seed}"

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
        use_transfer = cell.transfer and objective.needs_teacher
        table = task.table(
            list_size=cell.training.list_size,
            use_transfer=use_transfer,
            scores_QM=self.taught.heard(cell).scores_QM,
        )

        def validate(params: Params, mesh: Mesh, on_batch: Callable[[], None]) -> dict[str, float]:
            return task.find(encoder, to_host(params), "validation").means

        work = search_work(
            Identity(cell.hash, cell.config),
            cell.seed,
            config,
            objective,
            cell.training,
            table,
            data=f"{task.digest} {use_transfer} {cell.hears} {cell.teacher_digest}",
            evaluate=validate,
            precision=cell.precision,
        )
        return (work,)

    @property
    def together(self) -> Mapping[str, Any]:
        return {"start": self.cell.start}

    def start(self) -> Params:
        return self._begun[1]

    def outputs(self) -> TeacherOutputs | None:
        return self.taught.heard(self.cell) if objective_of(self.cell).needs_teacher else None

    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        task, (config, _) = self.task, self._begun
        found = task.find(Encoder(TwoTower(config)), result.params, "test")
        if is_lead():
            save_student(engine.run_folder(self.hash) / "model", config, result.params, task)
        return ledger_row(
            hash=self.hash,
            experiment=self.experiment,
            row=self.row,
            group=self.group,
            seed=self.cell.seed,
            config=self.cell.config,
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
        cell.objective, list_size=cell.training.list_size, teacher=True, in_batch=cell.in_batch
    )


def _shown(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """What a learning curve shows."""
    return [{"step": at["step"], SELECT: at[SELECT]} for at in history]


def start_student(cell: SearchCell, task: SearchTask) -> tuple[TwoTowerConfig, Any]:
    """A cell's student before its first step.

    Raises:
      UserError: for an unknown size.
    """
    encoder = task.encoder
    assert isinstance(encoder.config, BertConfig)
    rng = jax.random.key(cell.seed)
    bert = student_config(cell.student, encoder.config)
    if parse_preset(cell.student).copies_teacher:
        layers = init_student(cell.student, encoder.config, encoder.params, rng)
        config, params = pretrained_towers(bert, layers, shared=cell.shared)
        return dataclasses.replace(config, similarity=cell.similarity), params
    bert = dataclasses.replace(bert, num_labels=bert.hidden_size)
    config = TwoTowerConfig(bert, cell.shared, cell.similarity)
    params = jax.device_get(init_two_tower(config, rng))
    if cell.start == "words":
        params = {name: embeddings_from(own, encoder.params) for name, own in params.items()}
    return config, params


def save_student(folder: Path, config: TwoTowerConfig, params: Any, task: SearchTask) -> None:
    """Keep a student with its products, for ``distill-jax search``."""
    assert task.encoder.tokenizer_file is not None
    products = Catalogue(task.data.item_ids, task.data.items)
    save_search(folder, config, params, products, task.limits, task.encoder.tokenizer_file)


def _test_metrics(found: SearchScores) -> dict[str, float]:
    return {f"test/{name}": value for name, value in found.means.items()}


def _query_costs(config: TwoTowerConfig, params: Any, task: SearchTask) -> dict[str, float]:
    """Size, and the time of one query on the CPU: its vector, then all products by it."""
    rows = task.data.splits["test"][:: max(len(task.data.splits["test"]) // 50, 1)][:50]
    few = task.queries.take(rows)
    length = int(task.queries.lengths_N.max())
    batches = [few.batch(np.array([n]), length, 1) for n in range(len(few))]
    tower = Bert(config.tower)
    items_ID = np.zeros((len(task.items), config.vector_size), np.float32)

    def answer(own: Any, batch: Any) -> Any:
        vector_1D = tower.apply({"params": own["tower"]}, batch).logits_BC  # type: ignore[union-attr]
        return jax.lax.top_k(vector_1D @ own["items"].T, min(10, len(task.items)))

    first = next(iter(params.values()))
    models = {"model": (answer, {"tower": first, "items": items_ID})}
    latency = cpu_latencies(models, batches, repeats=5)["model"]
    return {
        "parameters": model_size(params).parameters,
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
