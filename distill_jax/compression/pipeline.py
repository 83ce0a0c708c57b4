"""Hops: from a finished run, step by step, to students that are smaller still.

Every hop is a cell, the run's with more stages, and so has a hash, a row in a ledger and a folder
of its own. A call that was stopped or killed goes on from the rows that are there, and amid a
training from its checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from distill_jax.compression.answers import SPLITS, Answers, read_said, write_said
from distill_jax.compression.context import RunContext
from distill_jax.compression.going_on import UPDATES, check_steps, went_on
from distill_jax.compression.steps import Step, Student
from distill_jax.compression.vocabulary import read_with
from distill_jax.core.digests import sha256_file
from distill_jax.core.errors import UserError
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
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.names import MODEL
from distill_jax.tables.statistics import paired_bootstrap
from distill_jax.tasks.classification.cells import TEACHER, ClassifierCell, config_of
from distill_jax.tasks.classification.finished import cell_of, kind_of, row_of, teachers_of
from distill_jax.tasks.classification.runs import (
    ClassifierRun,
    cost_metrics,
    evidence,
    fingerprints,
    keep_run,
)
from distill_jax.tasks.classification.splits import Splits
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.pruning import sparsity

EXPERIMENT = "compress"
AS_IT_IS = "as it is"
SAID, SAID_SO_FAR = "said.npz", "said_so_far.npz"
"""What a hop says; what one that went on says of all that was asked until then."""


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
      max_drop: points of the main score on validation (accuracy, of classes) that a hop may lose
        against the run; the model of one that loses more is not written. Later hops go on from it
        all the same.

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
    updates: bool = False,
) -> Iterator[Line]:
    """A pipeline at its first hop, the run as it is; nobody else works in ``output`` meanwhile.

    Args:
      experiment: what its rows are called.
      updates: whether the run may be one that was brought up to date.

    Raises:
      UserError: see ``compress``.
    """
    if jax.process_count() > 1:
        raise UserError(f"{experiment} is for one process, on as many devices as it has")
    row = row_of(folder)
    check_steps(folder, row, updates=updates)
    cell_of(row, UPDATES)  # before anything is written
    (output / "runs").mkdir(parents=True, exist_ok=True)
    with StopRequest(reporter.say) as stop, only_process(output / "runs", options.share):
        engine = Engine(output / "runs", reporter, stop, "none", options)
        ledger = Ledger(output / "ledger.jsonl")
        known = ledger.finished_hashes()
        for teacher in teachers_of(folder, row):
            if teacher.hash not in known:
                ledger.append(teacher)
        line = Line(engine, went_on(engine, row, ledger), ledger, max_drop, experiment)
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
      answers: what each hop says of each split.
    """

    engine: Engine
    run: ClassifierRun
    ledger: Ledger
    max_drop: float
    experiment: str = EXPERIMENT
    hops: list[Hop] = dataclasses.field(default_factory=list)
    answers: list[Answers] = dataclasses.field(default_factory=list)
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
        path = own / (SAID_SO_FAR if folder is not None and run.cell.steps else SAID)
        if row is None or not path.is_file():
            student = make()
            context, notes = RunContext(engine, run, cell, label), student.notes
            said = {split: context.logits(student, split) for split in SPLITS}
            write_said(path, said, notes)
            heard = self._answers(student.splits, said)
            row = row or self._row(cell, label, student, heard, time.perf_counter() - started)
        else:
            said, notes = read_said(path)
            heard = self._answers(None, said)
        kept = self._is_kept(row)
        if kept and folder is None and (fresh or not (own / MODEL).is_dir()):
            student = student or make()
            heard = self._answers(student.splits, said)
            _keep(own, student, heard)
        if fresh:
            self.ledger.append(row)
        if kept:
            clear_checkpoints(own)
        self.answers.append(heard)
        self.student = student
        hop = Hop(label, row, folder or own, kept, notes)
        self.hops.append(hop)
        for note in hop.notes:
            engine.reporter.say(f"{label}: {note}")
        engine.reporter.say(f"{label}: {told(hop, self.max_drop)}")

    def _answers(self, splits: Splits | None, said: dict[str, np.ndarray]) -> Answers:
        """What the next hop says, of which the examples are read again where they are needed."""
        number, tokenizer = len(self.hops), self.run.begun.tokenizer_file
        return Answers(said, lambda: splits or self._at(number).splits, tokenizer)

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
            student = opened(hop.folder, self.run)
        else:
            student = self._applied(self.done[number], number - 1)
        splits = student.splits
        self.answers[number].splits_of = lambda: splits  # known now: it is not made twice
        return student

    def _is_kept(self, row: LedgerRow) -> bool:
        first = self.hops[0].row if self.hops else row
        return lost(row, first) <= self.max_drop + 1e-9

    def _row(
        self,
        cell: ClassifierCell,
        label: str,
        student: Student,
        heard: Answers,
        seconds: float,
    ) -> LedgerRow:
        engine, run, splits = self.engine, self.run, student.splits
        assert run.supplies is not None
        kind, fitted = splits.kind, splits.fitted
        said, calibrated = heard.said, heard.calibrated
        # What is said of tokens cannot be put beside what is said of another tokeniser's.
        apart = kind.head == "tokens" and splits.tokens_digest != run.taught.tokens_digest
        teacher_test = None if apart else run.supplies.teacher_on_test(run)
        metrics = kind.measured(said["test"], splits.test, fitted, calibrated, teacher_test)
        metrics |= as_metrics(splits.coverage)
        metrics |= cost_metrics(engine, splits, student.config, student.params)
        scores = kind.scores(said["validation"], splits.validation, fitted)
        metrics |= {f"validation/{name}": scores[name] for name in kind.decides.values()}
        metrics |= {"sparsity": sparsity(student.params), "bytes": weight_bytes(student)}
        for split in SPLITS:
            metrics |= self._compared(split, heard)
        metrics |= student.metrics
        return ledger_row(
            hash=cell.hash,
            experiment=self.experiment,
            row=label,
            group=cell.setup.student,
            seed=cell.seed,
            config=config_of(cell, student.config),
            metrics=metrics,
            fingerprints={
                **fingerprints(splits, run.teacher),
                "teacher": cell.teacher_digest,
                **student.fingerprints,
            },
            training={"seconds": {"total": seconds}},
            **evidence(splits, said["test"], calibrated, []),
        )

    def _compared(self, split: str, heard: Answers) -> dict[str, float]:
        """The interval of the main score, what was gained on the run, and how often the hop before
        answers the same."""
        own_N = heard.contributed(split)
        found: dict[str, float] = {}
        if own_N is None:
            return found
        own = paired_bootstrap(own_N, np.zeros(len(own_N)))
        if own is not None:
            found |= {f"{split}/low": own.low, f"{split}/high": own.high}
        if not self.answers:
            return found
        first_N = self.answers[0].contributed(split)
        gain = None if first_N is None else paired_bootstrap(own_N, first_N)
        if gain is not None:
            found |= {
                f"{split}/gain": gain.difference,
                f"{split}/gain_low": gain.low,
                f"{split}/gain_high": gain.high,
            }
        return {**found, f"{split}/agreement": heard.agreement(self.answers[-1], split)}


def _keep(folder: Path, student: Student, heard: Answers) -> None:
    """Write a hop's model, and what belongs to it."""
    keep_run(
        folder,
        student.splits,
        student.config,
        student.params,
        student.tokenizer_file,
        heard.said["test"],
        heard.calibrated,
        [],
    )


def opened(folder: Path, run: ClassifierRun) -> Student:
    """The student in a hop's folder, or a run's."""
    model = load_model(folder / MODEL)
    splits, first, own = run.splits, run.begun.tokenizer_file, model.tokenizer_file
    if own is not None and first is not None and sha256_file(own) != sha256_file(first):
        splits = read_with(splits, own)
    return Student(model.config, jax.tree.map(np.asarray, model.params), own, splits)


def lost(row: LedgerRow, first: LedgerRow) -> float:
    """Points of the main score on validation that a hop lost."""
    key = f"validation/{kind_of(first).main}"
    return 100 * (first.metrics.get(key, math.nan) - row.metrics.get(key, math.nan))


def told(hop: Hop, max_drop: float) -> str:
    """In a line, what came of a hop."""
    metrics, kind = hop.row.metrics, kind_of(hop.row)
    shown = (
        f"{split} {kind.shown(kind.main, metrics[f'{split}/{kind.main}'])}" for split in SPLITS
    )
    said = f"{', '.join(shown)}, {metrics['bytes'] / 1e6:.2f} MB"
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
