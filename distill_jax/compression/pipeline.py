"""Hops: from a finished run, step by step, to students that are smaller still.

Every hop is a cell, the run's with more stages, and so has a hash, a row in a ledger and a folder
of its own. A call that was stopped or killed goes on from the rows that are there, and amid a
training from its checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from distill_jax.compression.context import RunContext
from distill_jax.compression.steps import Step, Student
from distill_jax.compression.vocabulary import read_with
from distill_jax.core.digests import sha256_file
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.data.coverage import as_metrics
from distill_jax.engine.engine import Engine
from distill_jax.engine.merge import rows_in
from distill_jax.engine.options import DEFAULTS, RunOptions
from distill_jax.engine.parts import only_process
from distill_jax.engine.progress import Reporter
from distill_jax.engine.rows import ledger_row
from distill_jax.engine.strategies import clear_checkpoints
from distill_jax.models.build import load_model
from distill_jax.models.loaded import flat_arrays
from distill_jax.tables.before_after import gains
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.names import MODEL
from distill_jax.tables.statistics import paired_bootstrap
from distill_jax.tasks.classification.cells import TEACHER, ClassifierCell, config_of
from distill_jax.tasks.classification.finished import found_again, row_of, teachers_of
from distill_jax.tasks.classification.runs import (
    ClassifierRun,
    cost_metrics,
    evidence,
    fingerprints,
    keep_run,
)
from distill_jax.tasks.classification.splits import Splits
from distill_jax.tasks.kinds.kind import Kind, by_example
from distill_jax.tasks.kinds.kinds import kind_named
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.pruning import sparsity

EXPERIMENT = "compress"
AS_IT_IS = "as it is"
SAID = "said.npz"
SPLITS = ("validation", "test")
CLASSES = kind_named("classes")


@dataclasses.dataclass(frozen=True)
class Hop:
    """One model of a pipeline.

    Attributes:
      label: its steps as text.
      row: what was measured of it.
      folder: of its files; its model is there where it was kept.
      kept: whether it lost no more on validation than was allowed.
      notes: what its steps told.
    """

    label: str
    row: LedgerRow
    folder: Path
    kept: bool
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A finished pipeline; the first hop is the run as it was, ``teacher`` its teacher's row."""

    hops: tuple[Hop, ...]
    teacher: LedgerRow | None
    max_drop: float

    @property
    def refused(self) -> Hop | None:
        """The last hop, where it lost too much."""
        return None if self.hops[-1].kept else self.hops[-1]


def compress(
    folder: Path,
    steps: Sequence[Step],
    output: Path,
    reporter: Reporter,
    *,
    max_drop: float = 1.0,
    options: RunOptions = DEFAULTS,
) -> Result:
    """Carry out the steps that are not yet, measure each hop, and keep what lost little enough.

    Args:
      folder: of a finished run of classifiers.
      output: of the ledger and the hops' folders.
      max_drop: points of validation accuracy that a hop may lose against the run; the model of
        one that loses more is not written. Later hops go on from it all the same.

    Raises:
      UserError: for anything the user can mend.
      Interrupted: after Ctrl-C; the same call goes on from there.
    """
    with begun(folder, output, reporter, EXPERIMENT, max_drop, options) as line:
        for own in hops_of(steps):
            line.go(own)
        return line.result()


@contextlib.contextmanager
def begun(
    folder: Path,
    output: Path,
    reporter: Reporter,
    experiment: str,
    max_drop: float,
    options: RunOptions,
    *,
    any_task: bool = False,
) -> Iterator[Line]:
    """A pipeline at its first hop, the run as it is; nobody else works in ``output`` meanwhile.

    Args:
      experiment: what its rows are called.
      any_task: whether the run may be of another task than classes.

    Raises:
      UserError: see ``compress``.
    """
    if jax.process_count() > 1:
        raise UserError(f"{experiment} is for one process, on as many devices as it has")
    row = row_of(folder, any_task=any_task)
    (output / "runs").mkdir(parents=True, exist_ok=True)
    with StopRequest(reporter.say) as stop, only_process(output / "runs", options.share):
        engine = Engine(output / "runs", reporter, stop, "none", options)
        ledger = Ledger(output / "ledger.jsonl")
        known = ledger.finished_hashes()
        for teacher in teachers_of(folder, row):
            if teacher.hash not in known:
                ledger.append(teacher)
        line = Line(engine, found_again(engine, row, ledger), ledger, max_drop, experiment)
        line.begin(folder)
        yield line


def hops_of(steps: Sequence[Step]) -> list[tuple[Step, ...]]:
    """Steps that make a model together: one that waits goes with the one after it."""
    hops: list[tuple[Step, ...]] = []
    waiting: tuple[Step, ...] = ()
    for step in steps:
        waiting = (*waiting, step)
        if not step.waits:
            hops.append(waiting)
            waiting = ()
    return hops


@dataclasses.dataclass(eq=False)
class Line:
    """A pipeline at work.

    Attributes:
      experiment: what its rows are called.
      student: at the end of the last hop; None where that hop was read from the ledger.
      said: what the first and the last hop say of each split.
    """

    engine: Engine
    run: ClassifierRun
    ledger: Ledger
    max_drop: float
    experiment: str = EXPERIMENT
    hops: list[Hop] = dataclasses.field(default_factory=list)
    said: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
    student: Student | None = None
    cells: list[ClassifierCell] = dataclasses.field(default_factory=list)
    done: list[tuple[Step, ...]] = dataclasses.field(default_factory=list)

    def begin(self, folder: Path) -> None:
        """The run as it is."""
        student = opened(folder, self.run)
        self._measure((), folder, lambda: student)

    def go(self, steps: tuple[Step, ...]) -> None:
        """One hop more."""
        before = len(self.hops) - 1
        self._measure(steps, None, lambda: self._applied(steps, before))

    def result(self) -> Result:
        """What has come of it."""
        digest = self.run.teacher.digest
        heard = [r for r in self.ledger.rows() if r.fingerprints.get("teacher") == digest]
        spoke = next((r for r in heard if r.config.get("student") == TEACHER), None)
        return Result(tuple(self.hops), spoke, self.max_drop)

    def _measure(
        self, steps: tuple[Step, ...], folder: Path | None, make: Callable[[], Student]
    ) -> None:
        engine, run = self.engine, self.run
        engine.stop.check()
        started = time.perf_counter()
        stages = self.cells[-1].stages if self.cells else run.cell.stages
        cell = dataclasses.replace(run.cell, stages=(*stages, *steps))
        label = " -> ".join(map(str, steps)) or AS_IT_IS
        own = engine.run_folder(cell.hash)
        self.cells.append(cell)
        self.done.append(steps)
        row = rows_in(self.ledger.path.parent).get(cell.hash)
        student, fresh = None, row is None
        if row is None or not (own / SAID).is_file():
            student = make()
            context, notes = RunContext(engine, run, cell, label), student.notes
            said = {split: context.logits(student, split) for split in SPLITS}
            write_said(own / SAID, said, notes)
            row = row or self._row(cell, label, student, said, time.perf_counter() - started)
        else:
            said, notes = read_said(own / SAID)
        kept = self._is_kept(row)
        if kept and folder is None and (fresh or not (own / MODEL).is_dir()):
            student = student or make()
            _keep(own, student, said)
        if fresh:
            self.ledger.append(row)
        if kept:
            clear_checkpoints(own)
        self.said.append(said)
        self.student = student
        hop = Hop(label, row, folder or own, kept, notes)
        self.hops.append(hop)
        for note in hop.notes:
            engine.reporter.say(f"{label}: {note}")
        engine.reporter.say(f"{label}: {told(hop, self.max_drop, run.splits.kind)}")

    def _applied(self, steps: tuple[Step, ...], before: int) -> Student:
        student = self._at(before)
        notes: tuple[str, ...] = ()
        metrics: dict[str, float] = {}
        label = " -> ".join(map(str, steps))
        context = RunContext(self.engine, self.run, self.cells[before + 1], label)
        for step in steps:
            student = step.apply(student.but(notes=(), metrics={}), context)
            notes += student.notes
            metrics |= student.metrics
        return student.but(notes=notes, metrics=metrics)

    def _at(self, number: int) -> Student:
        """The student at the end of a hop: in memory, from its folder, or made again."""
        if number == len(self.hops) - 1 and self.student is not None:
            return self.student
        hop = self.hops[number]
        if (hop.folder / MODEL).is_dir():
            return opened(hop.folder, self.run)
        return self._applied(self.done[number], number - 1)

    def _is_kept(self, row: LedgerRow) -> bool:
        first = self.hops[0].row if self.hops else row
        return lost(row, first, self.run.splits.kind.main) <= self.max_drop + 1e-9

    def _row(
        self,
        cell: ClassifierCell,
        label: str,
        student: Student,
        said: dict[str, np.ndarray],
        seconds: float,
    ) -> LedgerRow:
        engine, run, splits = self.engine, self.run, student.splits
        assert run.supplies is not None
        kind, fitted = splits.kind, splits.fitted
        calibrated = kind.calibrate(said["validation"], splits.validation, fitted)
        teacher_test = run.supplies.teacher_on_test(run)
        metrics = kind.measured(said["test"], splits.test, fitted, calibrated, teacher_test)
        metrics |= as_metrics(splits.coverage)
        metrics |= cost_metrics(engine, splits, student.config, student.params)
        scores = kind.scores(said["validation"], splits.validation, fitted)
        metrics |= {f"validation/{name}": scores[name] for name in kind.decides.values()}
        metrics |= {"sparsity": sparsity(student.params), "bytes": weight_bytes(student)}
        for split in SPLITS:
            metrics |= self._compared(split, said)
        metrics |= student.metrics
        return ledger_row(
            hash=cell.hash,
            experiment=self.experiment,
            row=label,
            group=cell.setup.student,
            seed=cell.seed,
            config=config_of(cell, student.config),
            metrics=metrics,
            fingerprints={**fingerprints(splits, run.teacher), "teacher": cell.teacher_digest},
            training={"seconds": {"total": seconds}},
            **evidence(splits, said["test"], calibrated, []),
        )

    def _compared(self, split: str, said: dict[str, np.ndarray]) -> dict[str, float]:
        """The main score with its interval, what was gained on the run, and how often the hop
        before answers the same."""
        splits = self.run.splits
        own_N = main_by_example(splits, said, split)
        found: dict[str, float] = {}
        own = paired_bootstrap(own_N, np.zeros(len(own_N))) if len(own_N) else None
        if own is not None:
            found |= {f"{split}/low": own.low, f"{split}/high": own.high}
        if not self.said:
            return found
        first_N = main_by_example(splits, self.said[0], split)
        if len(first_N) and len(own_N):
            found |= gains(split, first_N, own_N)
        if not splits.kind.has_classes:
            return found
        same_N = said[split].argmax(axis=1) == self.said[-1][split].argmax(axis=1)
        return {**found, f"{split}/agreement": float(same_N.mean())}


def main_by_example(splits: Splits, said: dict[str, np.ndarray], split: str) -> np.ndarray:
    """What each example of a split contributes to the main score, [N]; [0] of a model that
    diverged.

    Args:
      said: what a model says of each split.
    """
    kind, fitted = splits.kind, splits.fitted
    calibrated = kind.calibrate(said["validation"], splits.validation, fitted)
    found = by_example(kind, said[split], getattr(splits, split), fitted, calibrated)
    return found.get(kind.main, np.zeros(0))


def _keep(folder: Path, student: Student, said: dict[str, np.ndarray]) -> None:
    """Write a hop's model, and what belongs to it."""
    keep_run(
        folder,
        student.splits,
        student.config,
        student.params,
        student.tokenizer_file,
        said["test"],
        student.splits.kind.calibrate(
            said["validation"], student.splits.validation, student.splits.fitted
        ),
        [],
    )


def opened(folder: Path, run: ClassifierRun) -> Student:
    """The student in a hop's folder, or a run's."""
    model = load_model(folder / MODEL)
    splits, first, own = run.splits, run.begun.tokenizer_file, model.tokenizer_file
    if own is not None and first is not None and sha256_file(own) != sha256_file(first):
        splits = read_with(splits, own)
    return Student(model.config, jax.tree.map(np.asarray, model.params), own, splits)


def lost(row: LedgerRow, first: LedgerRow, main: str = "accuracy") -> float:
    """Points of a validation score that a hop lost."""
    name = f"validation/{main}"
    return 100 * (first.metrics[name] - row.metrics[name])


def told(hop: Hop, max_drop: float, kind: Kind = CLASSES) -> str:
    """In a line, what came of a hop."""
    metrics, main = hop.row.metrics, kind.main
    scores = [f"{split} {kind.shown(main, metrics[f'{split}/{main}'])}" for split in SPLITS]
    said = f"{', '.join(scores)}, {metrics['bytes'] / 1e6:.2f} MB"
    if hop.kept:
        return said
    return f"{said}; it {too_much(hop, max_drop)}"


def too_much(hop: Hop, max_drop: float) -> str:
    """What is said of a hop that lost more than was allowed."""
    earlier = (hop.folder / MODEL).is_dir()
    fate = "stays as an earlier call wrote it" if earlier else "is not written"
    return f"loses more than {max_drop:g} points on validation: its model {fate}"


def weight_bytes(student: Student) -> int:
    """Of the file with the weights, as ``safetensors`` writes it, but for names: the numbers."""
    return sum(array.nbytes for array in flat_arrays(student.params).values())


def write_said(path: Path, said: dict[str, np.ndarray], notes: Sequence[str]) -> None:
    """Keep what a hop says of each split, and what its steps told."""
    buffer = io.BytesIO()
    np.savez(buffer, notes=np.asarray(notes, np.str_), **said)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def read_said(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """What ``write_said`` wrote.

    Raises:
      UserError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            notes = tuple(map(str, file["notes"]))
            return {split: file[split] for split in SPLITS}, notes
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder") from error
