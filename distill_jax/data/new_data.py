"""Examples that arrive when a model is finished: read with its classes, told apart from its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import user_path
from distill_jax.data.image_files import content_keys, image_table, key_of, read_images
from distill_jax.data.images import ImageTable
from distill_jax.data.labels import CLASSES, LabelColumn
from distill_jax.data.load import load_dataset
from distill_jax.data.load_images import load_images
from distill_jax.data.splits import held_out, text_keys
from distill_jax.data.table import Dataset, Examples, TextTable

Notes = tuple[str, ...]
T = TypeVar("T", bound=Examples)


def new_texts(
    name: str,
    label_names: tuple[str, ...],
    *,
    text: str = "sentence",
    text_b: str | None = None,
    label: str = "label",
    labels: LabelColumn = CLASSES,
) -> tuple[dict[str, TextTable], Notes]:
    """New texts by the name of their data set; classes are positions in ``label_names``.

    Args:
      labels: how they are read; those that are no classes are read from files.

    Returns:
      Train (labels may be missing) and, where there are any, validation and test, all labelled;
      and notes.

    Raises:
      UserError: there is no such data, or a label is none of ``label_names``.
    """
    kind, _, rest = name.partition(":")
    if kind == "files" and rest:
        from distill_jax.data import files

        folder = user_path(rest)
        columns: dict[str, Any] = {"text": text, "text_b": text_b, "label": label}
        tables, notes = files.load_new(folder, label_names, **columns, labels=labels)
    elif labels != CLASSES:
        raise UserError(f"data {name!r} has no {labels.what}: give files with --data files:FOLDER")
    else:
        dataset = load_dataset(name, text=text, text_b=text_b, label=label)
        tables, notes = relabelled(dataset, label_names), dataset.notes
    return with_test_of_texts(tables, notes)


def with_test_of_texts(
    tables: Mapping[str, TextTable], notes: Sequence[str]
) -> tuple[dict[str, TextTable], Notes]:
    """What is labelled of validation and test, and a test where there is none; with the notes."""
    found, told = _with_test(_only_labelled(tables), text_keys)
    return found, (*notes, *told)


def new_images(name: str, label_names: tuple[str, ...]) -> tuple[dict[str, ImageTable], Notes]:
    """New images; as ``new_texts``. A file of images may have no labels, or lie in no splits."""
    kind, _, rest = name.partition(":")
    if kind != "images" or rest.startswith("tfds:"):
        dataset = load_images(name)
        return _only_labelled(relabelled(dataset, label_names)), dataset.notes
    path = user_path(rest)
    raw = read_images(path, labels=False)
    for word in set(raw.words):
        if word is not None and word not in label_names:
            raise unknown("label", word, label_names, where=f"in {path}, which the run has not")
    keys = content_keys(raw.images_NHWC)
    everything = image_table(raw, keys, label_names)
    if raw.splits is None:
        return _with_test({"train": everything}, keys_of_images)
    names = np.asarray(raw.splits)
    rows = {split: np.flatnonzero(names == split) for split in dict.fromkeys(raw.splits)}
    tables = {split: everything.take(own) for split, own in rows.items()}
    if (transfer := tables.pop("transfer", None)) is not None:
        hidden = transfer.without_labels(np.arange(len(transfer)))
        tables["train"] = tables["train"].joined(hidden) if "train" in tables else hidden
    if "train" not in tables:
        raise UserError(f"{path}: splits has no 'train', only {', '.join(tables)}.")
    return _with_test(_only_labelled(tables), keys_of_images)


def keys_of_images(table: ImageTable) -> list[str]:
    """A key of each image's content."""
    return [key_of(each) for each in table.ids]


def relabelled(dataset: Dataset[Any], label_names: tuple[str, ...]) -> dict[str, Any]:
    """The splits of a data set with its labels as positions in other names.

    Raises:
      UserError: it has a class that is none of them.
    """
    for name in dataset.label_names:
        if name not in label_names:
            where = f"of {dataset.name}, which the run has not"
            raise unknown("label", name, label_names, where=where)
    place_C = np.array([label_names.index(name) for name in dataset.label_names], np.int32)
    return {
        split: table
        if table.labels_N is None
        else dataclasses.replace(
            table, labels_N=np.where(table.labels_N < 0, table.labels_N, place_C[table.labels_N])
        )
        for split, table in dataset.splits.items()
    }


def apart(
    new: Mapping[str, T],
    old: Mapping[str, Collection[str]],
    keys_of: Callable[[T], Sequence[str]],
) -> tuple[dict[str, T], Notes]:
    """New splits without what would flatter a score: nothing is trained on that a test or a
    validation split holds, old or new, nothing is tested on that was trained on before, and no
    step is chosen by what the old test holds.

    Args:
      old: split -> the keys of what was in it so far.
      keys_of: a key of each example's content.

    Raises:
      UserError: nothing of the new training examples is left.
    """
    keys = {split: keys_of(table) for split, table in new.items()}
    trained = {"old train": set(old["train"])}
    asked = {key for split, own in keys.items() if split != "train" for key in own}
    known = {
        "train": {
            "old validation or test": {*old["validation"], *old["test"]},
            "new validation or test": asked - trained["old train"],
        },
        "validation": {**trained, "old test": set(old["test"])},
        "test": trained,
    }
    tables, notes = {}, []
    for split, table in new.items():
        rows = list(range(len(table)))
        for where, some in known[split].items():
            left = [row for row in rows if keys[split][row] not in some]
            if gone := len(rows) - len(left):
                told = f"{gone} of {len(table)} new {split} examples are left out: in {where}"
                notes.append(told)
            rows = left
        if rows:
            tables[split] = table.take(rows)
    if "train" not in tables:
        raise UserError("nothing is new: every training example is in a validation or test split")
    return tables, tuple(notes)


def keys_by_split(
    tables: Mapping[str, T], keys_of: Callable[[T], Sequence[str]]
) -> dict[str, frozenset[str]]:
    """The keys of each split's examples; see ``apart``."""
    return {split: frozenset(keys_of(table)) for split, table in tables.items()}


def _only_labelled(tables: Mapping[str, T]) -> dict[str, T]:
    """Validation and test without the examples that have no label, and not at all without any."""
    kept = {}
    for split, table in tables.items():
        labels_N = table.labels_N  # type: ignore[attr-defined]
        if split == "train":
            kept[split] = table
        elif labels_N is not None and (labels_N >= 0).any():
            kept[split] = table.take(np.flatnonzero(labels_N >= 0))
    return kept


def _with_test(
    tables: Mapping[str, T], keys_of: Callable[[T], Sequence[str]]
) -> tuple[dict[str, T], Notes]:
    """With validation as test where there is none, or with a tenth of the labelled train rows, by
    a fixed hash."""
    train = tables["train"]
    labels_N = train.labels_N  # type: ignore[attr-defined]
    if "test" in tables:
        return dict(tables), ()
    if "validation" in tables:
        rest = {split: table for split, table in tables.items() if split != "validation"}
        return {**rest, "test": tables["validation"]}, ("the new validation split serves as test",)
    if labels_N is None:
        return dict(tables), ()
    keys = keys_of(train)
    chosen = held_out("test", keys, labels_N >= 0)
    held_N = np.array([key in chosen for key in keys])
    test = np.flatnonzero(held_N & (labels_N >= 0))
    if not len(test) or held_N.all():
        return dict(tables), ()
    parts = {"train": train.take(np.flatnonzero(~held_N)), "test": train.take(test)}
    return parts, (f"{len(test)} new train examples, chosen by a fixed hash, serve as test",)
