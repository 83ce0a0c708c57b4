"""Rows out of files of every form that is read, told apart by the name's end."""

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.data.conll import ENDINGS as _CONLL
from distill_jax.data.conll import read_sentences
from distill_jax.data.separated import _ignore, decode, open_text, separated

_JSON = (".jsonl", ".ndjson", ".json")
_COLUMNAR = (".parquet", ".arrow")
TABLES = (".csv", ".tsv")
"""Of lines that ``separated`` reads."""
_UNZIPPED = (*TABLES, *_JSON, *_CONLL)
ENDINGS = (*_UNZIPPED, *(f"{ending}.gz" for ending in _UNZIPPED), *_COLUMNAR)
"""Of the files that ``read_cells`` reads."""

Cells = dict[str, Any]
Rows = Iterator[tuple[int, Cells]]


def kind_of(path: Path) -> str:
    """The ending that says what a file is: that before ``.gz``, in lower case."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def one_file(folder: Path, stems: Sequence[str], endings: Sequence[str], what: str) -> Path | None:
    """The file of a folder that has one of these names; None where there is none.

    Args:
      what: is looked for, for errors.

    Raises:
      UserError: where there are several.
    """
    named = [folder / f"{stem}{ending}" for stem in stems for ending in endings]
    found = [path for path in named if path.is_file()]
    if len(found) > 1:
        raise UserError(
            f"{what}: both {found[0].name} and {found[1].name} in {folder}; expected one."
        )
    return found[0] if found else None


def place(path: Path, number: int) -> str:
    """Where a row stands, for people."""
    return f"{path}, {'row' if kind_of(path) in (*_COLUMNAR, '.json') else 'line'} {number}"


def read_cells(path: Path, note: Callable[[str], None] = _ignore) -> Rows:
    """(line, cells by column) of a file; for ``place``.

    CSV, TSV: ``separated``. JSON: an array of objects, or an object a line. Parquet and Arrow
    (``save_to_disk`` of Hugging Face ``datasets``): classes that the schema names come by name,
    those it hides (-1) as None. CoNLL columns: a sentence a row, see ``conll``.

    Args:
      note: told what had to be decided.

    Raises:
      UserError: naming file and place, for what is no such file.
    """
    kind = kind_of(path)
    if kind in _COLUMNAR:
        return _columnar(path)
    if kind in _CONLL:
        return read_sentences(path, note)
    return _json(path) if kind in _JSON else separated(path, note)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of a text file, lines without text left out."""
    with open_text(path) as lines:
        for line, text in enumerate(lines, start=1):
            if text.strip():
                yield line, text.removesuffix("\n")


def word_in(cell: Any) -> str:
    """What a cell says, "" where it says nothing.

    A column of whole numbers in which one is missing is one of fractions to pandas: they are whole
    again.
    """
    if isinstance(cell, float):
        cell = None if math.isnan(cell) else int(cell) if cell.is_integer() else cell
    return "" if cell is None else str(cell).strip()


def class_names(path: Path, column: str) -> tuple[str, ...] | None:
    """The classes that the schema of a Parquet or Arrow file names for a column, in their order."""
    if kind_of(path) not in _COLUMNAR:
        return None
    with _opened(path) as (schema, _):
        return _classes(schema).get(column)


def _json(path: Path) -> Rows:
    with open_text(path) as lines:
        start = next((text.lstrip()[:1] for text in lines if text.strip()), "")
    if start == "[" or (start == "{" and kind_of(path) == ".json"):
        try:
            value = json.loads(decode(path))
        except RecursionError as error:
            raise UserError(f"{path}: {error}; expected JSON objects.") from error
        except ValueError as error:
            if start == "[":
                raise UserError(f"{path}: {error}; expected a JSON array of objects.") from error
        else:
            yield from enumerate(_objects(path, value), start=1)
            return
    # Not splitlines: JSON strings may hold U+2028 and its like.
    with open_text(path) as lines:
        for line, row in enumerate(lines, start=1):
            if row.strip():
                yield line, _object(path, line, row.removesuffix("\n"))


def _object(path: Path, line: int, text: str) -> Cells:
    try:
        cells = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise UserError(f"{path}, line {line}: {error}; expected a JSON object.") from error
    if not isinstance(cells, dict):
        raise UserError(f"{path}, line {line}: expected a JSON object, found {text[:40]}.")
    return cells


def _objects(path: Path, value: Any) -> list[Cells]:
    """The rows of a JSON file that is one value: an array, or an object that holds one array."""
    if isinstance(value, dict):
        arrays = [each for each in value.values() if isinstance(each, list)]
        if len(arrays) != 1 or not all(isinstance(each, dict) for each in arrays[0]):
            keys = ", ".join(map(repr, list(value)[:5]))
            raise UserError(
                f"{path}: a JSON object with {keys}; expected an array of objects, one a row "
                "(pandas: df.to_json(path, orient='records'))."
            )
        value = arrays[0]
    for number, each in enumerate(value, start=1):
        if not isinstance(each, dict):
            raise UserError(
                f"{path}, row {number}: expected a JSON object, found {json.dumps(each)[:40]}."
            )
    return value


def _columnar(path: Path) -> Rows:
    with _opened(path) as (schema, batches):
        classes = _classes(schema)
        number = 0
        for batch in batches:
            for cells in batch.to_pylist():
                number += 1
                for column in classes.keys() & cells.keys():
                    cells[column] = _class(path, number, column, cells[column], classes[column])
                yield number, cells


def _class(path: Path, number: int, column: str, value: Any, names: tuple[str, ...]) -> str | None:
    if value is None or value == -1:
        return None
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise UserError(
            f"{place(path, number)}: column {column!r} holds class {value!r:.40} of {len(names)}."
        )
    return names[value]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """(schema, batches of rows) of a Parquet or Arrow file; damage is told in one line."""
    try:
        import pyarrow
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise UserError(
            f"{path.name}: 'pip install pyarrow' reads it, or export it as CSV."
        ) from error
    try:
        if kind_of(path) == ".parquet":
            with parquet.ParquetFile(path) as file:
                yield file.schema_arrow, file.iter_batches(batch_size=4096)
            return
        with pyarrow.memory_map(str(path)) as source:
            try:
                reader = ipc.open_stream(source)  # as Hugging Face datasets write it
                batches = iter(reader)
            except pyarrow.ArrowInvalid:
                reader = ipc.open_file(source)
                batches = map(reader.get_batch, range(reader.num_record_batches))
            yield reader.schema, batches
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        kind = kind_of(path).removeprefix(".").capitalize()
        raise UserError(f"{path} is no whole {kind} file: {told}") from error


def _classes(schema: Any) -> dict[str, tuple[str, ...]]:
    """Column -> names of its classes, as Hugging Face ``datasets`` keep them in a schema."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return {}
