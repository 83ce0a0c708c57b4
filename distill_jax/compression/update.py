"""``update``: new examples have come; the same student goes on, and what it forgot is counted.

Beside the new examples it rehearses some of the old ones, with what its teacher said of them, kept
from the first time. The teacher is asked about the new ones; where they have labels it may be
fine-tuned further first.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from scipy import special

from distill_jax.compression.distil import Training
from distill_jax.compression.steps import StepContext, Student
from distill_jax.core.digests import NAME, digest
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.files import read_arrays, write_atomic
from distill_jax.data.load_images import is_images
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.tables.before_after import changes, gains
from distill_jax.tasks.classification.cells import (
    TEACHER,
    ClassifierCell,
    ClassifierSetup,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.classify import predict
from distill_jax.tasks.classification.models import Checkpoint
from distill_jax.tasks.classification.new_data import (
    NewData,
    load_new_data,
    mixed,
    rehearsed,
    splits_of_new,
)
from distill_jax.tasks.classification.runs import ClassifierRun, Moment
from distill_jax.tasks.classification.splits import Examples, Splits
from distill_jax.tasks.classification.supplies import together
from distill_jax.tasks.classification.teacher import Teacher, fine_tuned, outputs_for
from distill_jax.tasks.kinds.kind import Calibrated, Kind, by_example
from distill_jax.teachers.parts import by_part
from distill_jax.training.feed import TeacherOutputs

ASKED = 2000
"""Of old and of new training examples as many, at most, tell how far the one are from the other."""
SAID = "new.npz"
TEACHERS = "teachers"
"""The fingerprint of an update's teachers as they were asked about the new examples."""
ARRAYS = ("ids", "labels_N", "before_NC", "after_NC")


@dataclass(frozen=True)
class Update(Training):
    """See the module; how long and at which rate it trains, and with which objective, is said as of
    ``distil``.

    Attributes:
      data: the new data set's name, as of ``--data``.
      text, text_b, label: its columns.
      rehearse: old training examples that come again, as a share of the new ones.
      teacher_too: whether the teacher is fine-tuned on the new labels, and on those rehearsed.
      content: digest of the new data, once it is known.
    """

    kind: ClassVar[str] = "update"

    data: str = field(default="", metadata=NAME)
    text: str = field(default="sentence", metadata=NAME)
    text_b: str | None = field(default=None, metadata=NAME)
    label: str = field(default="label", metadata=NAME)
    rehearse: float = 1.0
    teacher_too: bool = False
    content: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()
        if not self.data:
            raise UserError("an update needs new data")
        if not 0 <= self.rehearse <= 1000:
            raise UserError(f"the share to rehearse must be from 0 to 1000, not {self.rehearse:g}")

    def __str__(self) -> str:
        kind, colon, path = self.data.rpartition(":")
        return f"{self.kind}({kind}{colon}{Path(path).name if colon else path})"

    def bound(self, run: ClassifierRun) -> Update:
        """The same with the content of the new data known.

        Raises:
          UserError: for data that cannot be learnt from.
        """
        new = new_data(self, run)
        kind, shapes = run.splits.kind, [teacher.config.shape for teacher in run.teachers]
        own = str(kind.parse(self.objective)) if self.objective else ""
        objective = own or objective_of(run.cell)
        resolved = resolve(objective, run.model.shape, shapes, run.splits.outputs)
        if not new.labels and not resolved.needs_teacher:
            raise UserError(
                f"{self.data} has no labels, and {objective!r} listens to no teacher: there is "
                "nothing to learn"
            )
        if self.teacher_too and not new.labels:
            raise UserError(f"{self.data} has no labels: there is nothing for the teacher to learn")
        if run.cell.setup.placebo:
            raise UserError("the run is a placebo: its student hears of other examples")
        if run.cell.setup.vocabulary:
            raise UserError("the student has a vocabulary of its own, of the texts that were there")
        if any(teacher.by_id for teacher in run.teachers):
            raise UserError("a teacher of the run is no model: it says nothing of new examples")
        return dataclasses.replace(self, objective=own, content=new.digest)

    def canonical(self, objective: str) -> str:
        """As it is: what is predicted is known when it is bound."""
        return objective

    def apply(self, student: Student, context: StepContext) -> Student:
        run, engine = context.run, context.engine
        new = new_data(self, run)
        if new.digest != self.content:
            raise UserError(f"{self.data} has changed since the update began")
        rows = self.rows(run, new)
        both = mixed(run.splits, rows, new)
        teachers = self.teachers(engine, run, new)
        words = _Words(engine, run, rows, new, teachers)
        objective = self.objective or objective_of(run.cell)
        training = self.settings(training_of(run.cell))
        learnt = context.train(student.but(splits=both), objective, training, words)
        found = _Scores(engine, run, new)
        metrics = found.of_student(student, learnt, context.folder / SAID)
        metrics |= found.distances(len(rows))
        for number, (before, after) in enumerate(zip(run.teachers, teachers, strict=True)):
            which = f"teacher {number + 1}" if number else TEACHER
            metrics |= found.of_teacher(which, before, after)
        notes = (
            *(f"new data: {note}" for note in new.notes),
            _told(self, new, len(rows)),
            *earlier(run.cell),
        )
        told = {TEACHERS: digest_of(teachers)}
        return learnt.but(splits=student.splits, notes=notes, metrics=metrics, fingerprints=told)

    def rows(self, run: ClassifierRun, new: NewData) -> np.ndarray:
        """See ``rehearsed``."""
        return rehearsed(run.splits, self.rehearse, len(new.train), run.cell.seed)

    def teachers(self, engine: Engine, run: ClassifierRun, new: NewData) -> tuple[Teacher, ...]:
        """A run's teachers as they are asked about the new examples."""
        if not self.teacher_too:
            return run.teachers
        both = mixed(run.splits, self.rows(run, new), new)
        setups = run.cell.setup.teachers
        return tuple(
            _taught(engine, run, both, teacher, config)
            for teacher, config in zip(run.teachers, setups, strict=True)
        )


@lru_cache(maxsize=4)
def new_data(update: Update, run: ClassifierRun) -> NewData:
    """The new examples of an update."""
    own = run.splits.config
    config = dataclasses.replace(
        own, name=update.data, text=update.text, text_b=update.text_b, label=update.label
    )
    return load_new_data(config, run)


def columns_of(cell: ClassifierCell, **given: str | None) -> dict[str, Any]:
    """The columns of new data: those given, else those that the run read last.

    Args:
      given: ``text``, ``text_b`` and ``label``, None where nothing is said.
    """
    last: Any = (cell.setup.data, *cell.steps)[-1]
    own = {name: getattr(last, name) for name in ("text", "text_b", "label")}
    return own | {name: value for name, value in given.items() if value is not None}


def objective_of(cell: ClassifierCell) -> str:
    """What a run learnt with last, in its making or in an update."""
    return [cell.objective, *(text for step in cell.steps for text in step.objectives)][-1]


def training_of(cell: ClassifierCell) -> TrainingConfig:
    """How a run was trained last, in its making or in an update."""
    training, steps = cell.training, cast(tuple[Update, ...], cell.steps)
    for step in steps:
        training = step.settings(training)
    return training


def digest_of(teachers: Sequence[Teacher]) -> str:
    """Of all that a run's teachers are."""
    return digest([teacher.digest for teacher in teachers])


def earlier(cell: ClassifierCell) -> Iterator[str]:
    """Which updates led to a run, a line each."""
    for number, step in enumerate(cast(tuple[Update, ...], cell.steps)):
        began = dataclasses.replace(cell, stages=(*cell.making, *cell.steps[:number]))
        yield f"{began.hash} was brought up to date with {step.data} before"


@dataclass(frozen=True, eq=False)
class _Words:
    """What teachers say of rehearsed and new examples: of the old what is kept, of the new ones
    what they say now.

    Attributes:
      rows: of the run's training examples, those rehearsed, ascending.
      teachers: as they are now.
    """

    engine: Engine
    run: ClassifierRun
    rows: np.ndarray
    new: NewData
    teachers: Sequence[Teacher]

    def __call__(self, objective: ResolvedObjective, splits: Splits) -> TeacherOutputs | None:
        if not objective.needs_teacher:
            return None
        said = [self._of(objective, number) for number in range(len(self.teachers))]
        return said[0] if len(said) == 1 else together(said)

    def _of(self, objective: ResolvedObjective, number: int) -> TeacherOutputs:
        run, captures = self.run, [objective.teacher_captures[number]]
        config = run.cell.setup.teachers[number]
        alone = splits_of_new(self.new, run.splits)
        said: list[TeacherOutputs] = []
        counts: list[int] = []

        def hear(teacher: Teacher, some: Splits, wider: Splits) -> None:
            word = outputs_for(self.engine, some, teacher, captures, config, wider)
            assert word is not None, "somebody listens"
            said.append(word)
            counts.append(len(some.everything))

        then = [] if self._as_ever(number) else self._by_moment()
        for moment, rows in then:
            again = moment.splits.everything.take(rows)
            some = dataclasses.replace(moment.splits, everything=again)
            hear(moment.teachers[number], some, moment.splits)
        hear(self.teachers[number], alone, alone)
        return by_part(said, counts) if len(said) > 1 else said[0]

    def _as_ever(self, number: int) -> bool:
        """Whether a teacher says of every example what it says now: asked live, it is the same."""
        live = self.run.cell.setup.teachers[number].outputs == "live"
        now = self.teachers[number]
        return live and all(moment.teachers[number] is now for moment in self.run.moments)

    def _by_moment(self) -> Iterator[tuple[Moment, np.ndarray]]:
        """When there were examples that come again, and which of the examples of then they are."""
        first = 0
        for moment in self.run.moments:
            end = first + len(moment.splits.everything)
            own = self.rows[(self.rows >= first) & (self.rows < end)] - first
            first = end
            if len(own):
                yield moment, own


def _taught(
    engine: Engine, run: ClassifierRun, both: Splits, teacher: Teacher, config: TeacherConfig
) -> Teacher:
    """A teacher, fine-tuned further on the labels of rehearsed and new examples."""
    start = Checkpoint(
        teacher.config,
        teacher.params,
        teacher.pretrained.tokenizer_file,
        teacher.digest,
        teacher.label_names,
    )
    cell = Cell(
        ClassifierSetup(run.cell.setup.data, config, TEACHER),
        (Train(both.kind.alone, config.training),),
        config.seed,
        precision=config.training_precision,
        data_digest=both.labels_digest,
        teacher_digest=teacher.digest,
    )
    taught = fine_tuned(engine, both, start, cell, "fine-tuning the teacher further")
    return dataclasses.replace(taught, pretrained=teacher.pretrained)


def _told(update: Update, new: NewData, again: int) -> str:
    taught = ", the teacher was fine-tuned further" if update.teacher_too else ""
    return (
        f"{len(new.train):,} new training examples ({new.labels:,} labelled), {again:,} old ones "
        f"rehearsed{taught}"
    )


@dataclass(frozen=True, eq=False)
class _Scores:
    """What is measured of an update, beside what is measured of every hop."""

    engine: Engine
    run: ClassifierRun
    new: NewData

    def of_student(self, before: Student, after: Student, path: Path) -> dict[str, float]:
        """What it forgot and learnt of the old test, and the new test before and after.

        Args:
          path: where what it says of the new test is kept.
        """
        splits, students = self.run.splits, (before, after)
        fitted = [
            splits.kind.calibrate(
                self._logits(each, splits.validation), splits.validation, splits.fitted
            )
            for each in students
        ]
        old = [self._logits(each, splits.test) for each in students]
        metrics = self._changed("test", splits.test, old, fitted)
        if self.new.test is None:
            return metrics
        said = [self._logits(each, self.new.test) for each in students]
        write_new(path, self.new.test.ids, self.new.test.labels_N, *said)
        return metrics | self._changed("new", self.new.test, said, fitted)

    def _changed(
        self,
        name: str,
        table: Examples,
        said: Sequence[np.ndarray],
        calibrated: Sequence[Calibrated],
    ) -> dict[str, float]:
        """Scores of a test before and after, gains of those that have an interval, and what was
        forgotten where an answer is right or wrong as a whole.

        Args:
          said: before and after.
          calibrated: on the old validation examples, before and after.
        """
        kind, fitted = self.run.splits.kind, self.run.splits.fitted
        scores = [
            kind.scores(own, table, fitted, calibrated=each)
            for own, each in zip(said, calibrated, strict=True)
        ]
        shares = [
            by_example(kind, own, table, fitted, each)
            for own, each in zip(said, calibrated, strict=True)
        ]
        metrics: dict[str, float] = {}
        for metric in shown_of(kind):
            prefix = name if metric == kind.main else f"{name}/{metric}"
            metrics[f"{prefix}/before"] = scores[0][metric]
            metrics[f"{name}/{metric}"] = scores[1][metric]
            if all(metric in each for each in shares):
                metrics |= gains(prefix, *(each[metric] for each in shares))
        metrics[f"{name}/tested"] = len(table)
        if kind.whole is not None and all(kind.whole in each for each in shares):
            metrics |= changes(name, *(each[kind.whole] > 0.5 for each in shares))
        return metrics

    def of_teacher(self, which: str, before: Teacher, after: Teacher) -> dict[str, float]:
        """Its main score on both tests, before and after where it was taught."""
        metrics: dict[str, float] = {}
        for name, table in (("test", self.run.splits.test), ("new", self.new.test)):
            if table is None:
                continue
            right = [self._score(before, table)]
            right.append(right[0] if after is before else self._score(after, table))
            metrics |= {f"{which}/{name}/before": right[0], f"{which}/{name}/after": right[1]}
        return metrics

    def distances(self, again: int) -> dict[str, float]:
        """How far the new training examples are from the old ones."""
        old, new = self.run.splits.everything, self.new.train
        metrics: dict[str, float] = {
            "old/examples": len(old),
            "new/examples": len(new),
            "new/labelled": self.new.labels,
            "old/rehearsed": again,
        }
        for name, table, coverage in (
            ("old", old, self.run.splits.coverage),
            ("new", new, self.new.coverage),
        ):
            if not is_images(self.run.splits.config.name):
                metrics[f"{name}/tokens"] = float(table.lengths_N.mean())
                metrics[f"{name}/unknown"] = coverage["train"].unknown
        said, names = [self._averages(table) for table in (old, new)], self.run.splits.label_names
        for name, (averages, sure) in zip(("old", "new"), said, strict=True):
            if sure is not None:
                metrics[f"{name}/confidence"] = sure
            for label in filter(averages.__contains__, names):
                metrics[f"{name}/mean of {label}"] = averages[label]
        first, second = (averages for averages, _ in said)
        if first and math.isclose(sum(first.values()), 1, rel_tol=1e-3):
            metrics["drift"] = sum(abs(first[each] - second[each]) for each in first) / 2
        return metrics

    def _averages(self, table: Examples) -> tuple[dict[str, float], float | None]:
        """What the run's first teacher says on average of examples spread evenly over a table, and
        how likely its likeliest class is, where an example has one."""
        splits = self.run.splits
        rows = np.unique(np.linspace(0, len(table) - 1, min(ASKED, len(table))).astype(int))
        some = table.take(rows)
        said = self._said(self.run.teacher, some)
        sure = None
        if splits.kind.has_classes:
            sure = float(special.softmax(said, axis=1).max(axis=1).mean())
        return splits.kind.averages(said, some, splits.fitted, splits.label_names), sure

    def _score(self, teacher: Teacher, table: Examples) -> float:
        kind, fitted, splits = self.run.splits.kind, self.run.splits.fitted, self.run.splits
        validation = self._said(teacher, splits.validation)
        calibrated = kind.calibrate(validation, splits.validation, fitted)
        said = self._said(teacher, table)
        return kind.scores(said, table, fitted, calibrated=calibrated)[kind.main]

    def _said(self, teacher: Teacher, table: Examples) -> np.ndarray:
        return teacher.answers(self.engine, splits_of_new(self.new, self.run.splits), table)

    def _logits(self, student: Student, table: Examples) -> np.ndarray:
        return predict(
            splits_of_new(self.new, self.run.splits),
            student.config,
            student.params,
            table,
            mesh=self.engine.mesh,
            on_batch=self.engine.check_stop,
        )


def shown_of(kind: Kind) -> tuple[str, ...]:
    """The metrics that a report shows: the main one, then others that are tested."""
    tested = (key.removeprefix("test/") for key in kind.tested)
    return tuple(dict.fromkeys((kind.main, *tested)))


def write_new(
    path: Path,
    ids: tuple[str, ...],
    labels_N: np.ndarray,
    before_NC: np.ndarray,
    after_NC: np.ndarray,
) -> None:
    """Keep what a student says of the new test, before and after."""
    buffer = io.BytesIO()
    columns = (np.asarray(ids, np.str_), labels_N, before_NC, after_NC)
    np.savez(buffer, **dict(zip(ARRAYS, columns, strict=True)))  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def read_new(path: Path) -> Mapping[str, np.ndarray]:
    """What ``write_new`` wrote.

    Raises:
      UserError: it is damaged.
    """
    try:
        arrays = read_arrays(path)
        return {name: arrays[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder") from error
