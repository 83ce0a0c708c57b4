"""One run: from a cell to a row of the ledger."""

import dataclasses
import io
import json
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from distill_jax.core.files import write_atomic
from distill_jax.evaluation.latency import cpu_latency
from distill_jax.evaluation.metrics import classification_metrics
from distill_jax.evaluation.predict import one_by_one
from distill_jax.evaluation.size import model_size
from distill_jax.models.bert import BertConfig
from distill_jax.models.huggingface import save_pretrained
from distill_jax.models.students import init_student
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.sweeps.cells import TEACHER, Cell
from distill_jax.sweeps.engine import Engine
from distill_jax.sweeps.ledger import LedgerRow, provenance
from distill_jax.sweeps.task import Task
from distill_jax.sweeps.teacher import Teacher
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.state import Params


@dataclass(frozen=True, eq=False)
class Planned:
    """A cell with what is needed to run it."""

    cell: Cell
    config: BertConfig
    objective: ResolvedObjective

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.cell.student}  {self.cell.objective}  seed {self.cell.seed}"


def run_cell(
    engine: Engine,
    experiment: str,
    planned: Planned,
    teacher: Teacher,
    outputs: TeacherOutputs | None,
    teacher_test_NC: np.ndarray,
    label: str,
) -> LedgerRow:
    """Train one student, choose its step on validation, and read the test split once."""
    cell, config, task = planned.cell, planned.config, engine.task
    started = time.perf_counter()
    params = init_student(
        cell.student,
        teacher.pretrained.config,
        teacher.pretrained.params,
        jax.random.key(cell.seed),
    )
    result = engine.train(
        cell,
        config,
        params,
        planned.objective,
        teacher=outputs if planned.objective.needs_teacher else None,
        steps=cell.training.total_steps(len(task.everything)),
        label=label,
    )
    logits_NC = engine.predict(config, result.params, task.test)
    metrics = scores_on_test(task, logits_NC, teacher_test_NC)
    metrics |= cost_metrics(engine, config, result.params)
    metrics["validation/accuracy"] = result.progress.best_score
    keep_run(
        engine.folder / cell.hash,
        task,
        config,
        result.params,
        teacher.pretrained.tokenizer_file,
        logits_NC,
        result.progress.history,
    )
    progress = result.progress
    return LedgerRow(
        hash=cell.hash,
        experiment=experiment,
        row=cell.objective,
        group=cell.student,
        seed=cell.seed,
        config=config_of(cell, config),
        metrics=metrics,
        selected_step=progress.best_step,
        fingerprints=fingerprints(task, teacher),
        seconds={
            "train": progress.train_seconds,
            "compile": progress.compile_seconds,
            "total": time.perf_counter() - started,  # since it was last resumed
        },
        examples_per_second=result.examples_per_second,
        **provenance(),
    )


def teacher_row(
    engine: Engine, experiment: str, cell: Cell, teacher: Teacher, name: str
) -> LedgerRow:
    """The ledger's row of the teacher itself."""
    task, training = engine.task, teacher.training
    logits_NC = engine.predict(teacher.config, teacher.params, task.test)
    metrics = scores_on_test(task, logits_NC, None)
    metrics |= cost_metrics(engine, teacher.config, teacher.params)
    metrics["validation/accuracy"] = training.get("validation_accuracy", math.nan)
    keep_run(
        engine.folder / cell.hash,
        task,
        teacher.config,
        teacher.params,
        teacher.pretrained.tokenizer_file,
        logits_NC,
        training.get("history", []),
    )
    return LedgerRow(
        hash=cell.hash,
        experiment=experiment,
        row=TEACHER,
        group=name,
        seed=cell.seed,
        config=config_of(cell, teacher.config),
        metrics=metrics,
        selected_step=training.get("selected_step"),
        fingerprints=fingerprints(task, teacher),
        seconds=training.get("seconds", {}),
        examples_per_second=training.get("examples_per_second"),
        **provenance(),
    )


def scores_on_test(
    task: Task, logits_NC: np.ndarray, teacher_test_NC: np.ndarray | None
) -> dict[str, float]:
    """Scores on the test split, under ``test/``."""
    scores = classification_metrics(
        logits_NC,
        task.test.labels_N,
        ratings_N=task.test.scores_N,
        teacher_logits_NC=teacher_test_NC,
    )
    return {f"test/{name}": value for name, value in scores.items()}


def cost_metrics(engine: Engine, config: BertConfig, params: Params) -> dict[str, float]:
    """What a model costs: parameters, and latency of single test examples on the CPU."""
    examples = one_by_one(engine.task.test, 50, shape_lengths=engine.task.few_lengths)
    latency = cpu_latency(engine.predictor(config), params, examples, repeats=5)
    return {
        "parameters": model_size(params).parameters,
        "latency/p50_ms": latency.p50_ms,
        "latency/p95_ms": latency.p95_ms,
    }


def fingerprints(task: Task, teacher: Teacher) -> dict[str, str]:
    """Content digests of everything a run stood on."""
    return {
        "teacher": teacher.digest,
        "pretrained": teacher.pretrained.digest,
        "data": task.digest,
        "tokens": task.tokens_digest,
    }


def config_of(cell: Cell, config: BertConfig) -> dict[str, object]:
    """The configuration as the ledger keeps it."""
    return {**dataclasses.asdict(cell), "model": dataclasses.asdict(config)}


def keep_run(
    folder: Path,
    task: Task,
    config: BertConfig,
    params: Params,
    tokenizer_file: Path,
    test_logits_NC: np.ndarray,
    history: list[dict[str, float]],
) -> None:
    """Keep a finished model for use, its test logits and its history; drop its checkpoints."""
    shutil.rmtree(folder / "model", ignore_errors=True)  # left by a run killed at this place
    save_pretrained(folder / "model", config, params, tokenizer_file, task.label_names)
    logits = io.BytesIO()
    np.savez(logits, ids=np.asarray(task.test.ids), logits_NC=test_logits_NC)
    write_atomic(folder / "test_logits.npz", logits.getvalue())
    write_atomic(folder / "history.json", json.dumps(history, indent=1))
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
