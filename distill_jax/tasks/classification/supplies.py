"""Fetches what the cells of a table need, each thing once."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.distributed import is_lead
from distill_jax.core.errors import UserError
from distill_jax.data.load_images import is_images
from distill_jax.data.table import TextDataset
from distill_jax.engine.engine import Engine
from distill_jax.engine.merge import rows_in
from distill_jax.engine.strategies import clear_checkpoints
from distill_jax.engine.sweep import Entry
from distill_jax.evaluation.mixture import mixture_weights
from distill_jax.evaluation.predict import check_token_types
from distill_jax.models.family import ImageShape
from distill_jax.objectives.reworded import with_teacher_weights
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.spec import Place
from distill_jax.tasks.classification.asked import rows_asked
from distill_jax.tasks.classification.augment_tools import tools_for
from distill_jax.tasks.classification.cells import (
    FILE,
    TEACHER,
    ClassifierCell,
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    with_each_teacher,
)
from distill_jax.tasks.classification.label_map import Pairs
from distill_jax.tasks.classification.models import Checkpoint, load_checkpoint, reads_of
from distill_jax.tasks.classification.raise_teacher import raised
from distill_jax.tasks.classification.runs import ClassifierRun, teacher_row
from distill_jax.tasks.classification.self_checks import check_splits
from distill_jax.tasks.classification.splits import (
    Splits,
    load_texts,
    prepare_images,
    prepare_texts,
)
from distill_jax.tasks.classification.student_tokens import Reading, own_reading
from distill_jax.tasks.classification.teacher import Teacher, in_order_of, outputs_for
from distill_jax.tasks.classification.teacher_check import check_teacher
from distill_jax.teachers.placebo import Placebo, shuffled
from distill_jax.training.feed import TeacherOutputs


@dataclass(eq=False)
class Supplies:
    """Fetches what cells need, each thing once: data, checkpoints, teachers, their words.

    Attributes:
      runs: of the whole table by hash, so that a teacher is asked once for all of them.
    """

    engine: Engine
    experiment: str
    runs: dict[str, ClassifierRun] = field(default_factory=dict)
    _teachers: dict[tuple[str, object], tuple[Teacher, str]] = field(default_factory=dict)
    _outputs: dict[tuple[object, ...], TeacherOutputs | None] = field(default_factory=dict)
    _placebos: dict[tuple[object, ...], Placebo] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)
    _readings: dict[tuple[str, ...], Reading] = field(default_factory=dict)
    _on_test: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    _weights: dict[tuple[str, ...], tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pretrained = lru_cache(None)(self._pretrained)
        self.splits = lru_cache(None)(self._splits)

    def _pretrained(
        self,
        name: str,
        num_labels: int | None,
        fresh: bool,
        seed: int = 0,
        pooling: str = "auto",
        image: ImageShape | None = None,
        task: str = DataConfig.task,
    ) -> Checkpoint:
        pretrained = load_checkpoint(
            name,
            num_labels=num_labels,
            fresh=fresh,
            seed=seed,
            pooling=pooling,
            image=image,
            task=task,
        )
        for note in pretrained.notes if not seed else ():  # they are the same for every seed
            self.engine.reporter.say(f"teacher: {note}")
        return pretrained

    def _splits(
        self, data: DataConfig, teacher_name: str, fresh: bool, pooling: str, label_map: Pairs
    ) -> tuple[Splits, Checkpoint]:
        load = partial(self.pretrained, pooling=data.pooling_of(pooling))
        splits, pretrained = examples_for(data, teacher_name, fresh, load, label_map=label_map)
        order = pretrained.order.told(splits.label_names) if pretrained.order else []
        lines = [*splits.told(), *(f"teacher: {line}" for line in order)]
        for line in lines:
            if line not in self._said:  # draws of the labels are alike
                self.engine.reporter.say(line)
        self._said.update(lines)
        return splits, pretrained

    def of(self, cell: ClassifierCell) -> tuple[Splits, Checkpoint]:
        """The examples of a cell, and the checkpoint of its teacher."""
        teacher = cell.setup.teacher
        name, fresh, pooling = teacher.checkpoint, teacher.new_head, teacher.pooling
        splits, pretrained = self.splits(cell.setup.data, name, fresh, pooling, teacher.label_map)
        if teacher.seed and teacher.fine_tune:
            classes = len(splits.label_names)
            settled = cell.setup.data.pooling_of(pooling)
            image = splits.everything.image
            pretrained = self.pretrained(name, classes, fresh, teacher.seed, settled, image)
        return splits, pretrained

    def reading(self, cell: ClassifierCell) -> tuple[Splits, Checkpoint]:
        """The examples as a cell's student reads them, and what it starts from."""
        splits, pretrained = self.of(cell)
        vocabulary = cell.setup.vocabulary
        if not vocabulary:
            return splits, pretrained
        key = (vocabulary, splits.digest, pretrained.digest)
        if key not in self._readings:
            self._readings[key] = own = own_reading(vocabulary, splits, pretrained)
            self.engine.reporter.say(f"--student-vocab {vocabulary}: {own.told}")
        own = self._readings[key]
        return own.splits, own.checkpoint

    def check_tokens(self, cell: ClassifierCell) -> None:
        """Raises ``UserError`` where the teachers of a cell do not read the same tokens."""
        first, *others = with_each_teacher(cell)
        for other in others:
            if self.of(other)[0].tokens_digest != self.of(first)[0].tokens_digest:
                one, two = first.setup.teacher.name, other.setup.teacher.name
                raise UserError(
                    f"the teachers {one} and {two} do not read the same tokens; those that teach "
                    "together need one tokeniser"
                )

    def raise_teacher(self, cell: ClassifierCell, ledger: Ledger) -> None:
        """Fine-tune the teacher of a cell, unless that is done; its row goes to the ledger.

        Every part of a table needs the teacher; one of them has its row.

        Raises:
          UserError: for a useless teacher, where such are refused, see ``teacher_check``.
        """
        splits, pretrained = self.of(cell)
        key = self._key(splits, cell)
        if key in self._teachers:
            return
        which = f" (seed {cell.setup.teacher.seed}, labels {cell.setup.data.label_seed})"
        shown = which if cell.setup.teacher.seed or cell.setup.data.label_seed else ""
        name = f"teacher{shown}"
        teacher, own_cell = raised(self.engine, splits, pretrained, cell, name)
        self.engine.stop.check()
        if cell.setup.teacher.is_nobody:
            self._teachers[key] = teacher, ""
            return
        row = rows_in(ledger.path.parent).get(own_cell.hash)
        if row is not None and row.fingerprints["teacher"] != teacher.digest:
            row = None
        known, precision = row.metrics if row else {}, cell.setup.teacher.precision
        checked = check_teacher(self.engine, splits, teacher, shown, known, precision)
        self._teachers[key] = teacher, own_cell.hash
        share = self.engine.options.share
        if not share.whole:  # its checkpoints are of no use to anybody now
            clear_checkpoints(self.engine.run_folder(own_cell.hash, shared=True))
        if not share.holds(own_cell.hash):
            return
        if row is None:
            group = _in_short(cell.setup.teacher)
            row = teacher_row(
                self.engine,
                self.experiment,
                own_cell,
                splits,
                teacher,
                group,
                checked,
                self._on_test_split(splits, teacher),
            )
            if is_lead():
                ledger.append(row)
        clear_checkpoints(self.engine.run_folder(own_cell.hash, shared=True))
        if splits.kind.columns[0].key in row.metrics:
            self.engine.reporter.say(f"{name}: {splits.kind.told(row.metrics)}")

    def teacher(self, cell: ClassifierCell) -> tuple[Teacher, str]:
        """The teacher of a cell and the hash of the teacher's own row."""
        splits, _ = self.of(cell)
        return self._teachers[self._key(splits, cell)]

    def weighed(self, cell: ClassifierCell) -> ClassifierCell:
        """The cell with the weights of its teachers, by validation, in its objectives."""
        splits, _ = self.of(cell)
        teachers = [self.teacher(each)[0] for each in with_each_teacher(cell)]
        key = (splits.tokens_digest, *(teacher.digest for teacher in teachers))
        if key not in self._weights:
            spoken_N = np.logical_and.reduce([t.speaks_of(splits.validation) for t in teachers])
            if not spoken_N.any():
                raise UserError("weights by validation: there is no example of which all speak")
            known = splits.validation.take(np.flatnonzero(spoken_N))
            said = [teacher.answers(self.engine, splits, known) for teacher in teachers]
            self._weights[key] = mixture_weights(np.stack(said), known.labels_N)
            names = zip(cell.setup.teachers, self._weights[key], strict=True)
            told = ", ".join(f"{_in_short(each)} {weight:g}" for each, weight in names)
            self.engine.reporter.say(
                f"teachers weigh by {len(known):,} examples of validation: {told}"
            )
        weights = self._weights[key]
        making = [
            dataclasses.replace(
                stage, objective=with_teacher_weights(stage.objective, weights, splits.outputs)
            )
            for stage in cell.making
        ]
        return dataclasses.replace(cell, stages=(*making, *cell.steps))

    def _key(self, splits: Splits, cell: ClassifierCell) -> tuple[str, TeacherConfig]:
        """Of a teacher: what it was made of, with the transfer set where that has a part in it."""
        config = cell.setup.teacher
        return splits.labels_digest if config.is_plain else splits.digest, config

    def teacher_places(self, entries: Sequence[Entry[ClassifierSetup]]) -> list[Place]:
        """Where the teachers stand, the first of every entry before the second.

        Of those of one number, one stands under its own name; several stand in the groups that
        they teach. The teachers that the seeds of an entry hear in turn are replicates of one: each
        stands at the first seed that hears it. Entries of one group that hear other teachers get a
        row each. Who stands as the first of some does not stand again as the second of others.
        """
        places: dict[str, Place] = {}
        for number in range(max(len(entry.cell.setup.teachers) for entry in entries)):
            taught = [entry for entry in entries if self._stands(entry.cell, number)]
            if not taught:
                continue
            before = {place.hash for place in places.values()}
            for place in self._places_of(taught, number):
                if place.hash not in before:
                    places[f"{place.group} {place.hash}"] = place
        return list(places.values())

    def _stands(self, cell: ClassifierCell, number: int) -> bool:
        """Whether a cell has a teacher of this number, with a row of its own."""
        teachers = with_each_teacher(cell)
        return number < len(teachers) and bool(self.teacher(teachers[number])[1])

    def _places_of(self, entries: Sequence[Entry[ClassifierSetup]], number: int) -> list[Place]:
        heard: dict[tuple[str, str], dict[str, int]] = {}
        named: dict[tuple[str, ...], str] = {}
        for entry in entries:
            first = heard.setdefault((entry.group, entry.row), {})
            cell = with_each_teacher(entry.cell)[number]
            first.setdefault(self.teacher(cell)[1], entry.cell.seed)
            if not cell.setup.teacher.is_plain:
                named[tuple(first)] = f"{TEACHER}: {_in_short(cell.setup.teacher)}"
        if len({tuple(hashes) for hashes in heard.values()}) == 1:
            name = _in_short(entries[0].cell.setup.teachers[number])
            heard = {(name, ""): next(iter(heard.values()))}
            named = {}
        rows: dict[str, dict[tuple[str, ...], str]] = {}
        places: dict[tuple[str, str], Place] = {}
        for (group, _), hashes in heard.items():
            known = rows.setdefault(group, {})
            label = f"{TEACHER} {len(known) + 1}" if known else TEACHER
            row = known.setdefault(tuple(hashes), named.get(tuple(hashes), label))
            for hash, seed in hashes.items():
                places.setdefault((group, hash), Place(row, group, seed, hash))
        return list(places.values())

    def outputs(self, run: ClassifierRun) -> TeacherOutputs | None:
        """What a run's teachers say of its training examples; of several a tuple."""
        key = (run.taught.digest, *run.hears)
        if key not in self._outputs:
            said = [self._outputs_of(run, number) for number in range(len(run.teachers))]
            self._outputs[key] = said[0] if len(said) == 1 else together(said)
        heard = self._outputs[key]
        if heard is None or not run.cell.setup.placebo:
            return heard
        table, seed = run.taught.everything, run.cell.seed
        if (*key, seed) not in self._placebos:
            self._placebos[*key, seed] = Placebo(heard, table, shuffled(len(table), seed))
        return self._placebos[*key, seed]

    def _outputs_of(self, run: ClassifierRun, number: int) -> TeacherOutputs | None:
        """What one teacher says: one cache for all of the table who hear it."""
        pupils = self._pupils(run, number)
        wider = self.widest(run, number)
        beside = [pupil for pupil, its in pupils if self.widest(pupil, its).digest == wider.digest]
        captures = [
            objective.teacher_captures[its]
            for pupil, its in pupils
            for objective, work in zip(pupil.fitted, pupil.works, strict=True)
            if work.objective.needs_teacher
        ]
        return outputs_for(
            self.engine,
            run.taught,
            run.teachers[number],
            captures,
            run.cell.setup.teachers[number],
            wider,
            rows_asked(beside, wider),
        )

    def _pupils(self, run: ClassifierRun, number: int) -> list[tuple[ClassifierRun, int]]:
        """All who hear a run's teacher, and which of theirs it is."""
        heard = run.hears[number]
        return [
            (other, other.hears.index(heard))
            for other in self.runs.values()
            if heard in other.hears
        ]

    def widest(self, run: ClassifierRun, number: int = 0) -> Splits:
        """That among whose examples a run's are, and about which its teacher is asked, once."""
        return _widest(run.taught, [other.taught for other, _ in self._pupils(run, number)])

    def teacher_on_test(self, run: ClassifierRun) -> np.ndarray | None:
        """What the teacher says of the test split, for fidelity; of several what they say together,
        see ``Kind.mean``. None where one says nothing of some example."""
        if not all(teacher.speaks_of(run.taught.test).all() for teacher in run.teachers):
            return None
        said = [self._on_test_split(run.taught, teacher) for teacher in run.teachers]
        return said[0] if len(said) == 1 else run.splits.kind.mean(said)

    def _on_test_split(self, splits: Splits, teacher: Teacher) -> np.ndarray:
        key = (splits.tokens_digest, teacher.digest)
        if key not in self._on_test:
            self._on_test[key] = teacher.answers(self.engine, splits, splits.test)
        return self._on_test[key]


def _in_short(config: TeacherConfig) -> str:
    """What a teacher is called in a table, ``{seed}`` in it where each seed has another file."""
    source = Path(config.name.removeprefix(FILE)).name
    return " > ".join([source, *(each.student for each in config.assistants)])


def together(speakers: Sequence[TeacherOutputs | None]) -> TeacherOutputs | None:
    """Several teachers as one, who says a tuple; None where nobody listens."""
    if not any(speakers):
        return None
    return lambda batch: tuple(speak(batch) if speak else None for speak in speakers)


def examples_for(
    data: DataConfig,
    teacher: str,
    fresh: bool,
    load: Callable[..., Checkpoint],
    texts: TextDataset | None = None,
    label_map: Pairs = (),
) -> tuple[Splits, Checkpoint]:
    """The examples of a data set, and the checkpoint that is to teach them, all checked.

    Args:
      fresh: whether the teacher gets a new head.
      load: of checkpoints: (name, number of classes or None for its own, fresh), for images
        ``image``, their shape, and ``task`` of a trained head where it is not of classes.
      texts: of the data set, where they have been loaded.
      label_map: see ``TeacherConfig``.

    Raises:
      UserError: for what training would refuse about data, teacher, or the two together.
    """
    images = is_images(data.name)
    given, reads = "images" if images else "texts", reads_of(teacher)
    if given != reads:
        raise UserError(
            f"data {data.name!r} does not fit teacher {teacher!r}: {given} are given to a model of "
            f"{reads}; images want a CNN (cnn-16-32-64) or an MLP (mlp-1200-1200-drop), texts a "
            "BERT checkpoint"
        )
    if given == "images" and data.augment:
        raise UserError(f"augmentation ({data.augment}) is of texts, not of {data.name}")
    kind = data.kind
    if images and not kind.has_classes:
        raise UserError(f"data {data.name!r} has classes: leave out --task {data.task}")
    source: Any = prepare_images(data) if images else texts or load_texts(data)
    known = len(source.label_names) if fresh or images else None
    more: dict[str, Any] = {"image": source.everything.image} if images else {}
    if not fresh and data.task != DataConfig.task:
        more["task"] = data.task
    pretrained = load(teacher, known, fresh, **more)
    if not fresh:
        pretrained = in_order_of(source.label_names, pretrained, label_map, kind=kind)
    splits = source
    if pretrained.tokenizer_file is not None:
        splits = prepare_texts(
            data, splits, pretrained.tokenizer_file, tools_for(data, teacher, pretrained)
        )
        _check_inputs(splits, pretrained)
    check_splits(splits)
    return splits, pretrained


def _check_inputs(splits: Splits, pretrained: Checkpoint) -> None:
    """The teacher has embeddings for every position and for both texts of a pair."""
    tables = (splits.everything, splits.validation, splits.test)
    own = pretrained.config.token_range
    for table in tables:
        check_token_types(table, own)
    longest = max(table.token_range.positions for table in tables)
    if longest > own.positions:
        raise UserError(
            f"texts of {longest} tokens do not fit the teacher's {own.positions} positions; lower "
            "--max-length"
        )


def _widest(splits: Splits, others: Sequence[Splits]) -> Splits:
    """That with the largest set of training examples that the given ones are among, itself at
    least."""
    same = [other for other in others if other.tokens_digest == splits.tokens_digest]
    tasks = {other.digest: other for other in same}
    for other in sorted(tasks.values(), key=lambda each: -len(each.everything)):
        own, theirs = splits.everything.ids, other.everything.ids
        if own == theirs or set(own) <= set(theirs):
            return other
    return splits
