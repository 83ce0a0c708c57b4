"""A table of classifiers: what the runner asks of it, see ``interface.TableTask``."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture
from distill_jax.engine.engine import Engine
from distill_jax.engine.interface import Run
from distill_jax.engine.options import DEFAULTS, RunOptions, Strategy, TrackTo
from distill_jax.engine.progress import Reporter
from distill_jax.engine.resume import Known
from distill_jax.engine.run import run_table
from distill_jax.engine.work import Work
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.spec import Place, TableSpec, Where
from distill_jax.tasks.classification.cells import Cell, config_of
from distill_jax.tasks.classification.models import check_student, params_of_student
from distill_jax.tasks.classification.runs import Planned, finish_run
from distill_jax.tasks.classification.self_checks import run_self_checks
from distill_jax.tasks.classification.supplies import Supplies
from distill_jax.tasks.classification.sweep import Entry, Sweep
from distill_jax.tasks.classification.yardsticks import measure
from distill_jax.training.feed import TeacherOutputs
from distill_jax.training.loop import TrainResult
from distill_jax.training.state import Params

KNOWN_LATE = ("teacher_digest", "teacher_dtype", "plugin", "model")
NAMES = tuple(
    f"teacher.{key}"
    for key in ("name", "pooling", "label_map", "outputs", "cache_dtype", "precision")
)
"""Settings of the teacher that count only as far as ``teacher_digest`` and ``teacher_dtype`` do."""


def run_sweep(
    sweep: Sweep,
    folder: Path,
    reporter: Reporter,
    *,
    track: TrackTo = "tensorboard",
    strategy: Strategy = "auto",
    options: RunOptions = DEFAULTS,
) -> tuple[TableSpec, list[LedgerRow]]:
    """``run.run_table`` of classifiers."""
    table = ClassifierTable(sweep)
    _ = table.entries  # what is wrong with a table is said before a folder is made
    return run_table(table, folder, reporter, track=track, strategy=strategy, options=options)


@dataclass(eq=False)
class ClassifierTable:
    """What is needed for the runs of a sweep of classifiers, and the runs."""

    sweep: Sweep
    supplies: Supplies = field(init=False)
    yardsticks: tuple[Place, ...] = ()

    @property
    def name(self) -> str:
        return self.sweep.name

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry of the table."""
        return self.sweep.entries()

    def prepare(self, engine: Engine) -> None:
        """Data and teachers' checkpoints are there, every entry fits them."""
        self.supplies = Supplies(engine, self.sweep.name)
        _check(self.entries, self.supplies)

    def settings(self) -> dict[Where, Known]:
        return dict(_known(self.entries, self.supplies))

    def raise_teachers(self, ledger: Ledger) -> None:
        """Fine-tune every teacher that the entries hear."""
        for cell in _distinct(self.entries):
            self.supplies.engine.check_stop()
            self.supplies.raise_teacher(cell, ledger)
        if self.sweep.yardsticks:
            self.yardsticks = tuple(measure(self.entries, self.supplies, ledger))

    @cached_property
    def planned(self) -> list[tuple[Entry, Planned]]:
        """Every entry with its cell's contents known."""
        return _bind(self.entries, self.supplies)

    @cached_property
    def everything(self) -> list[Planned]:
        """Each run once."""
        return list({p.cell.hash: p for _, p in self.planned}.values())

    def runs(self) -> list[Run]:
        return [ClassifierRun(each, self.supplies, self.everything) for each in self.everything]

    def spec(self) -> TableSpec:
        places = [
            Place(e.row, e.group, e.cell.seed, p.cell.hash, e.candidate) for e, p in self.planned
        ]
        return self.sweep.spec(places, self.supplies.teacher_places(self.entries), self.yardsticks)

    def configs(self) -> dict[str, dict[str, Any]]:
        return {p.cell.hash: config_of(p.cell, p.config) for p in self.everything}

    def self_check(self, runs: Sequence[Run]) -> None:
        chosen = {run.hash for run in runs}
        run_self_checks(
            [each for each in self.everything if each.cell.hash in chosen],
            lambda each: self.supplies.widest(each, self.everything).everything,
            self.supplies.engine.reporter,
            self.supplies.engine.stop.check,
        )


@dataclass(frozen=True, eq=False)
class ClassifierRun:
    """A student, see ``interface.Run``.

    Attributes:
      everyone: all runs of the table, so that a teacher is asked once for all of them.
    """

    planned: Planned
    supplies: Supplies
    everyone: Sequence[Planned]

    @property
    def hash(self) -> str:
        return self.planned.cell.hash

    @property
    def title(self) -> str:
        return self.planned.title

    @property
    def works(self) -> tuple[Work, ...]:
        return self.planned.works

    @property
    def together(self) -> Mapping[str, Any]:
        """One test of the steps, one way of hearing the teacher."""
        return {
            "evaluation": self.planned.task.tokens_digest,
            "live": self.planned.cell.teacher.outputs == "live",
        }

    def start(self) -> Params:
        return params_of_student(self.planned.cell, self.planned.teacher.pretrained)

    def outputs(self) -> TeacherOutputs | None:
        return self.supplies.outputs(self.planned, self.everyone)

    def finish(self, engine: Engine, result: TrainResult, seconds: float) -> LedgerRow:
        on_test_NC = self.supplies.teacher_on_test(self.planned)
        return finish_run(
            engine, self.supplies.experiment, self.planned, result, on_test_NC, seconds
        )

    def told(self, row: LedgerRow) -> str:
        return f"test accuracy {100 * row.metrics['test/accuracy']:.1f}%"


def _check(entries: Sequence[Entry], supplies: Supplies) -> None:
    """Every objective fits every student and teacher; says what was decided for them."""
    said = set()
    for cell in _distinct(entries):
        _, pretrained = supplies.of(cell)
        plugin_digest(*_objectives(cell))
        shape = check_student(cell, pretrained.config).shape
        for training in (cell.teacher.training, cell.training):
            supplies.engine.check_batch_size(training.batch_size)
        for objective in _objectives(cell):
            resolved = resolve(objective, shape, pretrained.config.shape)
            _check_placebo(cell, objective, resolved)
            for note in resolved.notes:
                if (cell.student, note) not in said:
                    supplies.engine.reporter.say(f"{cell.student}: {note}")
                said.add((cell.student, note))


def _objectives(cell: Cell) -> list[str]:
    """Of its last stage and of the one before."""
    return [cell.objective, *([cell.intermediate.objective] if cell.intermediate else [])]


def _check_placebo(cell: Cell, objective: str, resolved: ResolvedObjective) -> None:
    """Raises ``UserError`` where a placebo would change nothing, or more than the teacher's words.

    A teacher's hidden states of another text have another length.
    """
    if cell.placebo and not resolved.needs_teacher:
        raise UserError(f"a placebo for {objective!r}, which listens to no teacher")
    if cell.placebo and resolved.teacher_capture != Capture():
        raise UserError(
            f"a placebo for {objective!r}: the words that are given to other examples are logits, "
            "and this objective reads more"
        )


def _known(entries: Sequence[Entry], supplies: Supplies) -> Iterator[tuple[Where, Known]]:
    for entry in entries:
        task, pretrained = supplies.of(entry.cell)
        cell = dataclasses.replace(entry.cell, data_digest=task.digest)
        config = config_of(cell, check_student(cell, pretrained.config))
        unread = () if cell.teacher.fine_tune else ("teacher.training",)
        yield entry.where, (config, (*KNOWN_LATE, *NAMES, *unread))


def _distinct(entries: Sequence[Entry]) -> list[Cell]:
    """The cells that differ in more than the seed."""
    cells: dict[str, Cell] = {}
    for entry in entries:
        cell = dataclasses.replace(entry.cell, seed=0)
        cells.setdefault(repr(cell), cell)
    return list(cells.values())


def _bind(entries: Sequence[Entry], supplies: Supplies) -> list[tuple[Entry, Planned]]:
    """Every entry with its cell's contents known."""
    first: dict[str, Planned] = {}
    planned = []
    for entry in entries:
        cell = entry.cell
        task, _ = supplies.of(cell)
        teacher, _ = supplies.teacher(cell)
        config = check_student(cell, teacher.pretrained.config)
        objective = resolve(cell.objective, config.shape, teacher.config.shape)
        before = None
        if cell.intermediate is not None:
            before = resolve(cell.intermediate.objective, config.shape, teacher.config.shape)
        cell = dataclasses.replace(
            cell,
            plugin=plugin_digest(*_objectives(cell)),
            teacher_dtype=_dtype(cell, objective, before),
            data_digest=task.digest,
            teacher_digest=teacher.digest,
        )
        bound = Planned(cell, entry.label, entry.group, task, teacher, config, objective, before)
        planned.append((entry, first.setdefault(cell.hash, bound)))
    return planned


def _dtype(cell: Cell, *objectives: ResolvedObjective | None) -> str:
    """How the teacher's outputs are kept, as far as it is read: the dtype of token-level ones, how
    many logits where not all, and in what they were computed."""
    cached = cell.teacher.outputs == "cache"
    tokenwise = any(o is not None and o.teacher_capture != Capture() for o in objectives)
    kept: str = cell.teacher.cache_dtype if cached and tokenwise else "float32"
    if cached and cell.teacher.cache_top_k is not None:
        kept = f"{kept}, top {cell.teacher.cache_top_k}"
    return kept if cell.teacher.precision == "f32" else f"{kept} of bfloat16"
