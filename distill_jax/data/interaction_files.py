"""The user's own interactions: CSV or TSV, the form of the SASRec papers, own splits, item texts.

What a folder may hold:

- ``interactions.csv`` (or ``.tsv``, or either with ``.gz``): columns ``user``, ``item``, and
  ``time``, ``rating`` and ``kind`` (click, buy ...) where there are any, by these names or other
  usual ones (``userId``, ``movieId``, ``timestamp``, see ``column_names``); other columns are not
  read;
- or ``train``, ``validation`` (``dev``, ``valid``) and ``test`` of that form: the user's own split;
- or ``interactions.txt`` (or ``.txt.gz``): ``user item`` a line, each user's in chronological
  order (Kang and McAuley, ICDM 2018);
- or RecBole's atomic files (``recbole``);
- and beside them the items' texts: ``items.csv`` (or ``.tsv``) with a column ``item``, all other
  columns being joined to ``title | genres``; or ``titles.tsv`` without a header line, its first
  column the item, its last ones title and genres.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data import recbole
from distill_jax.data.build_interactions import RawInteractions, Rows, join_texts, joined
from distill_jax.data.column_names import column_of, fields_of, no_column
from distill_jax.data.file_formats import one_file, read_lines
from distill_jax.data.separated import (
    blocks,
    header_of,
    is_number,
    name_in,
    names_in,
    number_in,
    numbers_in,
    seconds_in,
    separated,
)
from distill_jax.data.times import in_seconds

TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
LINES = (".txt", ".txt.gz")
DATA = "data files"
NO_TIME = "no time column: the file's order decides"
_ROLES = ("user", "item", "time", "rating", "kind")
PARTS = (("train",), ("validation", "dev", "valid"), ("test",))


def read(place: Path, columns: Mapping[str, str] | None = None) -> RawInteractions:
    """A folder, or one file of interactions with the items' texts beside it.

    Args:
      columns: role -> column, where they are not called as usual.

    Raises:
      UserError: one line that names the file, the line in it and what was expected.
    """
    if place.is_file():
        return _with_times(place, [_read_file(place, columns)], _item_texts(place.parent, columns))
    if not place.is_dir():
        raise UserError(f"data files: no folder and no file {place}.")
    if list(place.glob("*.inter")):
        return recbole.read(place, columns)
    parts = [one_file(place, stems, TABLES, DATA) for stems in PARTS]
    whole = one_file(place, ("interactions",), (*TABLES, *LINES), DATA)
    if whole and any(parts):
        found = next(path for path in parts if path)
        raise UserError(f"data files: both {whole.name} and {found.name} in {place}.")
    if whole:
        return _with_times(place, [_read_file(whole, columns)], _item_texts(place, columns))
    if not any(parts):
        raise UserError(
            f"data files: no interactions in {place}; expected interactions.csv, .tsv or .txt "
            "(or .gz of these), or train, validation and test as .csv or .tsv, or NAME.inter; a "
            "file of another name is given itself, files:FOLDER/NAME.csv."
        )
    named = dict(zip((stems[0] for stems in PARTS), parts, strict=True))
    for stem, path in named.items():
        if path is None:
            raise UserError(f"data files: no {stem} file in {place}; an own split needs all three.")
    tables = [_read_table(path, columns) for path in named.values() if path]
    return _with_times(place, tables, _item_texts(place, columns))


def _with_times(
    place: Path, tables: list[tuple[Rows, str | None]], texts: dict[str, str] | None
) -> RawInteractions:
    """One table, or train, validation and test, with their times in seconds.

    Args:
      tables: rows, and what their column of times is called; None where they have none, "" where
        their order is said to be that of time.
    """
    rows = tables[0][0] if len(tables) == 1 else joined(place, [table for table, _ in tables])
    column = tables[0][1]
    if rows.times_N is None or not column:
        return RawInteractions(rows, texts, (NO_TIME,) if column is None else ())
    times_N, note = in_seconds(rows.times_N, place, column)
    return RawInteractions(rows._replace(times_N=times_N), texts, (note,))


def _read_file(path: Path, columns: Mapping[str, str] | None) -> tuple[Rows, str | None]:
    if path.name.endswith(LINES):
        fields_of((), path, columns)  # there are none
        return _read_lines(path), ""
    if path.name.endswith(TABLES):
        return _read_table(path, columns)
    raise UserError(
        f"{path}: not known what kind of file this is; expected {', '.join((*TABLES, *LINES))}."
    )


def _number_or_none(path: Path, line: int, column: str, value: str) -> float:
    """``number_in``; NaN of an empty cell."""
    return number_in(path, line, column, value) if value.strip() else math.nan


def _read_table(path: Path, columns: Mapping[str, str] | None) -> tuple[Rows, str | None]:
    """Columns ``user``, ``item`` and where they are ``time``, ``rating`` and ``kind``; the third's
    name. Where there are kinds, not all of them have a rating."""
    _check_header(path, columns)
    users, items, times, ratings, kinds = list[str](), list[str](), [], [], list[str]()
    known: tuple[dict[str, str], ...] = ({}, {}, {})
    fields: dict[str, list[str]] = {}
    user = item = time = rating = kind = None
    for lines, cells in blocks(path):
        if user is None or item is None:
            user, item, time, rating, kind = (
                column_of(role, cells, path, columns) for role in _ROLES
            )
            if user is None or item is None:
                missing = "user" if user is None else "item"
                raise no_column(missing, cells, f"{path}, line 1")
            fields = {name: [] for name in fields_of(cells, path, columns)}
        users += names_in(path, lines, user, cells[user], known[0])
        items += names_in(path, lines, item, cells[item], known[1])
        if time is not None:
            times.append(numbers_in(path, lines, time, cells[time], seconds_in))
        for name, words in fields.items():
            own = [word.strip() for word in cells[name]]
            words += map(known[2].setdefault, own, own)
        if kind is not None:
            kinds += names_in(path, lines, kind, cells[kind], known[2])
        if rating is not None:
            read = number_in if kind is None else _number_or_none
            ratings.append(numbers_in(path, lines, rating, cells[rating], read))
    if not users:
        raise UserError(f"{path}: no rows; expected at least one interaction.")
    rows = Rows(
        users,
        items,
        np.concatenate(times) if times else None,
        np.concatenate(ratings).astype(np.float32) if ratings else None,
        kinds=kinds or None,
        fields=fields,
    )
    return rows, time


def _check_header(path: Path, columns: Mapping[str, str] | None) -> None:
    """Raises ``UserError`` for a first line that holds an interaction, not names of columns."""
    cells = header_of(path)
    named = any(_named_role(cell) for cell in cells) or set(cells) & set((columns or {}).values())
    if not named and sum(map(is_number, cells)) >= 2:
        shown = ",".join(cells[:5])
        raise UserError(
            f"{path}, line 1: {shown!r} holds no names of columns; put a header line in front, "
            f"such as {'user,item,rating,time'!r} in the order of the cells."
        )


def _named_role(cell: str) -> bool:
    return any(column_of(role, [cell], "") for role in _ROLES)


def _read_lines(path: Path) -> Rows:
    """``user item`` a line."""
    users, items = [], []
    for line, text in read_lines(path):
        cells = text.split()
        if len(cells) != 2:
            raise UserError(
                f"{path}, line {line}: {len(cells)} words ({text[:40]!r}); expected two, a user "
                "and an item."
            )
        users.append(cells[0])
        items.append(cells[1])
    if not users:
        raise UserError(f"{path}: no lines; expected 'user item' in every line.")
    return Rows(users, items)


def _item_texts(folder: Path, columns: Mapping[str, str] | None) -> dict[str, str] | None:
    table = one_file(folder, ("items",), TABLES, DATA)
    titles = one_file(folder, ("titles",), (".tsv", ".tsv.gz"), DATA)
    if table and titles:
        raise UserError(f"data files: both {table.name} and {titles.name} in {folder}.")
    path = table or titles
    if path is None:
        return None
    texts: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, item, text in _text_table(path, columns) if table else _title_lines(path):
        if item in texts:
            raise UserError(
                f"{path}, line {line}: item {item!r} is that of line {lines[item]} too; expected "
                "items that occur once."
            )
        texts[item], lines[item] = text, line
    if not texts:
        raise UserError(f"{path}: no rows; expected at least one item.")
    return texts


def _text_table(path: Path, columns: Mapping[str, str] | None) -> Iterator[tuple[int, str, str]]:
    named = (columns or {}).get("item")
    item = None
    for line, cells in separated(path):
        if item is None:
            item = named if named in cells else column_of("item", cells, path)
        if item is None:
            raise no_column("item", cells, f"{path}, line 1")
        if len(cells) == 1:
            raise UserError(f"{path}, line 1: expected a column with texts beside {item!r}.")
        texts = [text for column, text in cells.items() if column != item]
        yield line, name_in(path, line, item, cells[item]), join_texts(texts)


def _title_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """``item, title``, ``item, title, genres`` or ``item, original id, title, genres`` a line."""
    for line, text in read_lines(path):
        cells = text.rstrip("\r").split("\t")
        if not 2 <= len(cells) <= 4:
            raise UserError(
                f"{path}, line {line}: {len(cells)} cells; expected an item, a title and genres, "
                "separated by tabs."
            )
        title, genres = (cells[1], "") if len(cells) == 2 else cells[-2:]
        texts = [title, genres.replace("|", ", ")]
        yield line, name_in(path, line, "item", cells[0]), join_texts(texts)
