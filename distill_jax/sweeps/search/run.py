"""A search table, run one cell after the other: what stands in the ledger is not run again."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

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
from distill_jax.objectives.list_objective import resolve_lists
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.sweeps.columns import Column
from distill_jax.sweeps.evidence import pack_numbers
from distill_jax.sweeps.ledger import Ledger, LedgerRow, provenance
from distill_jax.sweeps.options import DEFAULTS, RunOptions
from distill_jax.sweeps.outputs import LEDGER
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.search.cells import SearchCell, SearchSweep
from distill_jax.sweeps.search.task import (
    SELECT,
    SearchTask,
    SearchTeacher,
    prepare,
    train_teacher,
)
from distill_jax.sweeps.search.training import Trainer, Work
from distill_jax.sweeps.spec import Place, TableSpec
from distill_jax.teachers.pair_scores import PairScores
from distill_jax.training.interrupt import StopRequest

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
    options: RunOptions = DEFAULTS,
) -> tuple[TableSpec, list[LedgerRow]]:
    """Run what is missing of a table.

    Args:
      folder: of the table; holds the ledger, and the models under ``runs``.

    Returns:
      The description of the table and the rows of its ledger.

    Raises:
      Interrupted: after a stop request; the next call goes on where it was.
      UserError: from data, teacher or training.
    """
    reporter = reporter or Reporter()
    with StopRequest(reporter.say) as stop:
        session = _Session(
            sweep, folder, reporter, Trainer(folder / "runs", stop, reporter, options)
        )
        return session.run()


@dataclass(eq=False)
class _Session:
    """One call of ``run_search``."""

    sweep: SearchSweep
    folder: Path
    reporter: Reporter
    trainer: Trainer

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.folder / LEDGER)
        self._tasks: dict[Any, tuple[SearchTask, SearchTeacher, PairScores]] = {}

    def run(self) -> tuple[TableSpec, list[LedgerRow]]:
        places: list[Place] = []
        teachers: list[Place] = []
        entries = self.sweep.entries
        for number, (row, group, seed) in enumerate(entries, 1):
            cell = self.sweep.cell(row, group, seed)
            task, teacher, scores = self._shared(cell)
            for place in self._reference_rows(cell, task, teacher):
                if place not in teachers:
                    teachers.append(place)
            cell = dataclasses.replace(
                cell,
                plugin=plugin_digest(cell.objective),
                data_digest=task.digest,
                teacher_digest=teacher.digest,
            )
            places.append(Place(row, group, seed, cell.hash))
            if cell.hash in self.ledger.finished_hashes():
                continue
            self.trainer.stop.check()
            label = f"{number}/{len(entries)}  {group}  {row}  seed {seed}"
            self.ledger.append(self._student(cell, row, group, task, teacher, scores, label))
            self.trainer.clear(cell.hash)
        spec = TableSpec(
            name=self.sweep.name,
            title=self.sweep.title,
            layout="metrics",
            columns=COLUMNS,
            baseline=next(iter(self.sweep.rows)),
            places=tuple(places),
            teachers=tuple(teachers),
            tested=(f"test/{SELECT}",),
            protocol=(*self.sweep.protocol, PROTOCOL),
        )
        return spec, self.ledger.rows()

    def _shared(self, cell: SearchCell) -> tuple[SearchTask, SearchTeacher, PairScores]:
        key = cell.data, cell.teacher
        if key not in self._tasks:
            task = prepare(*key)
            for note in (*task.data.notes, *task.told):
                self.reporter.say(f"data: {note}")
            teacher = train_teacher(self.trainer, task, cell.teacher, self.reporter)
            self.trainer.stop.check()
            self.reporter.say("asking the teacher about the candidates")
            self._tasks[key] = task, teacher, teacher.pair_scores(task)
        return self._tasks[key]

    def _student(
        self,
        cell: SearchCell,
        row: str,
        group: str,
        task: SearchTask,
        teacher: SearchTeacher,
        scores: PairScores,
        label: str,
    ) -> LedgerRow:
        started = time.perf_counter()
        objective = resolve_lists(
            cell.objective,
            list_size=cell.training.list_size,
            teacher=True,
            in_batch=cell.in_batch,
        )
        if cell.hears == "shuffled":
            scores = scores.shuffled(cell.seed)
        table = task.table(
            list_size=cell.training.list_size,
            use_transfer=cell.transfer and objective.needs_teacher,
            scores_QM=scores.scores_QM,
        )
        config, params = start_student(cell, task)
        model = TwoTower(config)
        encoder = Encoder(model)
        work = Work(
            cell.hash, cell.config, model, objective, cell.training, table, cell.seed, scores
        )
        result = self.trainer.train(
            work,
            params,
            lambda own: task.find(encoder, own, "validation").means,
            SELECT,
            label=label,
        )
        found = task.find(encoder, result.params, "test")
        save_student(self.folder / "runs" / cell.hash / "model", config, result.params, task)
        progress = result.progress
        self.reporter.say(f"{label}: nDCG@10 {found.means[SELECT]:.3f}")
        return LedgerRow(
            hash=cell.hash,
            experiment=self.sweep.name,
            row=row,
            group=group,
            seed=cell.seed,
            config=cell.config,
            metrics={
                **_test_metrics(found),
                **_query_costs(config, result.params, task),
                f"validation/{SELECT}": progress.best_score,
            },
            selected_step=progress.best_step,
            fingerprints=_fingerprints(task, teacher),
            seconds={
                "train": progress.train_seconds,
                "compile": progress.compile_seconds,
                "total": time.perf_counter() - started,
            },
            examples_per_second=result.examples_per_second,
            history=[{"step": at["step"], SELECT: at[SELECT]} for at in progress.history],
            test_scores={SELECT: pack_numbers(found.by_query[SELECT])},
            **provenance(),
        )

    def _reference_rows(
        self, cell: SearchCell, task: SearchTask, teacher: SearchTeacher
    ) -> list[Place]:
        """The teacher, and the encoder that it and the candidates come from, in the ledger."""
        group = next(iter(self.sweep.groups))
        places = []
        for label, digest_ in ((TEACHER, teacher.digest), (RETRIEVER, task.encoder.digest)):
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
            if own.hash not in self.ledger.finished_hashes():
                self.ledger.append(self._reference(own, label, group, task, teacher))
            places.append(Place(label, group, 0, own.hash))
        return places

    def _reference(
        self, cell: SearchCell, label: str, group: str, task: SearchTask, teacher: SearchTeacher
    ) -> LedgerRow:
        if label == TEACHER:
            found = teacher.rerank(task, "test", cell.teacher.candidates)
            params, training = teacher.params, teacher.training
        else:
            rows = task.data.splits["test"]
            found = retrieval_scores(task.data, rows, task.retrieved_QK[rows])
            params, training = task.encoder.params, {}
        return LedgerRow(
            hash=cell.hash,
            experiment=self.sweep.name,
            row=label,
            group=group,
            seed=0,
            config=cell.config,
            metrics={**_test_metrics(found), "parameters": model_size(params).parameters},
            selected_step=training.get("selected_step"),
            fingerprints=_fingerprints(task, teacher),
            seconds=training.get("seconds", {}),
            examples_per_second=training.get("examples_per_second"),
            history=[
                {"step": at["step"], SELECT: at[SELECT]} for at in training.get("history", [])
            ],
            test_scores={SELECT: pack_numbers(found.by_query[SELECT])},
            **provenance(),
        )


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
