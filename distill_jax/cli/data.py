"""``distill-jax data``: a look at a data set, as an experiment would read it."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from distill_jax.cli.run import parse_flags
from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic

if TYPE_CHECKING:
    from distill_jax.data.images import ImageDataset
    from distill_jax.data.table import TextDataset
    from distill_jax.tasks.classification.cells import DataConfig, TeacherConfig
    from distill_jax.tasks.classification.models import Checkpoint
    from distill_jax.tasks.kinds.kind import Kind


IMAGE_TEACHER = "mlp-800-800"
"""Reads images of any size."""


@dataclass(frozen=True)
class Data:
    """Show the splits, classes and first examples of a data set, and run the checks of training.

    Of interactions: users, items, what was decided about them, and what would be asked.
    What training would refuse about the data, or about data and teacher together, is refused here.
    """

    name: Annotated[str, tyro.conf.Positional] = "review_snippets/movie"
    """As for --data: review_snippets/movie, shopping_reviews_zh, movielens-100k, files:FOLDER,
    tfds:NAME; of images digits, images:FILE.npz, images:tfds:NAME."""
    text: str = "sentence"
    """Column of the text (files: and tfds: only)."""
    text_b: str | None = None
    """Column of the second text, for pairs."""
    label: str = "label"
    """Column of the label."""
    task: str = "classes"
    """What is predicted, as in training: classes, number, labels, tags, intent_slots, spans,
    relations."""
    label_separator: str = ","
    """Between the labels of a cell, with --task labels."""
    label_fraction: float | None = None
    """Share of the training labels that would be used; default: 1 of files: and tfds:, else 0.1."""
    max_length: int = 128
    """Tokens after which a text would be cut."""
    teacher: str = "minilm-l6"
    """Whose tokeniser reads the texts: minilm-l6, a folder with a BERT checkpoint, or a hub id; of
    images a model that reads them (mlp-800-800 by default); or file:PREDICTIONS, which is checked
    against the data too."""
    fine_tune: bool = True
    """--no-fine-tune for a teacher whose head is trained: its classes are checked too."""
    label_map: str | None = None
    """With --no-fine-tune: which class of the teacher is which of the data, as in training."""
    examples: int = 3
    """How many examples of each split to show."""
    ids: Path | None = None
    """Write a CSV here with id, split and text of every example: what a file of predictions is
    keyed by (docs/teachers.md)."""
    tokenizer: str = ""
    """With --teacher file:PREDICTIONS: whose tokeniser students have; default: minilm-l6."""
    columns: str | None = None
    """Of interactions, where they are not called as usual: user=...,item=...,time=..."""


def main(arguments: Sequence[str]) -> None:
    """Load, check, print."""
    args = parse_flags(Data, arguments, "distill-jax data")
    if args.examples < 0:
        raise UserError(f"--examples must not be negative, not {args.examples}")

    from distill_jax.cli import data_interactions
    from distill_jax.data.load_images import is_images, load_images

    if args.columns or data_interactions.holds_interactions(args.name):
        data_interactions.show(args.name, args.columns, args.examples)
        return

    from distill_jax.tasks.classification.cells import TeacherConfig, used_as_it_is
    from distill_jax.tasks.classification.label_map import parse_label_map

    images = is_images(args.name)
    name = IMAGE_TEACHER if images and args.teacher == Data.teacher else args.teacher
    label_map = parse_label_map(args.label_map)
    fine_tune = args.fine_tune and not used_as_it_is(name)
    teacher = TeacherConfig(name, fine_tune, label_map=label_map, tokenizer=args.tokenizer)
    data = _config(args)
    dataset = None if images else data.kind.load(data)
    if dataset is None:
        lines = described_images(load_images(args.name))
    else:
        lines = described(dataset, args.examples, data.kind)
    for line in lines:
        print(line)
    if args.ids is not None and dataset is not None:
        write_atomic(args.ids, ids_csv(dataset, args.text, args.text_b))
        print(f"ids of all examples: {args.ids}")
    _check(data, dataset, teacher)
    print(f"all checks of training passed (teacher {name})")


def _config(args: Data) -> "DataConfig":
    from distill_jax.tasks.classification.cells import DataConfig, usual_fraction

    fraction = usual_fraction(args.name) if args.label_fraction is None else args.label_fraction
    return DataConfig(
        args.name,
        args.text,
        args.text_b,
        args.label,
        fraction,
        args.max_length,
        task=args.task,
        label_separator=args.label_separator,
    )


def described(dataset: "TextDataset", examples: int, kind: "Kind") -> Iterator[str]:
    """What is predicted, notes, and of each split how many examples there are and the first."""
    names = dataset.label_names
    yield f"{dataset.name}: {kind.described(names)}; digest {dataset.digest}"
    for note in dataset.notes:
        yield f"note: {note}"
    for split, table in dataset.splits.items():
        labels = [-1] * len(table) if table.labels_N is None else table.labels_N.tolist()
        told = "no labels" if table.labels_N is None else kind.tally(table, names)
        yield f"  {split}: {len(table):,} examples ({told})"
        for row in range(min(examples, len(table))):
            name = kind.label_of(table, row, names) if labels[row] >= 0 else "(no label)"
            pair = f"  |  {table.texts_b[row]}" if table.texts_b else ""
            yield f"    {table.ids[row]}  {name}: {table.texts[row]}{pair}"


def ids_csv(dataset: "TextDataset", text: str = "sentence", text_b: str | None = None) -> str:
    """A line an example of every split: ``id``, ``split``, and its text, or its two."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    pairs = any(table.texts_b is not None for table in dataset.splits.values())
    writer.writerow(["id", "split", text, *([text_b or "second"] if pairs else [])])
    for split, table in dataset.splits.items():
        columns = [table.texts] if table.texts_b is None else [table.texts, table.texts_b]
        for example, *texts in zip(table.ids, *columns, strict=True):
            writer.writerow([example, split, *texts])
    return out.getvalue()


def described_images(dataset: "ImageDataset") -> Iterator[str]:
    """Classes, notes, and of each split how many images there are, of which size."""
    from distill_jax.data.split_files import listed

    names = dataset.label_names
    yield f"{dataset.name}: classes {listed(names)}; digest {dataset.digest}"
    for note in dataset.notes:
        yield f"note: {note}"
    for split, table in dataset.splits.items():
        labels = table.labels_N.tolist()
        counts = [f"{labels.count(number):,} {name}" for number, name in enumerate(names)]
        size = " x ".join(map(str, table.image))
        yield f"  {split}: {len(table):,} images of {size} ({', '.join(counts)})"


def _check(data: "DataConfig", dataset: "TextDataset | None", teacher: "TeacherConfig") -> None:
    """Run the checks of training on data and teacher, and print what they say."""
    from distill_jax.data.coverage import in_words
    from distill_jax.tasks.classification.file_teacher import file_teacher
    from distill_jax.tasks.classification.models import load_checkpoint
    from distill_jax.tasks.classification.supplies import examples_for

    def load(name: str, num_labels: int | None, fresh: bool, **of_images: Any) -> "Checkpoint":
        how: dict[str, Any] = {"pooling": data.pooling_of("auto"), **of_images}
        return load_checkpoint(name, num_labels=num_labels, fresh=fresh, **how)

    task, pretrained = examples_for(
        data, teacher.checkpoint, teacher.new_head, load, dataset, teacher.label_map
    )
    print(task.summary)
    for line in pretrained.order.told(task.label_names) if pretrained.order else []:
        print(f"teacher: {line}")
    if not teacher.is_model and not teacher.is_nobody:
        for line in file_teacher(task, pretrained, teacher).training["notes"]:
            print(f"teacher: {line}")
    for line in in_words(task.coverage, data.max_length):
        print(line)
