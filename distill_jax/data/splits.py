"""Train, validation and test out of what somebody else's data brings."""

import logging
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from distill_jax.core.digests import DIGEST_CHARS, digest_strings, unit_interval
from distill_jax.core.errors import UserError
from distill_jax.data.table import NO_LABEL, TextDataset, TextTable, fold

HELD_OUT = 0.1
"""Share of the labelled train rows that become a split where the data has too few."""

_log = logging.getLogger("distill_jax")


def build_dataset(
    name: str,
    label_names: tuple[str, ...],
    tables: dict[str, TextTable],
    notes: tuple[str, ...] = (),
    least: int = 2,
) -> TextDataset:
    """A data set with all three splits, completed where there are only two.

    A test split without labels cannot be tested on and counts as missing. With one labelled
    split beside train, that one becomes test, and validation is held out of train by a fixed
    hash of the text (equal texts stay together). Everything decided here is logged and noted.

    Args:
      least: label names that are needed.

    Raises:
      UserError: if train has no labels, one class or too few rows, or there is no labelled
        split beside it.
    """
    tables, told = dict(tables), list(notes)
    if "train" not in tables or _labelled(tables["train"]) == 0:
        raise UserError(f"data {name!r}: the train split has no labelled example.")
    if len(label_names) < least:
        raise UserError(f"data {name!r}: one label only ({', '.join(label_names)}), expected two.")
    for split in ("validation", "test"):
        if split in tables and _labelled(tables[split]) < len(tables[split]):
            if split == "validation" or _labelled(tables[split]):
                missing = len(tables[split]) - _labelled(tables[split])
                raise UserError(f"data {name!r}: {missing} {split} examples have no label.")
            del tables[split]
            told.append("the test split has no labels and is not used")
    if "test" not in tables:
        if "validation" not in tables:
            raise UserError(
                f"data {name!r}: expected a validation or test split with labels beside train."
            )
        tables["test"] = tables.pop("validation")
        told.append("the validation (dev) split serves as test")
    if "validation" not in tables:
        tables["train"], tables["validation"] = _hold_out(name, tables["train"])
        told.append(
            f"{len(tables['validation'])} train examples, chosen by a fixed hash of the text, "
            "serve as validation"
        )
    told += _contradictions(tables["train"]) if tables["train"].targets is None else []
    told += _shared_texts(tables)
    for note in told:
        _log.warning("data %r: %s.", name, note)
    splits = {split: tables[split] for split in ("train", "validation", "test")}
    return TextDataset(name, label_names, splits, tuple(told))


def content_ids(texts: tuple[str, ...], texts_b: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Ids made of the texts alone; the second row with the same text gets ``-2`` and so on."""
    pairs = zip(texts, texts_b, strict=True) if texts_b is not None else ((t,) for t in texts)
    counts: dict[str, int] = {}
    ids = []
    for pair in pairs:
        key = digest_strings(pair)
        counts[key] = counts.get(key, 0) + 1
        ids.append(key if counts[key] == 1 else f"{key}-{counts[key]}")
    return tuple(ids)


def is_content_id(example_id: str) -> bool:
    """Whether an id is one that ``content_ids`` makes: equal ids are then equal texts."""
    return re.fullmatch(rf"[0-9a-f]{{{DIGEST_CHARS}}}(-[0-9]+)?", example_id) is not None


def concatenate(first: TextTable, second: TextTable) -> TextTable:
    """Both tables' rows; a missing label column counts as no label."""

    def labels(table: TextTable) -> np.ndarray:
        if table.labels_N is not None:
            return table.labels_N
        return np.full(len(table), NO_LABEL, np.int32)

    pairs = first.texts_b is not None and second.texts_b is not None
    return TextTable(
        ids=first.ids + second.ids,
        texts=first.texts + second.texts,
        texts_b=(first.texts_b or ()) + (second.texts_b or ()) if pairs else None,
        labels_N=np.concatenate([labels(first), labels(second)]),
        targets=_targets(first, second),
    )


def _targets(first: TextTable, second: TextTable) -> Any:
    """Those of both; zeros, or nothing, for a table that has none."""
    given = first.targets if first.targets is not None else second.targets
    if given is None:
        return None

    def column(table: TextTable) -> Any:
        if table.targets is not None:
            return table.targets
        if isinstance(given, tuple):
            return (None,) * len(table)
        return np.zeros((len(table), *given.shape[1:]), given.dtype)

    one, two = column(first), column(second)
    return one + two if isinstance(given, tuple) else np.concatenate([one, two])


def _labelled(table: TextTable) -> int:
    return 0 if table.labels_N is None else int((table.labels_N >= 0).sum())


def text_keys(table: TextTable) -> list[str]:
    """One folded text an example, both sentences of a pair."""
    if table.texts_b is None:
        return [fold(text) for text in table.texts]
    return [
        f"{fold(text)}\t{fold(text_b)}"
        for text, text_b in zip(table.texts, table.texts_b, strict=True)
    ]


def held_out(split: str, keys: Iterable[str], labelled: Iterable[bool]) -> set[str]:
    """Those of the labelled rows' keys (folded texts) that leave train for a split: a share of
    ``HELD_OUT``, by a fixed hash."""
    return {
        key
        for key, known in zip(keys, labelled, strict=True)
        if known and unit_interval(f"{split}/{key}") < HELD_OUT
    }


def _hold_out(name: str, train: TextTable) -> tuple[TextTable, TextTable]:
    assert train.labels_N is not None
    keys = text_keys(train)
    chosen = held_out("validation", keys, train.labels_N >= 0)
    # An unlabelled copy of a held-out text leaves train too, but is no validation example.
    held_N = np.array([key in chosen for key in keys])
    rest, held = np.flatnonzero(~held_N), np.flatnonzero(held_N & (train.labels_N >= 0))
    if not len(held) or not (train.labels_N[rest] >= 0).any():
        raise UserError(
            f"data {name!r}: train has too few rows ({len(train)}) to hold out a validation "
            "split; add a validation and a test split."
        )
    return train.take(rest), train.take(held)


def _contradictions(train: TextTable) -> list[str]:
    """A note where one text has several labels in train."""
    assert train.labels_N is not None
    labels = train.labels_N.tolist()
    keys = text_keys(train)
    first: dict[str, int] = {}
    several = {
        key
        for key, label in zip(keys, labels, strict=True)
        if label >= 0 and first.setdefault(key, label) != label
    }
    if not several:
        return []
    rows = sum(key in several and label >= 0 for key, label in zip(keys, labels, strict=True))
    return [f"{len(several):,} train texts occur with different labels ({rows:,} rows)"]


def _shared_texts(tables: dict[str, TextTable]) -> list[str]:
    """A note for every split with texts that train has too: scores there are flattered."""
    train = set(text_keys(tables["train"]))
    shared = {s: sum(k in train for k in text_keys(tables[s])) for s in ("validation", "test")}
    return [
        f"{count} of {len(tables[split])} {split} texts occur in train too"
        for split, count in shared.items()
        if count
    ]
