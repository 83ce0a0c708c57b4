"""Files of what somebody said of examples: probabilities or logits of classes or of labels that do
not exclude each other, or a number, by id or by text.

A row is an example. Its key is a column ``id``, or the text itself (the columns that the data have
their texts in). What it says, in one of three forms:

- a column a class, named as the class or ``probability of CLASS``: probabilities; named
  ``logit_CLASS``: logits;
- pairs of columns ``label_1``, ``probability_1``, ``label_2`` ...: the likeliest classes alone;
- in JSON also one object: ``"probabilities": {"neg": 0.9, "pos": 0.1}``, or ``"logits"``.

Labels that do not exclude each other are all named, and their probabilities sum to anything. A
number stands in a column ``predicted``. What ``distill-jax predict --output`` writes is such a
file.

An ``.npz`` holds arrays ``ids`` (or ``texts``), ``label_names``, and ``probabilities`` or
``logits`` [N, C]; the ``test_logits.npz`` of a finished run of classes or labels is one. Of numbers
it holds ``predicted`` [N] in place of the last two.
"""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distill_jax.core.errors import UserError, first_line
from distill_jax.core.files import read_arrays, write_atomic
from distill_jax.data.file_formats import Cells, place, read_cells

Kind = Literal["probabilities", "logits", "numbers"]
Meaning = Literal["classes", "labels", "number"]
"""What is said: of one class, of several labels, or a number."""
Key = str | tuple[str, ...]
"""An id, or the text of an example, or its two."""
TOLERANCE = 1e-3
"""By which a sum of probabilities may miss 1."""
LEAST = 1e-6
"""Smaller probabilities are read as this, so that their logarithms are finite."""
LOGIT, PROBABILITY, ID, NUMBER = "logit_", "probability of ", "id", "predicted"
_PAIR = re.compile(r"label_([1-9]\d*)")
_NOT_CLASSES = (ID, "split")
_OBJECTS: tuple[Kind, ...] = ("probabilities", "logits")
_PREFIXED: dict[str, Kind] = {LOGIT: "logits", PROBABILITY: "probabilities"}


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a file says.

    Attributes:
      path: of the file.
      by: whether ``keys`` are ids or texts.
      keys: of the N examples.
      names: of the C classes that it names.
      values_NC: float64; NaN for a class that a row does not name.
      kind: what the values are.
      partial: whether rows name the likeliest classes alone.
      meaning: of the values.
    """

    path: Path
    by: Literal["id", "text"]
    keys: tuple[Key, ...]
    names: tuple[str, ...]
    values_NC: np.ndarray
    kind: Kind
    partial: bool = False
    meaning: Meaning = "classes"

    @property
    def most_named(self) -> int:
        """Classes that a row names at most."""
        return int((~np.isnan(self.values_NC)).sum(axis=1).max())

    def logits(self, columns: Sequence[int | None], tail: Literal["spread", "drop"]) -> np.ndarray:
        """float32 [N, C'] logits of some classes; of probabilities their logarithms, of labels
        their log-odds. Numbers are as they are.

        Args:
          columns: of ``values_NC``; None for a class that no row names.
          tail: what becomes of the probability that a row leaves over: spread evenly over the
            classes that it does not name, or dropped, so that those have next to none.
        """
        absent = np.full(len(self.keys), np.nan)
        taken = [absent if c is None else self.values_NC[:, c] for c in columns]
        values_NC = np.stack(taken, axis=1)
        if self.kind != "probabilities":
            return values_NC.astype(np.float32)
        if self.meaning == "labels":
            sure_NC = np.clip(values_NC, LEAST, 1 - LEAST)
            return (np.log(sure_NC) - np.log1p(-sure_NC)).astype(np.float32)
        unnamed_NC = np.isnan(values_NC)
        over_N1 = np.maximum(1 - np.nansum(self.values_NC, axis=1, keepdims=True), 0)
        share_N1 = over_N1 / np.maximum(unnamed_NC.sum(axis=1, keepdims=True), 1)
        filled_NC = np.where(unnamed_NC, share_N1 if tail == "spread" else 0.0, values_NC)
        return np.log(np.maximum(filled_NC, LEAST)).astype(np.float32)


def read_predictions(
    path: Path,
    *,
    text: str = "sentence",
    text_b: str | None = None,
    label: str = "label",
    meaning: Meaning = "classes",
) -> Predictions:
    """Read a file of predictions, every row checked.

    Args:
      path: CSV, TSV, JSON, JSONL, Parquet or npz.
      text, text_b: columns of the texts, for a file without ids.
      label: a column of labels, which nobody reads.
      meaning: what is said.

    Raises:
      UserError: one line that names the file, the row and what was expected.
    """
    if not path.is_file():
        raise UserError(f"no file of predictions at {path}")
    if path.suffix.lower() == ".npz":
        return _of_arrays(path, meaning)
    rows = list(read_cells(path))
    if not rows:
        raise UserError(f"{path}: no rows; expected at least one.")
    texts = [text] if text_b is None else [text, text_b]
    first = rows[0][1]
    by: Literal["id", "text"] = "id" if ID in first else "text"
    if by == "text" and not all(column in first for column in texts):
        raise UserError(
            f"{place(path, rows[0][0])}: neither a column {ID!r} nor {' and '.join(texts)}: the "
            "rows name no examples (distill-jax data --ids FILE writes the ids)"
        )
    keys = [_key(path, line, cells, [ID] if by == "id" else texts) for line, cells in rows]
    if meaning == "number":
        kind, said, partial = _numbers(path, rows)
    else:
        kind, said, partial = _said(path, rows, {*_NOT_CLASSES, *texts, label})
    if partial and meaning == "labels":
        raise UserError(f"{path}: its rows name some labels alone; expected all of them in each.")
    names = tuple(dict.fromkeys(name for each in said for name in each))
    column_of = {name: column for column, name in enumerate(names)}
    values_NC = np.full((len(rows), len(names)), np.nan)
    for row, each in enumerate(said):
        for name, value in each.items():
            values_NC[row, column_of[name]] = value
    places = [place(path, line) for line, _ in rows]
    found = Predictions(path, by, tuple(keys), names, values_NC, kind, partial, meaning)
    return _checked(found, places)


def _key(path: Path, line: int, cells: Cells, columns: Sequence[str]) -> Key:
    words = []
    for column in columns:
        value = cells.get(column)
        if value is None or isinstance(value, list | dict) or not str(value).strip():
            raise UserError(f"{place(path, line)}: column {column!r} is empty; expected a key.")
        words.append(str(value).strip())
    return words[0] if len(words) == 1 else tuple(words)


def _said(
    path: Path, rows: Sequence[tuple[int, Cells]], others: set[str]
) -> tuple[Kind, list[dict[str, float]], bool]:
    """What these numbers are, what each row says of which class, whether it may leave out some."""
    first = rows[0][1]
    for kind in _OBJECTS:
        if isinstance(first.get(kind), Mapping):
            said = [_object(path, line, cells.get(kind), kind) for line, cells in rows]
            return kind, said, len({frozenset(each) for each in said}) > 1
    if any(_PAIR.fullmatch(column) for column in first):
        return "probabilities", [_pairs(path, line, cells) for line, cells in rows], True
    for prefix, kind in _PREFIXED.items():
        columns = [column for column in first if column.startswith(prefix)]
        if columns:
            said = [_cells(path, line, cells, columns, prefix) for line, cells in rows]
            return kind, said, False
    classes = [column for column in first if column not in others]
    if len(classes) < 2:
        raise UserError(
            f"{place(path, rows[0][0])}: columns {', '.join(first)}; expected one for each class, "
            "or pairs label_1, probability_1, ..."
        )
    return "probabilities", [_cells(path, line, cells, classes) for line, cells in rows], False


def _numbers(
    path: Path, rows: Sequence[tuple[int, Cells]]
) -> tuple[Kind, list[dict[str, float]], bool]:
    """The number of each row, as ``_said`` has it."""
    if NUMBER not in rows[0][1]:
        found = ", ".join(rows[0][1])
        raise UserError(f"{place(path, rows[0][0])}: columns {found}; expected one {NUMBER!r}.")
    return "numbers", [_cells(path, line, cells, [NUMBER]) for line, cells in rows], False


def _cells(
    path: Path, line: int, cells: Cells, columns: Sequence[str], prefix: str = ""
) -> dict[str, float]:
    """What the columns of classes say, by class."""
    return {c.removeprefix(prefix): _number(path, line, c, cells.get(c)) for c in columns}


def _object(path: Path, line: int, value: Any, kind: str) -> dict[str, float]:
    if not isinstance(value, Mapping) or not value:
        raise UserError(f"{place(path, line)}: expected {kind!r} to be an object of numbers.")
    return {str(name): _number(path, line, f"{kind}.{name}", each) for name, each in value.items()}


def _pairs(path: Path, line: int, cells: Cells) -> dict[str, float]:
    """The likeliest classes of a row; an empty pair says nothing."""
    said: dict[str, float] = {}
    numbers = sorted(int(m[1]) for column in cells if (m := _PAIR.fullmatch(column)))
    for number in numbers:
        name, column = cells.get(f"label_{number}"), f"probability_{number}"
        if name is None or not str(name).strip():
            continue
        name = str(name).strip()
        if name in said:
            raise UserError(f"{place(path, line)}: the class {name!r} is named twice.")
        said[name] = _number(path, line, column, cells.get(column))
    if not said:
        raise UserError(f"{place(path, line)}: no class is named.")
    return said


def _number(path: Path, line: int, column: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f"{place(path, line)}: column {column!r} holds {value!r:.40}; expected a finite number."
        )
    return number


def _checked(said: Predictions, places: Sequence[str]) -> Predictions:
    """The same, its keys unique and its probabilities probabilities.

    Of texts that occur twice with the same numbers one row is left.
    """
    rows = list(_unique_rows(said, places))
    if len(rows) < len(said.keys):
        keys = tuple(said.keys[row] for row in rows)
        said = dataclasses.replace(said, keys=keys, values_NC=said.values_NC[rows])
        places = [places[row] for row in rows]
    named_NC = ~np.isnan(said.values_NC)
    if said.kind != "probabilities":
        if not named_NC.all():
            row = int(np.argmin(named_NC.all(axis=1)))
            raise UserError(f"{places[row]}: logits of some classes only; expected all.")
        return said
    _check_probabilities(said, named_NC, places)
    return said


def _unique_rows(said: Predictions, places: Sequence[str]) -> Iterable[int]:
    first: dict[Key, int] = {}
    for row, key in enumerate(said.keys):
        if key not in first:
            first[key] = row
            yield row
            continue
        same = np.array_equal(said.values_NC[row], said.values_NC[first[key]], equal_nan=True)
        if said.by == "id" or not same:
            raise UserError(f"{places[row]}: {str(key)!r:.60} stands at {places[first[key]]} too.")


def _check_probabilities(said: Predictions, named_NC: np.ndarray, places: Sequence[str]) -> None:
    values_NC = said.values_NC
    outside_NC = named_NC & ~((values_NC >= -TOLERANCE) & (values_NC <= 1 + TOLERANCE))
    if outside_NC.any():
        row = int(outside_NC.any(axis=1).argmax())
        value = values_NC[row][outside_NC[row]][0]
        raise UserError(
            f"{places[row]}: {value:g} is no probability; logits stand in columns "
            f"{LOGIT}CLASS (JSON and npz: logits)."
        )
    if said.meaning == "labels":
        return
    sum_N = np.where(named_NC, values_NC, 0).sum(axis=1)
    whole_N = np.full(len(sum_N), not said.partial)
    wrong_N = np.where(whole_N, np.abs(sum_N - 1) > TOLERANCE, sum_N > 1 + TOLERANCE)
    if wrong_N.any():
        row = int(wrong_N.argmax())
        expected = "1" if whole_N[row] else "at most 1"
        raise UserError(
            f"{places[row]}: the probabilities sum to {sum_N[row]:g}; expected {expected}."
        )


def _of_arrays(path: Path, meaning: Meaning) -> Predictions:
    """The arrays of an ``.npz``; nothing in it can run, Python's own objects are refused."""
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as error:
        told = first_line(error)
        raise UserError(f"{path} is no whole npz file of plain arrays: {told}") from error
    kind: Kind = "probabilities" if "probabilities" in arrays else "logits"
    if meaning == "number":
        kind, arrays = "numbers", _as_column(arrays)
    usual = () if meaning == "number" else ("logits", "logits_NC")
    values = next((arrays[k] for k in (kind, *usual) if k in arrays), None)
    keys = arrays.get("ids", arrays.get("texts"))
    names = arrays.get("label_names")
    if values is None or keys is None or names is None:
        wanted = NUMBER if meaning == "number" else "label_names, and probabilities or logits"
        found = ", ".join(sorted(arrays)) or "nothing"
        raise UserError(f"{path} has {found}; expected ids (or texts), {wanted}")
    texts = all(each.dtype.kind == "U" for each in (keys, names))
    if not (texts and keys.ndim in (1, 2) and names.ndim == 1 and values.dtype.kind == "f"):
        raise UserError(f"{path}: ids and label_names are texts, {kind} numbers with a point.")
    if values.shape != (len(keys), len(names)) or len(set(names.tolist())) < len(names):
        raise UserError(
            f"{path}: {kind} of shape {values.shape} for {len(keys)} examples and "
            f"{len(set(names.tolist()))} classes."
        )
    values_NC = values.astype(np.float64)
    places = [f"{path}, row {row}" for row in range(len(keys))]
    finite_N = np.isfinite(values_NC).all(axis=1)
    if not len(keys) or not finite_N.all():
        where = places[int(np.argmin(finite_N))] if len(keys) else path
        raise UserError(f"{where}: expected finite numbers of at least one example.")
    by: Literal["id", "text"] = "id" if "ids" in arrays else "text"
    listed = keys.tolist()
    of_pairs = [tuple(each) if isinstance(each, list) else each for each in listed]
    classes = tuple(names.tolist())
    said = Predictions(path, by, tuple(of_pairs), classes, values_NC, kind, meaning=meaning)
    return _checked(said, places)


def _as_column(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keys, and numbers as if they were of one class."""
    found = {name: arrays[name] for name in ("ids", "texts") if name in arrays}
    if (said := arrays.get(NUMBER)) is not None:
        found["numbers"] = said[:, None] if said.ndim == 1 else said
        found["label_names"] = np.array([NUMBER])
    return found


def write_predictions(
    path: Path,
    ids: Sequence[str],
    label_names: Sequence[str],
    values_NC: np.ndarray,
    kind: Kind = "probabilities",
) -> None:
    """Write an ``.npz`` that ``read_predictions`` reads, whole or not at all.

    Args:
      values_NC: of each example and class.
    """
    file = io.BytesIO()
    arrays: dict[str, Any] = {kind: np.asarray(values_NC, np.float32)}
    np.savez(file, ids=np.asarray(ids), label_names=np.asarray(label_names), **arrays)
    write_atomic(path, file.getvalue())
