"""Classification of texts and images, see ``interface.Task``."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill_jax.core.digests import digest
from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture
from distill_jax.data.coverage import unknown_below
from distill_jax.engine.engine import Engine
from distill_jax.engine.resume import Known
from distill_jax.engine.sweep import Entry, Sweep, distinct
from distill_jax.objectives.plugins import plugin_digest
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.spec import Place, TableSpec
from distill_jax.tasks.classification.assistants import check_heard, shape_of_last
from distill_jax.tasks.classification.cells import (
    ClassifierCell,
    ClassifierSetup,
    config_of,
    with_each_teacher,
)
from distill_jax.tasks.classification.draws import check_label_seeds, what_was_fixed
from distill_jax.tasks.classification.image_checks import check_jitter, check_left_out
from distill_jax.tasks.classification.models import check_student, check_training
from distill_jax.tasks.classification.peers import check_peers
from distill_jax.tasks.classification.runs import ClassifierRun
from distill_jax.tasks.classification.self_checks import run_self_checks
from distill_jax.tasks.classification.splits import Splits
from distill_jax.tasks.classification.student_tokens import check_own_tokens
from distill_jax.tasks.classification.supplies import Supplies
from distill_jax.tasks.classification.yardsticks import check_references, measure
from distill_jax.tasks.kinds.kind import Kind

KNOWN_LATE = ("teacher_digest", "teacher_dtype", "plugin", "model", "more_teachers")
NAMES = tuple(
    f"teacher.{key}"
    for key in ("name", "pooling", "label_map", "outputs", "cache_dtype", "precision")
)
"""Settings of the teacher that count only as far as ``teacher_digest`` and ``teacher_dtype`` do."""


@dataclass(eq=False)
class Classification:
    """What is needed for the runs of a sweep of classifiers, and the runs."""

    sweep: Sweep[ClassifierSetup]
    entries: Sequence[Entry[ClassifierSetup]] = ()
    supplies: Supplies = field(init=False)
    yardsticks: tuple[Place, ...] = ()

    def prepare(self, engine: Engine, entries: Sequence[Entry[ClassifierSetup]]) -> None:
        """Data and teachers' checkpoints are there, every entry fits them."""
        self.entries = entries
        check_label_seeds([entry.cell for entry in entries])
        check_references(self.sweep.references)
        self.supplies = Supplies(engine, self.sweep.name)
        said = set()
        for cell in distinct(entries):
            for note in _decided(cell, self.supplies):
                if (cell.setup.student, note) not in said:
                    engine.reporter.say(f"{cell.setup.student}: {note}")
                said.add((cell.setup.student, note))

    def known(self, cell: ClassifierCell) -> Known:
        splits, pretrained = self.supplies.reading(cell)
        cell = dataclasses.replace(cell, data_digest=splits.digest)
        config = config_of(cell, check_student(cell, pretrained.config))
        unread = () if cell.setup.teacher.fine_tune else ("teacher.training",)
        weighed = ("objective", "intermediate") if cell.setup.weigh else ()
        return config, (*KNOWN_LATE, *NAMES, *unread, *weighed)

    def raise_teachers(self, ledger: Ledger) -> None:
        """Fine-tune every teacher that the entries hear; then the yardsticks."""
        for cell in distinct(self.entries):
            for each in with_each_teacher(cell):
                self.supplies.engine.check_stop()
                self.supplies.raise_teacher(each, ledger)
        if self.sweep.references:
            self.yardsticks = tuple(measure(self.entries, self.supplies, ledger))

    def run(self, entry: Entry[ClassifierSetup]) -> ClassifierRun:
        cell = entry.cell
        splits, begins = self.supplies.reading(cell)
        teachers = tuple(self.supplies.teacher(each)[0] for each in with_each_teacher(cell))
        model = check_student(cell, begins.config)
        if cell.setup.weigh:
            cell = self.supplies.weighed(cell)
        shapes = [teacher.config.shape for teacher in teachers]
        if cell.setup.peers:
            shapes = [model.shape]
        fitted = tuple(
            resolve(text, model.shape, shapes, splits.outputs) for text in cell.objectives
        )
        digests = [teacher.digest for teacher in teachers]
        cell = cell.but(
            plugin=plugin_digest(*cell.objectives, read=cell.setup.kind.parse),
            teacher_dtype=_dtype(cell, fitted),
            data_digest=splits.digest,
            teacher_digest=digests[0] if len(digests) == 1 else digest(digests),
        )
        bound = dataclasses.replace(entry, cell=cell)
        heard = self.supplies.of(cell)[0] if cell.setup.vocabulary else None
        own = begins if heard else None
        run = ClassifierRun(bound, splits, teachers, model, fitted, self.supplies, heard, own)
        return self.supplies.runs.setdefault(cell.hash, run)

    def described(self, spec: TableSpec) -> TableSpec:
        return dataclasses.replace(
            spec,
            teachers=tuple(self.supplies.teacher_places(self.entries)),
            yardsticks=self.yardsticks,
            protocol=(*spec.protocol, *self._protocol()),
        )

    def _protocol(self) -> tuple[str, ...]:
        cells = [entry.cell for entry in self.entries]
        several = dict.fromkeys(
            ", ".join(f"{number}: {each.name}" for number, each in enumerate(cell.setup.teachers))
            for cell in cells
            if cell.setup.more_teachers
        )
        named = (f"Teachers, by their numbers in objectives: {names}." for names in several)
        return *self._unknown(cells), *named, what_was_fixed(cells)

    def _unknown(self, cells: Sequence[ClassifierCell]) -> Iterator[str]:
        """What share of the tokens a teacher does not know, where that is large."""
        read: dict[str, Splits] = {}
        for cell in cells:
            for each in with_each_teacher(cell):
                read.setdefault(Path(each.setup.teacher.name).name, self.supplies.of(each)[0])
        for teacher, splits in read.items():
            yield from unknown_below(splits.coverage, teacher)

    def self_check(self, runs: Sequence[ClassifierRun]) -> None:
        supplies = self.supplies
        run_self_checks(
            runs,
            lambda each: supplies.widest(each).everything,
            supplies.engine.reporter,
            supplies.engine.stop.check,
        )


def _decided(cell: ClassifierCell, supplies: Supplies) -> Iterator[str]:
    """What was decided for a cell, once every objective is known to fit student and teacher."""
    pretrained = [supplies.of(each)[1] for each in with_each_teacher(cell)]
    outputs = supplies.of(cell)[0].outputs
    supplies.check_tokens(cell)
    plugin_digest(*cell.objectives, read=cell.setup.kind.parse)
    student = check_student(cell, supplies.reading(cell)[1].config)
    shape, kind, teachers = student.shape, cell.setup.kind, cell.setup.teachers
    shapes = [shape_of_last(each, *supplies.of(each)).shape for each in with_each_teacher(cell)]
    assistants = [each.training for teacher in teachers for each in teacher.assistants]
    for training in (*(each.training for each in teachers), *assistants, cell.training):
        supplies.engine.check_batch_size(training.batch_size)
    trained = supplies.of(cell)[0].training_table(with_teacher=True)
    for each in teachers:
        check_jitter(each.training, trained)
    for stage in cell.making:
        check_training(stage.training, student, kind)
    for teacher, checkpoint in zip(teachers, pretrained, strict=True):
        if teacher.fine_tune:
            check_training(teacher.training, checkpoint.config, kind)
    for stage in cell.making[::-1]:
        objective = stage.objective
        resolved = resolve(objective, shape, [shape] if cell.setup.peers else shapes, outputs)
        if cell.setup.peers:
            check_peers(objective, resolved)
        else:
            check_heard(teachers, objective, resolved)
        check_own_tokens(cell, resolved)
        if cell.setup.placebo:
            _check_placebo(objective, resolved, cell.setup.kind)
        check_jitter(stage.training, trained, cell.setup.teachers if resolved.needs_teacher else ())
        check_left_out(cell.setup.data, objective, resolved.needs_teacher)
        yield from resolved.notes


def _check_placebo(objective: str, resolved: ResolvedObjective, kind: Kind) -> None:
    """Raises ``UserError`` where a placebo would change nothing, or more than the teacher's words.

    A teacher's hidden states of another text have another length.
    """
    if not resolved.needs_teacher:
        raise UserError(f"a placebo for {objective!r}, which listens to no teacher")
    if resolved.teacher_capture != Capture() or kind.head == "tokens":
        raise UserError(
            f"a placebo for {objective!r}: the words that are given to other examples are logits, "
            "and this objective reads more"
        )


def _dtype(cell: ClassifierCell, fitted: Sequence[ResolvedObjective]) -> str:
    """How the teacher's outputs are kept, as far as it is read: the dtype of token-level ones, how
    many logits where not all, and in what they were computed."""
    teacher = cell.setup.teacher
    cached = teacher.outputs == "cache"
    captures = [capture for objective in fitted for capture in objective.teacher_captures]
    tokenwise = any(capture != Capture() for capture in captures)
    kept: str = teacher.cache_dtype if cached and tokenwise else "float32"
    if cached and teacher.cache_top_k is not None:
        kept = f"{kept}, top {teacher.cache_top_k}"
    return kept if teacher.precision == "f32" else f"{kept} of bfloat16"
