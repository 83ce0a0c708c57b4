"""Any TFDS data set with text and labels, read without TensorFlow."""

import importlib
import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format
from tensorflow_datasets.core import registered

from distill_jax.core.errors import UserError, nearest, unknown
from distill_jax.data import prepared
from distill_jax.data.classes import check_classes, class_order, label_word
from distill_jax.data.labels import CLASSES, Columns, LabelColumn
from distill_jax.data.splits import build_dataset, content_ids
from distill_jax.data.table import NO_LABEL, TextDataset, TextTable, check_named, label_array

_SPLITS = {"train": ("train",), "validation": ("validation", "dev"), "test": ("test",)}
_AREAS = (
    "text",
    "question_answering",
    "ranking",
    "recommendation",
    "structured",
    "image_classification",
)


def load(
    name: str,
    *,
    text: str = "sentence",
    text_b: str | None = None,
    label: str = "label",
    home: Path | None = None,
    labels: LabelColumn = CLASSES,
) -> TextDataset:
    """A TFDS data set as text.

    Data that is prepared already, in ArrayRecord files, in the user's own TFDS folder is used;
    otherwise it is prepared under ``home``.

    Args:
      name: as TFDS spells it, ``"glue/sst2"``.
      text, text_b, label: names of features.
      home: ``core.files.home()`` by default.
      labels: how they are read.

    Raises:
      UserError: for an unknown name or feature, or data that cannot be brought here.
    """
    builder = prepared_builder(name, home)
    features = builder.info.features
    images = any(isinstance(feature, tfds.features.Image) for feature in features.values())
    if images and text not in features:
        raise UserError(f"tfds:{name} has images: name it images:tfds:{name}.")
    check_named(filter(None, (text, text_b, label)), features, f"tfds:{name}")
    for column in filter(None, (text, text_b)):
        if not isinstance(features[column], tfds.features.Text):
            raise UserError(f"tfds:{name}: column {column!r} is no text.")
    found = {
        ours: next((s for s in theirs if s in builder.info.splits), None)
        for ours, theirs in _SPLITS.items()
    }
    raw = {ours: prepared.read(builder, theirs) for ours, theirs in found.items() if theirs}
    label_names, slips, columns = _labels_of(name, features[label], raw, label, labels)
    tables = {
        split: _table(rows, columns[split], text=text, text_b=text_b) for split, rows in raw.items()
    }
    unused = sorted(set(builder.info.splits) - set(found.values()))
    notes = (*slips, *([f"splits not used: {', '.join(unused)}"] if unused else ()))
    return build_dataset(f"tfds:{name}", label_names, tables, notes, labels.least)


def prepared_builder(name: str, home: Path | None) -> Any:
    """A TFDS builder whose data is there in ArrayRecord files; see ``load`` for what it raises."""
    base, _, config = name.partition("/")
    _import_builder(base)
    try:
        with prepared.quiet():
            theirs = tfds.builder(name)
            if theirs.is_prepared() and theirs.info.file_format.value == prepared.FILE_FORMAT:
                return theirs
            ours = tfds.builder(
                name, data_dir=prepared.data_dir(home), file_format=prepared.FILE_FORMAT
            )
    except registered.DatasetNotFoundError as error:
        known = registered.list_imported_builders()
        guess = nearest(base, known)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise UserError(
            f"no TFDS data set {name!r}.{hint} All: https://www.tensorflow.org/datasets/catalog."
        ) from error
    except (ValueError, KeyError) as error:
        configs = tfds.builder_cls(base).builder_configs
        if config and config not in configs:
            raise unknown("configuration", config, configs, where=f"of tfds:{base}") from error
        raise UserError(f"tfds:{name}: {prepared.first_line(error)}") from error
    except json_format.Error as error:
        raise UserError(
            f"tfds:{name}: the prepared data under {prepared.data_dir(home) / base} is damaged "
            f"({prepared.first_line(error)}). Delete that folder to have it made again."
        ) from error
    try:
        prepared.prepare(ours)
    except UserError:
        raise
    except Exception as error:  # whatever the builder's own code and its downloads raise
        told = f"{type(error).__name__}: {prepared.first_line(error)}"
        raise UserError(
            f"tfds:{name} cannot be prepared here ({told})."
            " Where it is prepared already, in ArrayRecord files, point TFDS_DATA_DIR there."
        ) from error
    return ours


def _import_builder(name: str) -> None:
    """TFDS registers many of its builders only when their module is imported."""
    if name in registered.list_imported_builders() or not name.isidentifier():
        return
    for area in _AREAS:
        module = f"tensorflow_datasets.{area}.{name}"
        if importlib.util.find_spec(module):
            importlib.import_module(module)
            return


def _label_names(
    name: str, feature: Any, raw: dict[str, list], label: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes, and notes on what may be a slip."""
    if isinstance(feature, tfds.features.ClassLabel):
        return tuple(feature.names), ()
    where = f"tfds:{name}: column {label!r}"
    values = [row[label] for row in raw.get("train", ())]
    words = [label_word(v.item() if isinstance(v, np.generic) else v, where) for v in values]
    counts = Counter(word for word in words if word not in (None, str(NO_LABEL)))
    notes = check_classes(counts, where)
    if not all(isinstance(value, int | np.integer | str) for value in values):
        raise UserError(f"{where} holds neither classes, words nor numbers.")
    return class_order(counts, None), notes


def _labels_of(
    name: str, feature: Any, raw: dict[str, list], label: str, labels: LabelColumn
) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Columns]]:
    """What the outputs are called, notes, and the columns of labels of every split."""
    if labels == CLASSES:  # TFDS names and numbers classes itself
        names, slips = _label_names(name, feature, raw, label)
        return (
            names,
            slips,
            {
                split: (label_array([_label(row[label], names) for row in rows], names), None)
                for split, rows in raw.items()
            },
        )
    where, notes = f"tfds:{name}", list[str]()
    read = labels.settled(
        {
            split: [labels.read(_plain(row), label, where) for row in rows]
            for split, rows in raw.items()
        }
    )
    names = labels.names(read.get("train", []), label, where, None, notes)
    columns = {s: labels.columns(each, names, lambda row: where) for s, each in read.items()}
    return names, tuple(notes), columns


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers of numpy as those of Python."""
    return {key: v.item() if isinstance(v, np.generic) else v for key, v in row.items()}


def _table(
    rows: list[dict[str, Any]], columns: Columns, *, text: str, text_b: str | None
) -> TextTable:
    texts = tuple(row[text] for row in rows)
    texts_b = tuple(row[text_b] for row in rows) if text_b else None
    return TextTable(
        ids=content_ids(texts, texts_b),
        texts=texts,
        texts_b=texts_b,
        labels_N=columns[0],
        targets=columns[1],
    )


def _label(value: Any, label_names: tuple[str, ...]) -> str | None:
    if isinstance(value, str):
        return value
    if value == NO_LABEL:
        return None
    return label_names[value] if str(value) not in label_names else str(value)
