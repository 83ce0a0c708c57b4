"""A comparison of objectives: students x objectives x seeds, from one teacher, as one table."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distill_jax.core.digests import sha256_file
from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import write_atomic
from distill_jax.core.mesh import check_batch_size
from distill_jax.core.types import Capture
from distill_jax.data.load import load_dataset
from distill_jax.models.bert import BertConfig
from distill_jax.models.huggingface import Pretrained
from distill_jax.models.students import parse_preset, student_config
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.plugins import load_plugin
from distill_jax.objectives.resolve import resolve
from distill_jax.sweeps.cells import Cell, DataConfig, TrainingConfig
from distill_jax.sweeps.engine import Engine
from distill_jax.sweeps.figure import save_figure
from distill_jax.sweeps.ledger import Ledger
from distill_jax.sweeps.progress import Reporter
from distill_jax.sweeps.runs import Planned, run_cell, teacher_row
from distill_jax.sweeps.table import Column, Table, build_table
from distill_jax.sweeps.task import Task, prepare_task
from distill_jax.sweeps.teacher import (
    Teacher,
    as_it_came,
    fine_tuned,
    load_teacher,
    outputs_for,
    teacher_cell,
)
from distill_jax.sweeps.track import TrackTo
from distill_jax.training.interrupt import StopRequest

COLUMNS = (
    Column("test/accuracy", "accuracy %", 100, 1, higher_is_better=True),
    Column("test/macro_f1", "macro-F1 %", 100, 1, higher_is_better=True),
    Column("test/pearson", "Pearson r", 1, 3, higher_is_better=True),
    Column("test/fidelity", "fidelity %", 100, 1, higher_is_better=True),
    Column("test/ece", "ECE %", 100, 1, higher_is_better=False),
    Column("parameters", "parameters (M)", 1e-6, 2, kind="value"),
    Column("latency/p50_ms", "CPU p50 (ms)", 1, 2, kind="mean"),
    Column("latency/p95_ms", "CPU p95 (ms)", 1, 2, kind="mean"),
    Column("seconds/total", "run (s)", 1, 0, kind="mean"),
)


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how.

    Attributes:
      name: of the experiment; its rows in the ledger carry it.
      teacher: ``minilm-l6``, a local folder, or a hub id of any BERT checkpoint.
      fine_tune: whether the teacher is fine-tuned first; off for one that is already.
      teacher_training: of the fine-tuning.
      students: presets (``tiny``, ``l2``, ``l3``) or LAYERSxWIDTHxHEADS.
      objectives: as text; each is a row of the table.
      baseline: the row that the others are tested against; None for ``ce``, or the first row
        where there is no ``ce``.
      seeds: one student a seed; initialisation, dropout and data order change with it.
      training: of students that start at random.
      copied_training: of students made of the teacher's layers.
      teacher_outputs: ``cache`` asks the teacher once, ``live`` at every step.
      cache_dtype: of the cached token-level outputs.
      plugin: a Python file with losses of the user's.
      track: where learning curves go.
    """

    name: str
    data: DataConfig
    teacher: str
    fine_tune: bool
    teacher_training: TrainingConfig
    students: tuple[str, ...]
    objectives: tuple[str, ...]
    baseline: str | None
    seeds: tuple[int, ...]
    training: TrainingConfig
    copied_training: TrainingConfig
    teacher_outputs: Literal["cache", "live"]
    cache_dtype: Literal["float16", "float32"]
    plugin: Path | None
    track: TrackTo


def run_comparison(comparison: Comparison, folder: Path, reporter: Reporter) -> Table:
    """Run what is not finished yet and build the table from the ledger in ``folder``.

    Raises:
      UserError: for anything the user can mend, before anything is trained where possible.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    started = time.perf_counter()
    with StopRequest() as stop:
        comparison = _canonical(comparison)
        task, pretrained = _prepare(comparison, reporter)
        engine = Engine(task, folder / "runs", reporter, stop, comparison.track)
        for training in (comparison.teacher_training, comparison.training):
            check_batch_size(training.batch_size, engine.mesh)
        ledger = _open_ledger(folder)
        teacher, teacher_hash = _teacher(engine, comparison, pretrained, ledger)
        planned = plan_cells(comparison, teacher, task.digest)
        _run_pending(engine, comparison, planned, teacher, ledger)
    reporter.say(f"done in {time.perf_counter() - started:.0f} s")
    hashes = {each.cell.hash for each in planned} | {teacher_hash}
    assert comparison.baseline is not None
    return build_table(
        [row for row in ledger.rows() if row.hash in hashes],
        COLUMNS,
        baseline=comparison.baseline,
        group_order=comparison.students,
        row_order=comparison.objectives,
    )


def write_outputs(table: Table, folder: Path, *, figure_title: str) -> list[Path]:
    """Write ``table.md``, ``table.csv``, ``figure.png`` and ``figure.svg``; returns the paths."""
    write_atomic(folder / "table.md", table.to_markdown())
    write_atomic(folder / "table.csv", table.to_csv())
    figures = save_figure(table, "test/accuracy", folder / "figure", title=figure_title)
    return [folder / "table.md", folder / "table.csv", *figures]


def plan_cells(comparison: Comparison, teacher: Teacher, data_digest: str) -> list[Planned]:
    """Every cell of the table, seeds innermost, so that neighbours share compiled programs."""
    plugin = sha256_file(comparison.plugin) if comparison.plugin else None
    cached = comparison.teacher_outputs == "cache"
    planned = []
    for student in comparison.students:
        config = student_config(student, teacher.pretrained.config)
        copied = parse_preset(student).copies_teacher
        training = comparison.copied_training if copied else comparison.training
        for objective in comparison.objectives:
            resolved = resolve(objective, config.shape, teacher.config.shape)
            tokenwise = resolved.teacher_capture != Capture()
            dtype = comparison.cache_dtype if cached and tokenwise else "float32"
            for seed in comparison.seeds:
                cell = Cell(
                    data=comparison.data,
                    data_digest=data_digest,
                    student=student,
                    objective=objective,
                    teacher=teacher.digest,
                    training=training,
                    seed=seed,
                    teacher_dtype=dtype,
                    plugin=plugin,
                )
                planned.append(Planned(cell, config, resolved))
    return planned


def _open_ledger(folder: Path) -> Ledger:
    """The ledger in ``folder``, found to be writable and whole before anything is trained."""
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    ledger = Ledger(folder / "ledger.jsonl")
    ledger.rows()
    return ledger


def _canonical(comparison: Comparison) -> Comparison:
    """Objectives in canonical form, checked as far as text can be checked."""
    if comparison.plugin is not None:
        load_plugin(comparison.plugin)
    objectives = tuple(str(parse(text)) for text in comparison.objectives)
    baseline = None if comparison.baseline is None else str(parse(comparison.baseline))
    for kind, given in (
        ("students", comparison.students),
        ("objectives", objectives),
        ("seeds", comparison.seeds),
    ):
        if not given:
            raise UserError(f"no {kind} given")
        if len(set(given)) != len(given):
            raise UserError(f"the {kind} repeat themselves: {_listed(given)}")
    if not all(0 <= seed < 2**32 for seed in comparison.seeds):
        raise UserError("seeds are from 0 to 4294967295")
    if baseline is None:
        baseline = "ce" if "ce" in objectives else objectives[0]
    if baseline not in objectives:
        raise unknown("baseline", baseline, objectives)
    return dataclasses.replace(comparison, objectives=objectives, baseline=baseline)


def _prepare(comparison: Comparison, reporter: Reporter) -> tuple[Task, Pretrained]:
    """Data, tokens and the pretrained teacher; all that can be wrong is found here."""
    data = comparison.data
    dataset = load_dataset(data.name, text=data.text, text_b=data.text_b, label=data.label)
    for note in dataset.notes:
        reporter.say(f"data: {note}")
    pretrained = load_teacher(
        comparison.teacher, num_labels=len(dataset.label_names), fresh=comparison.fine_tune
    )
    for note in pretrained.notes:
        reporter.say(f"teacher: {note}")
    _check_objectives(comparison, pretrained.config, reporter)
    task = prepare_task(
        data,
        dataset,
        pretrained.tokenizer_file,
        batch_size=comparison.training.batch_size,
        max_shapes=comparison.training.max_shapes,
    )
    if task.shape_lengths[-1] > pretrained.config.max_positions:
        raise UserError(
            f"texts of {task.shape_lengths[-1]} tokens do not fit the teacher's "
            f"{pretrained.config.max_positions} positions; lower --max-length"
        )
    reporter.say(
        f"{data.name}: {len(task.labelled):,} labelled and "
        f"{len(task.everything) - len(task.labelled):,} unlabelled training examples, "
        f"{len(task.validation):,} validation, {len(task.test):,} test; "
        f"classes {_listed(task.label_names)}"
    )
    return task, pretrained


def _check_objectives(comparison: Comparison, teacher: BertConfig, reporter: Reporter) -> None:
    """Every objective fits every student and the teacher; says what was decided for them."""
    for student in comparison.students:
        shape = student_config(student, teacher).shape
        for objective in comparison.objectives:
            for note in resolve(objective, shape, teacher.shape).notes:
                reporter.say(f"{student}: {note}")


def _teacher(
    engine: Engine, comparison: Comparison, pretrained: Pretrained, ledger: Ledger
) -> tuple[Teacher, str]:
    """The teacher, and the hash of its row in the ledger, which is written if it is not there."""
    cell = teacher_cell(engine.task, pretrained, comparison.teacher_training, seed=0)
    if comparison.fine_tune:
        teacher = fine_tuned(engine, pretrained, cell)
    else:
        teacher = as_it_came(engine, pretrained)
        cell = dataclasses.replace(cell, objective="as it came", training=TrainingConfig())
    engine.stop.check()
    row = ledger.find(cell.hash)
    if row is None or row.fingerprints["teacher"] != teacher.digest:
        row = teacher_row(engine, comparison.name, cell, teacher, Path(comparison.teacher).name)
        ledger.append(row)
    engine.reporter.say(f"teacher: test accuracy {100 * row.metrics['test/accuracy']:.1f}%")
    return teacher, cell.hash


def _run_pending(
    engine: Engine,
    comparison: Comparison,
    planned: Sequence[Planned],
    teacher: Teacher,
    ledger: Ledger,
) -> None:
    """Run the cells that the ledger does not hold yet; every finished one is appended at once."""
    finished = ledger.finished_hashes()
    pending = [each for each in planned if each.cell.hash not in finished]
    done = len(planned) - len(pending)
    engine.reporter.say(f"{done} of {len(planned)} runs are finished already")
    if not pending:
        return
    outputs = outputs_for(
        engine,
        teacher,
        [each.objective for each in planned],  # not the pending alone: one cache for the table
        live=comparison.teacher_outputs == "live",
        dtype=comparison.cache_dtype,
    )
    teacher_test_NC = engine.predict(teacher.config, teacher.params, engine.task.test)
    for number, each in enumerate(pending, done + 1):
        label = f"[{number}/{len(planned)}] {each.title}"
        row = run_cell(engine, comparison.name, each, teacher, outputs, teacher_test_NC, label)
        ledger.append(row)
        engine.reporter.say(
            f"{label}: test accuracy {100 * row.metrics['test/accuracy']:.1f}%, "
            f"{row.seconds['total']:.0f} s"
        )
        engine.stop.check()


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
