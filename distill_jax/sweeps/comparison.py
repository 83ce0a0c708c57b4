"""A comparison of objectives: students x objectives x seeds, from one teacher, as one table."""

import dataclasses
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.data.load import load_dataset
from distill_jax.evaluation.latency import cpu_latency
from distill_jax.evaluation.metrics import classification_metrics
from distill_jax.evaluation.predict import one_by_one
from distill_jax.evaluation.size import model_size
from distill_jax.models.bert import BertConfig
from distill_jax.models.huggingface import save_pretrained
from distill_jax.models.students import init_student, parse_preset, student_config
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.sweeps.cells import TEACHER, Cell, DataConfig, TrainingConfig
from distill_jax.sweeps.engine import Engine
from distill_jax.sweeps.ledger import Ledger, LedgerRow, provenance
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.table import Column, Table, build_table
from distill_jax.sweeps.task import prepare_task
from distill_jax.sweeps.teacher import (
    Teacher,
    as_it_came,
    fine_tuned,
    outputs_for,
    load_teacher,
    teacher_cell,
)
from distill_jax.sweeps.track import TrackTo
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.state import Params

COLUMNS = (
    Column("test/accuracy", "accuracy %", 100, 1, higher_is_better=True),
    Column("test/macro_f1", "macro-F1 %", 100, 1, higher_is_better=True),
    Column("test/pearson", "Pearson r", 1, 3, higher_is_better=True),
    Column("test/fidelity", "fidelity %", 100, 1, higher_is_better=True),
    Column("test/ece", "ECE %", 100, 1, higher_is_better=False),
    Column("parameters", "parameters (M)", 1e-6, 2, kind="value"),
    Column("latency/p50_ms", "CPU p50 (ms)", 1, 2, kind="mean"),
    Column("latency/p95_ms", "CPU p95 (ms)", 1, 2, kind="mean"),
    Column("seconds/train", "training (s)", 1, 0, kind="mean"),
)


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    Attributes:
      name: of the experiment; its rows in the ledger carry it.
      teacher: ``minilm-l6``, a local folder, or a hub id of any BERT checkpoint.
      fine_tune: whether the teacher is fine-tuned first; off for one that is already.
      students: presets (``tiny``, ``l2``, ``l3``) or LAYERSxWIDTHxHEADS.
      objectives: as text; each is a row of the table.
      baseline: the row that the others are tested against.
      seeds: one student a seed; initialisation, dropout and data order change with it.
      steps: optimiser steps of each student, the same for all rows; 0: ``epochs`` decides.
      epochs: passes over all training sentences, where ``steps`` is 0.
      copied_learning_rate: for students made of the teacher's layers.
      teacher_outputs: ``cache`` asks the teacher once, ``live`` at every step.
    """

    name: str
    data: DataConfig
    teacher: str
    fine_tune: bool
    teacher_training: TrainingConfig
    students: tuple[str, ...]
    objectives: tuple[str, ...]
    baseline: str
    seeds: tuple[int, ...]
    training: TrainingConfig
    copied_learning_rate: float
    teacher_outputs: Literal["cache", "live"]
    cache_dtype: Literal["float16", "float32"]
    track: TrackTo


@dataclass(frozen=True, eq=False)
class Planned:
    """A cell with what is needed to run it."""

    cell: Cell
    config: BertConfig
    objective: ResolvedObjective


def run_comparison(comparison: Comparison, folder: Path, reporter: Reporter) -> Table:
    """Run what is not finished yet and build the table from the ledger in ``folder``.

    Raises:
      UserError: for anything the user can mend, before anything is trained where possible.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    objectives = tuple(str(parse(text)) for text in comparison.objectives)
    started = time.perf_counter()
    with StopRequest() as stop:
        dataset = load_dataset(
            comparison.data.name,
            text=comparison.data.text,
            text_b=comparison.data.text_b,
            label=comparison.data.label,
        )
        for note in dataset.notes:
            reporter.say(f"data: {note}")
        pretrained = load_teacher(
            comparison.teacher, num_labels=len(dataset.label_names), fresh=comparison.fine_tune
        )
        _check_before_training(comparison, objectives, pretrained.config)
        task = prepare_task(
            comparison.data,
            dataset,
            pretrained.tokenizer_file,
            batch_size=comparison.training.batch_size,
            max_shapes=comparison.training.max_shapes,
        )
        reporter.say(
            f"{comparison.data.name}: {len(task.labelled):,} labelled and "
            f"{len(task.everything) - len(task.labelled):,} unlabelled training examples, "
            f"{len(task.validation):,} validation, {len(task.test):,} test; "
            f"labels {', '.join(task.label_names)}"
        )
        engine = Engine(task, folder / "runs", reporter, stop, comparison.track)
        ledger = Ledger(folder / "ledger.jsonl")

        teacher, teacher_row = _teacher(engine, comparison, pretrained, ledger)
        planned = plan_cells(comparison, objectives, teacher, task.digest)
        finished = ledger.finished_hashes()
        pending = [each for each in planned if each.cell.hash not in finished]
        reporter.say(f"{len(planned) - len(pending)} of {len(planned)} runs are finished already")
        if pending:
            outputs = _teacher_outputs(engine, comparison, teacher, pending)
            teacher_test_NC = engine.predict(teacher.config, teacher.params, task.test)
            for number, each in enumerate(pending, len(planned) - len(pending) + 1):
                label = f"[{number}/{len(planned)}] {_title(each.cell)}"
                row = run_cell(engine, comparison.name, each, teacher, outputs, teacher_test_NC, label)
                ledger.append(row)
                reporter.say(
                    f"{label}: test accuracy {100 * row.metrics['test/accuracy']:.1f}%, "
                    f"{row.seconds['total']:.0f} s"
                )
        reporter.say(f"done in {time.perf_counter() - started:.0f} s")
    hashes = {each.cell.hash for each in planned} | {teacher_row}
    rows = [row for row in ledger.rows() if row.hash in hashes]
    baseline = str(parse(comparison.baseline))
    return build_table(
        rows,
        COLUMNS,
        baseline=baseline if baseline in objectives else objectives[0],
        group_order=comparison.students,
        row_order=objectives,
    )


def plan_cells(
    comparison: Comparison, objectives: tuple[str, ...], teacher: Teacher, data_digest: str
) -> list[Planned]:
    """Every cell of the table, seeds innermost, so that neighbours share compiled programs."""
    planned = []
    for student in comparison.students:
        config = student_config(student, teacher.pretrained.config)
        training = comparison.training
        if parse_preset(student).copies_teacher:
            rate = comparison.copied_learning_rate
            optimizer = dataclasses.replace(training.optimizer, learning_rate=rate)
            training = dataclasses.replace(training, optimizer=optimizer)
        for objective in objectives:
            resolved = resolve(parse(objective), config.shape, teacher.config.shape)
            for seed in comparison.seeds:
                cell = Cell(
                    comparison.data, data_digest, student, objective, teacher.digest, training, seed
                )
                planned.append(Planned(cell, config, resolved))
    return planned


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
    metrics = test_metrics(engine, config, result.params, teacher_test_NC)
    metrics["validation/accuracy"] = result.progress.best_score
    save_run(engine, cell, config, result.params, teacher)
    progress = result.progress
    return LedgerRow(
        hash=cell.hash,
        experiment=experiment,
        row=cell.objective,
        group=cell.student,
        seed=cell.seed,
        config={**dataclasses.asdict(cell), "model": dataclasses.asdict(config)},
        metrics=metrics,
        selected_step=progress.best_step,
        fingerprints={
            "teacher": teacher.digest,
            "pretrained": teacher.pretrained.digest,
            "data": task.digest,
            "tokens": task.tokens_digest,
        },
        seconds={
            "train": progress.train_seconds,
            "compile": progress.compile_seconds,
            "total": time.perf_counter() - started,
        },
        examples_per_second=result.examples_per_second,
        **provenance(),
    )


def test_metrics(
    engine: Engine, config: BertConfig, params: Params, teacher_test_NC: np.ndarray | None
) -> dict[str, float]:
    """Test scores, size and latency of a finished model, as the ledger names them."""
    task = engine.task
    logits_NC = engine.predict(config, params, task.test)
    scores = classification_metrics(
        logits_NC,
        task.test.labels_N,
        ratings_N=task.test.scores_N,
        teacher_logits_NC=teacher_test_NC,
    )
    latency = cpu_latency(
        engine.predictor(config),
        params,
        one_by_one(task.test, 50, shape_lengths=task.few_lengths),
        repeats=5,
    )
    return {
        **{f"test/{name}": value for name, value in scores.items()},
        "parameters": model_size(params).parameters,
        "latency/p50_ms": latency.p50_ms,
        "latency/p95_ms": latency.p95_ms,
    }


def save_run(
    engine: Engine, cell: Cell, config: BertConfig, params: Params, teacher: Teacher
) -> None:
    """Keep a finished student, so that it can be used; its checkpoints are no longer needed."""
    folder = engine.folder / cell.hash
    shutil.rmtree(folder / "model", ignore_errors=True)  # left by a run killed at this place
    save_pretrained(
        folder / "model",
        config,
        params,
        teacher.pretrained.tokenizer_file,
        engine.task.label_names,
    )
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


def _teacher(
    engine: Engine, comparison: Comparison, pretrained: Any, ledger: Ledger
) -> tuple[Teacher, str]:
    """The teacher, and the hash of its row in the ledger, which is written if it is not there."""
    cell = teacher_cell(engine.task, pretrained, comparison.teacher_training, seed=0)
    if comparison.fine_tune:
        teacher = fine_tuned(engine, pretrained, cell)
    else:
        teacher = as_it_came(engine, pretrained)
        cell = dataclasses.replace(cell, objective="as it came")
    if ledger.find(cell.hash) is None:
        metrics = test_metrics(engine, teacher.config, teacher.params, None)
        training = teacher.training
        metrics["validation/accuracy"] = training.get("validation_accuracy", math.nan)
        ledger.append(
            LedgerRow(
                hash=cell.hash,
                experiment=comparison.name,
                row=TEACHER,
                group=comparison.teacher,
                seed=cell.seed,
                config={
                    **dataclasses.asdict(cell),
                    "model": dataclasses.asdict(teacher.config),
                },
                metrics=metrics,
                selected_step=training.get("selected_step"),
                fingerprints={
                    "teacher": teacher.digest,
                    "pretrained": pretrained.digest,
                    "data": engine.task.digest,
                    "tokens": engine.task.tokens_digest,
                },
                seconds=training.get("seconds", {}),
                examples_per_second=training.get("examples_per_second"),
                **provenance(),
            )
        )
    row = ledger.find(cell.hash)
    assert row is not None
    engine.reporter.say(f"teacher: test accuracy {100 * row.metrics['test/accuracy']:.1f}%")
    return teacher, cell.hash


def _teacher_outputs(
    engine: Engine, comparison: Comparison, teacher: Teacher, pending: list[Planned]
) -> TeacherOutputs | None:
    objectives = [each.objective for each in pending]
    if comparison.teacher_outputs == "cache":
        return outputs_for(engine, teacher, objectives, dtype=comparison.cache_dtype)
    from distill_jax.models.bert import Bert
    from distill_jax.teachers.cache import union_of
    from distill_jax.teachers.live import LiveTeacher

    capture = union_of(objective.teacher_capture for objective in objectives)
    return LiveTeacher(Bert(teacher.config), teacher.params, capture)


def _check_before_training(
    comparison: Comparison, objectives: tuple[str, ...], teacher: BertConfig
) -> None:
    """Everything that can be known to be wrong before the first step."""
    for kind in ("students", "objectives", "seeds"):
        given = getattr(comparison, kind) if kind != "objectives" else objectives
        if not given:
            raise UserError(f"no {kind} given")
        if len(set(given)) != len(given):
            raise UserError(f"the {kind} repeat themselves: {', '.join(map(str, given))}")
    for student in comparison.students:
        config = student_config(student, teacher)
        for objective in objectives:
            resolve(parse(objective), config.shape, teacher.shape)


def _title(cell: Cell) -> str:
    return f"{cell.student}  {cell.objective}  seed {cell.seed}"


def write_outputs(table: Table, folder: Path, *, figure_title: str) -> list[Path]:
    """Write ``table.md``, ``table.csv`` and ``figure.png``/``.svg``; returns their paths."""
    from distill_jax.sweeps.figure import save_figure

    write_atomic(folder / "table.md", table.to_markdown())
    write_atomic(folder / "table.csv", table.to_csv())
    figures = save_figure(table, "test/accuracy", folder / "figure", title=figure_title)
    return [folder / "table.md", folder / "table.csv", *figures]
