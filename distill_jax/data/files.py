"""The user's own files: a folder with ``train``, ``dev`` and ``test``, see docs/data.md.

Which files: ``split_files``; their forms: ``file_formats``. Files are UTF-8. Columns are found by
name; a column ``id`` names the examples where it names each once. Rows with an empty label, and
all rows of a ``transfer`` file, are transfer set: text without labels that only a teacher speaks
on.
"""

import dataclasses
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core.errors import UserError, nearest
from distill_jax.data.file_formats import class_names, kind_of, place, read_cells, read_lines
from distill_jax.data.labels import CLASSES, LabelColumn
from distill_jax.data.split_files import TEXT, TRANSFER, find_split_files
from distill_jax.data.splits import build_dataset, concatenate, content_ids, text_keys
from distill_jax.data.table import TextDataset, TextTable


class Columns(NamedTuple):
    """The columns to read, and how that of the labels is.

    Attributes:
      labelled: whether train has to have it.
    """

    text: str
    text_b: str | None
    label: str
    labels: LabelColumn = CLASSES
    labelled: bool = True


class _Row(NamedTuple):
    path: Path
    line: int
    id: str | None
    text: str
    text_b: str | None
    label: Any

    @property
    def place(self) -> str:
        return place(self.path, self.line)


def load(
    folder: Path,
    *,
    text: str = "sentence",
    text_b: str | None = None,
    label: str = "label",
    labels: LabelColumn = CLASSES,
) -> TextDataset:
    """A folder of files as a data set.

    Labels are read as ``labels`` says. Classes are words or whole numbers; ``label_names`` are
    those of train, sorted (by value if all are whole numbers), or as the file's schema has them.
    What happens where a split is missing: ``splits.build_dataset``.

    Raises:
      UserError: one line that names the file, the line in it and what was expected.
    """
    files = find_split_files(folder)
    columns = Columns(text, text_b, label, labels)
    notes = list(files.notes)
    rows = {s: _read(paths, columns, s, notes) for s, paths in files.paths.items()}
    read = labels.settled({split: [row.label for row in each] for split, each in rows.items()})
    first = files.paths["train"][0]
    named = class_names(first, label)
    label_names = labels.names(read["train"], label, str(first), named, notes)
    tables = {s: _table(s, rows[s], read[s], label_names, columns, notes) for s in rows}
    tables = told_apart(tables, notes)
    transfer = tables.pop(TRANSFER, None)
    bare = sum(x is None for x in read["train"])
    if bare:
        notes.append(f"{bare:,} of {len(rows['train']):,} train rows have no label: transfer set")
    if transfer is not None:
        tables["train"] = _with_transfer(tables, transfer, notes)
    return build_dataset(f"files:{folder}", label_names, tables, tuple(notes), labels.least)


def load_new(
    folder: Path,
    label_names: tuple[str, ...],
    *,
    text: str = "sentence",
    text_b: str | None = None,
    label: str = "label",
    labels: LabelColumn = CLASSES,
) -> tuple[dict[str, TextTable], tuple[str, ...]]:
    """What is new to a model whose labels are known: its splits, as far as they are there.

    Train may do without labels, or be a ``transfer`` file alone.

    Returns:
      Tables under train and, where there are such files, validation and test; and notes.

    Raises:
      UserError: as ``load``; for a label that is none of ``label_names``.
    """
    files = find_split_files(folder, needed=("train", TRANSFER))
    labels = dataclasses.replace(labels, whose="the run")
    columns = Columns(text, text_b, label, labels, labelled=False)
    notes = list(files.notes)
    rows = {s: _read(paths, columns, s, notes) for s, paths in files.paths.items()}
    rows.setdefault("train", rows.get(TRANSFER, []))
    if rows.get(TRANSFER) is rows["train"]:
        del rows[TRANSFER]
    read = {split: [row.label for row in each] for split, each in rows.items()}
    read = labels.settled(read)
    if "-1" not in label_names:
        read = {s: [None if x == "-1" else x for x in each] for s, each in read.items()}
    tables = {s: _table(s, rows[s], read[s], label_names, columns, notes) for s in rows}
    tables = told_apart(tables, notes)
    transfer = tables.pop(TRANSFER, None)
    if transfer is not None:
        tables["train"] = _with_transfer(tables, transfer, notes)
    return tables, tuple(notes)


def load_unlabelled(
    folder: Path,
    *,
    text: str = "sentence",
    text_b: str | None = None,
    labels: LabelColumn = CLASSES,
) -> tuple[TextTable, tuple[str, ...]]:
    """The training texts of a folder, those of a ``transfer`` file too, and notes. No label is
    read.

    Args:
      labels: as those of texts like these are read.

    Raises:
      UserError: as ``load``.
    """
    files = find_split_files(folder, needed=("train", TRANSFER))
    columns = Columns(text, text_b, "", labels, labelled=False)
    notes = list(files.notes)
    rows = {
        split: _read(files.paths[split], columns, TRANSFER, notes)
        for split in ("train", TRANSFER)
        if split in files.paths
    }
    tables = {split: _texts(split, each, columns, notes) for split, each in rows.items()}
    if len(tables) == 1:
        return next(iter(tables.values())), tuple(notes)
    tables = told_apart(tables, notes)
    transfer = tables.pop(TRANSFER)
    return _with_transfer(tables, transfer, notes), tuple(notes)


def _read(paths: Sequence[Path], columns: Columns, split: str, notes: list[str]) -> list[_Row]:
    """All rows of a split, checked."""
    rows = [row for path in paths for row in _read_file(path, columns, split, notes)]
    if not rows:
        raise UserError(f"{paths[0]}: no rows; expected at least one.")
    return rows


def _read_file(path: Path, columns: Columns, split: str, notes: list[str]) -> Iterator[_Row]:
    if kind_of(path) == TEXT:
        if columns.text_b:
            raise UserError(f"{path} is a text a line, the data has pairs; expected transfer.csv.")
        for line, text in read_lines(path):
            yield _Row(path, line, None, text.strip(), None, None)
        return
    required = [columns.text, *([columns.text_b] if columns.text_b else [])]
    if split == "validation" or (split == "train" and columns.labelled):
        required.append(columns.label)
    rowwise = kind_of(path) not in (".csv", ".tsv")
    for line, cells in read_cells(path, notes.append):
        where = place(path, line)
        for name in required:
            # In JSON a row may do without its label; all of them may not.
            if name not in cells and not (rowwise and name == columns.label):
                raise _no_column(path, name, cells, where)
        yield _Row(
            path,
            line,
            _id(cells.get("id"), where),
            _text(cells, columns.text, columns.labels, where),
            _text(cells, columns.text_b, columns.labels, where) if columns.text_b else None,
            None if split == TRANSFER else _label(cells, columns, where),
        )


def _no_column(path: Path, name: str, cells: Mapping[str, Any], where: str) -> UserError:
    """What is there instead, and the flags that name it."""
    guess = nearest(name, cells)
    hint = f" Did you mean {guess!r}?" if guess else ""
    if len(cells) == 1 and kind_of(path) in (".csv", ".tsv"):
        hint = " Cells are separated by commas, semicolons, tabs or '|'."
    there = ", ".join(f"{column:.40}" for column in list(cells)[:20])
    return UserError(
        f"unknown column {name!r} in {where}.{hint} There: {there}. Name the columns with --text, "
        "--text-b and --label."
    )


def _text(cells: Mapping[str, Any], column: str, labels: LabelColumn, where: str) -> str:
    value = labels.text(cells, column, where)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: expected text in column {column!r}, found {value!r:.60}.")
    return _encodable(value.strip(), column, where)


def _label(cells: Mapping[str, Any], columns: Columns, where: str) -> Any:
    label = columns.labels.read(cells, columns.label, where)
    if type(label) is str:
        return sys.intern(_encodable(label, columns.label, where))
    return label


def _id(value: Any, where: str) -> str | None:
    """An id, a word or a number; None for nothing, or for what names no example."""
    if value is None or isinstance(value, list | dict):
        return None
    return _encodable(str(value).strip(), "id", where) or None


def _encodable(text: str, column: str, where: str) -> str:
    """Text that UTF-8 can hold; JSON may spell halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: column {column!r} has half of a character, {text[error.start]!r}; "
            "expected text."
        ) from error
    return text


def _table(
    split: str,
    rows: Sequence[_Row],
    labels: Sequence[Any],
    label_names: tuple[str, ...],
    columns: Columns,
    notes: list[str],
) -> TextTable:
    labels_N, targets = columns.labels.columns(labels, label_names, lambda row: rows[row].place)
    table = _texts(split, rows, columns, notes)
    return dataclasses.replace(table, labels_N=labels_N, targets=targets)


def _texts(split: str, rows: Sequence[_Row], columns: Columns, notes: list[str]) -> TextTable:
    """A table without labels."""
    texts = tuple(row.text for row in rows)
    texts_b = tuple(row.text_b or "" for row in rows) if columns.text_b else None
    ids = tuple(row.id for row in rows if row.id is not None)
    if ids and len(set(ids)) < len(rows):
        notes.append(f"the ids of {split} do not name each row once: the texts name them")
    return TextTable(
        ids=ids if len(set(ids)) == len(rows) else content_ids(texts, texts_b),
        texts=texts,
        texts_b=texts_b,
    )


def told_apart(tables: Mapping[str, TextTable], notes: list[str]) -> dict[str, TextTable]:
    """Tables with ids that occur once in all files: numbers often begin anew in each.

    An example that two files have under one id, text and all, keeps it: it is the same.
    """
    apart = {"train": tables["train"]}
    for split, table in tables.items():
        if split == "train":
            continue
        keys = _keys_by_id(apart.values(), set(table.ids))
        if keys:
            own = list(zip(table.ids, text_keys(table), strict=True))
            if any(keys.get(x, key) != key for x, key in own):
                ids = tuple(x if keys.get(x) == key else f"{split}/{x}" for x, key in own)
                table = dataclasses.replace(table, ids=ids)
                notes.append(f"ids begin anew in {split}: its examples are called {split}/ID")
        apart[split] = table
    return apart


def _keys_by_id(tables: Iterable[TextTable], ids: Collection[str]) -> dict[str, str]:
    """Folded texts of those of the ids that tables have."""
    found: dict[str, str] = {}
    for table in tables:
        rows = [row for row, example in enumerate(table.ids) if example in ids]
        if rows:
            found |= zip((table.ids[row] for row in rows), text_keys(table.take(rows)), strict=True)
    return found


def _with_transfer(
    tables: Mapping[str, TextTable], transfer: TextTable, notes: list[str]
) -> TextTable:
    """Train and the transfer file's texts that are in no split."""
    known = {key for table in tables.values() for key in text_keys(table)}
    new = [row for row, key in enumerate(text_keys(transfer)) if key not in known]
    if len(new) < len(transfer):
        notes.append(
            f"{len(transfer) - len(new)} of {len(transfer)} texts of the transfer file are in "
            "train, validation or test and left out"
        )
    notes.append(f"{len(new)} rows of the transfer file joined train without labels")
    return concatenate(tables["train"], transfer.take(new))
