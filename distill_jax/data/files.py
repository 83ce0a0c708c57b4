"""The user's own files: a folder with ``train``, ``dev`` and ``test`` as CSV, TSV or JSONL.

CSV is RFC 4180 with a header line; TSV has a header line and no quoting (as GLUE's files);
JSONL has an object a line. Files are UTF-8. Columns are found by name; a column ``id`` names the
examples where there is one. Rows with an empty label, and all rows of a ``transfer`` file, are
transfer set: text without labels that only a teacher speaks on.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.separated import decode, separated
from distill_jax.data.splits import build_dataset, concatenate, content_ids
from distill_jax.data.table import TextDataset, TextTable, label_array

STEMS = {
    "train": ("train",),
    "validation": ("dev", "validation", "valid"),
    "test": ("test",),
    "transfer": ("transfer",),
}
ENDINGS = (".csv", ".tsv", ".jsonl")


class Columns(NamedTuple):
    """The columns to read."""

    text: str
    text_b: str | None
    label: str


class _Row(NamedTuple):
    line: int
    id: str | None
    text: str
    text_b: str | None
    label: str | None


def load(
    folder: Path, *, text: str = "sentence", text_b: str | None = None, label: str = "label"
) -> TextDataset:
    """A folder of files as a data set.

    Labels are words or whole numbers; ``label_names`` are those of train, sorted (by value if
    all are whole numbers). What happens where a split is missing: ``splits.build_dataset``.

    Raises:
      UserError: one line that names the file, the line in it and what was expected.
    """
    if not folder.is_dir():
        raise UserError(f"data files: no folder {folder}.")
    columns = Columns(text, text_b, label)
    paths = {split: path for split in STEMS if (path := _find(folder, split))}
    if "train" not in paths:
        names = ", ".join(f"train{ending}" for ending in ENDINGS)
        raise UserError(f"data files: no train file in {folder}; expected one of {names}.")
    rows = {split: _read(path, columns, split) for split, path in paths.items()}
    label_names = _label_names(paths["train"], rows["train"])
    tables = {s: _table(paths[s], rows[s], label_names, columns) for s in rows}
    notes = []
    if "transfer" in tables:
        transfer = tables.pop("transfer")
        tables["train"] = _with_transfer(paths, tables["train"], transfer)
        notes.append(f"{len(transfer)} rows of the transfer file joined train without labels")
    return build_dataset(f"files:{folder}", label_names, tables, tuple(notes))


def _find(folder: Path, split: str) -> Path | None:
    found = [
        folder / f"{stem}{ending}"
        for stem in STEMS[split]
        for ending in ENDINGS
        if (folder / f"{stem}{ending}").is_file()
    ]
    if len(found) > 1:
        raise UserError(
            f"data files: both {found[0].name} and {found[1].name} in {folder}; expected one "
            f"{split} file."
        )
    return found[0] if found else None


def _read(path: Path, columns: Columns, split: str) -> list[_Row]:
    """All rows of a file, checked."""
    rows = []
    required = [columns.text, *([columns.text_b] if columns.text_b else [])]
    if split in ("train", "validation"):
        required.append(columns.label)
    for line, cells in read_cells(path):
        for name in required:
            # In JSON a row may do without its label; all of them may not.
            if name not in cells and (path.suffix != ".jsonl" or name != columns.label):
                raise unknown("column", name, cells, where=f"in {path}, line {line}")
        rows.append(
            _Row(
                line,
                _word(path, line, "id", cells.get("id")),
                _text(path, line, columns.text, cells),
                _text(path, line, columns.text_b, cells) if columns.text_b else None,
                None
                if split == "transfer"
                else _word(path, line, columns.label, cells.get(columns.label)),
            )
        )
    if not rows:
        raise UserError(f"{path}: no rows; expected at least one.")
    return rows


def read_cells(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, cells by column) of a CSV, TSV or JSONL file, told apart by the name's end.

    Raises:
      UserError: naming file and line, for what is no such file.
    """
    return _jsonl(path) if path.suffix == ".jsonl" else separated(path)


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of a JSONL file."""
    # Not splitlines: JSON strings may hold U+2028 and its like.
    for line, text in enumerate(decode(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            cells = json.loads(text)
        except (RecursionError, ValueError) as error:
            raise UserError(f"{path}, line {line}: {error}; expected a JSON object.") from error
        if not isinstance(cells, dict):
            raise UserError(f"{path}, line {line}: expected a JSON object, found {text[:40]}.")
        yield line, cells


def _text(path: Path, line: int, column: str, cells: dict[str, Any]) -> str:
    value = cells[column]
    if not isinstance(value, str) or not value.strip():
        raise UserError(
            f"{path}, line {line}: expected text in column {column!r}, found {value!r}."
        )
    return _encodable(path, line, column, value.strip())


def _word(path: Path, line: int, column: str, value: Any) -> str | None:
    """A label or an id: a word or a whole number, or None for nothing."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(
            f"{path}, line {line}: expected a word or a whole number in column {column!r}, "
            f"found {value!r}."
        )
    return _encodable(path, line, column, str(value).strip()) or None


def _encodable(path: Path, line: int, column: str, text: str) -> str:
    """Text that UTF-8 can hold; JSON may spell halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path}, line {line}: column {column!r} has half of a character, "
            f"{text[error.start]!r}; expected text."
        ) from error
    return text


def _label_names(path: Path, rows: list[_Row]) -> tuple[str, ...]:
    names = {row.label for row in rows if row.label is not None}
    if len(names) < 2:
        found = ", ".join(names) or "none"
        raise UserError(f"{path}: expected at least two different labels, found {found}.")
    try:
        return tuple(sorted(names, key=int))
    except ValueError:
        return tuple(sorted(names))


def _table(
    path: Path, rows: list[_Row], label_names: tuple[str, ...], columns: Columns
) -> TextTable:
    for row in rows:
        if row.label is not None and row.label not in label_names:
            where = f"in {path}, line {row.line}, which train does not have"
            raise unknown("label", row.label, label_names, where=where)
    texts = tuple(row.text for row in rows)
    texts_b = tuple(row.text_b or "" for row in rows) if columns.text_b else None
    labels = [row.label for row in rows]
    return TextTable(
        ids=_ids(path, rows) or content_ids(texts, texts_b),
        texts=texts,
        texts_b=texts_b,
        labels_N=None if not any(labels) else label_array(labels, label_names),
    )


def _ids(path: Path, rows: list[_Row]) -> tuple[str, ...] | None:
    """The ``id`` column, or None if there is none."""
    if all(row.id is None for row in rows):
        return None
    seen: dict[str, int] = {}
    for row in rows:
        if row.id is None:
            raise UserError(f"{path}, line {row.line}: expected an id, found nothing.")
        if row.id in seen:
            raise UserError(
                f"{path}, line {row.line}: id {row.id!r} is that of line {seen[row.id]} too; "
                "expected ids that occur once."
            )
        seen[row.id] = row.line
    return tuple(seen)


def _with_transfer(paths: dict[str, Path], train: TextTable, transfer: TextTable) -> TextTable:
    shared = set(train.ids) & set(transfer.ids)
    if shared:
        raise UserError(
            f"{paths['transfer']}: example {min(shared)!r} is in {paths['train'].name} too; "
            "expected transfer rows that train does not have."
        )
    return concatenate(train, transfer)
