"""People to recommend to, and items to choose from, out of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.column_names import column_of
from distill_jax.data.file_formats import ENDINGS, TABLES, kind_of, read_cells, read_lines, word_in
from distill_jax.data.separated import separated

TEXT = ".txt"
SEQUENCE = ":token_seq"
"""RecBole's type of a list, whose items have spaces between them."""


class Person(NamedTuple):
    """Somebody who asks.

    Attributes:
      row: in the file, from 1.
      user: their name; "" where the file does not say.
      history: ids or titles of items, oldest first, as a list or as a text with semicolons between
        them; () where the file does not say.
    """

    row: int
    user: str = ""
    history: tuple[str, ...] | str = ()

    @property
    def label(self) -> str:
        """Beside an answer: the user, or the row of somebody without a name."""
        return self.user or str(self.row)


def read_people(path: Path, said: Mapping[str, str] | None = None) -> Iterator[Person]:
    """A file of people, row by row: columns ``user``, ``history``, or both.

    CSV, TSV, JSON, JSONL or Parquet; or ``.txt`` with a user a line. A history is a list (JSON,
    Parquet), or one text with semicolons between items, or spaces as RecBole has them. Usual names
    of columns are known (``user_id``, ``item_id_list``), see ``column_names``.

    Args:
      said: role -> column; those that the file lacks are of another file.

    Raises:
      UserError: for another kind of file, one without such columns, or damage.
    """
    _check(path)
    if kind_of(path) == TEXT:
        lines = enumerate(read_lines(path), start=1)
        yield from (Person(row, text.strip()) for row, (_, text) in lines)
        return
    columns: dict[str, str | None] = {}
    table = kind_of(path) in TABLES
    rows = separated(path, keep_empty=True) if table else read_cells(path)
    for row, (_, cells) in enumerate(rows, start=1):
        if not columns.keys() >= cells.keys():  # the first row, or JSON with further keys
            columns |= dict.fromkeys(cells)
            own = {role: name for role, name in (said or {}).items() if name in columns}
            user, history = (column_of(role, columns, path, own) for role in ("user", "history"))
            if user is None and history is None:
                named = ", ".join(columns)
                raise UserError(f"{path} has columns {named}; expected user, history, or both.")
            if history is None and any(column_of("item", [name], path) for name in columns):
                raise UserError(
                    f"{path} has an item a row and no column history: interactions, not people "
                    "(--interactions)."
                )
        name = word_in(cells.get(user)) if user else ""
        yield Person(row, name, _history(cells.get(history), history) if history else ())


def read_items(path: Path, is_item: Callable[[str], bool] = lambda word: False) -> Iterator[str]:
    """Ids or titles of items: the column ``item`` of a table, its only one, or a text file's lines.

    Args:
      is_item: whether there is an item of that name or title; a table whose first line has one in
        place of a name of the column has no header line.

    Raises:
      UserError: as of ``read_people``.
    """
    _check(path)
    if kind_of(path) == TEXT:
        yield from (text.strip() for _, text in read_lines(path))
        return
    for _, cells in read_cells(path):
        item = column_of("item", cells, path)
        if item is None and len(cells) != 1:
            named = ", ".join(cells) or "of no name"
            raise UserError(f"{path} has columns {named}; expected a column item.")
        if item is None:
            item = next(iter(cells))
            if is_item(item):
                raise UserError(
                    f"{path}, line 1: {item!r} is an item, not the name of a column; put a header "
                    "line 'item' in front, or call the file .txt."
                )
        if word := word_in(cells[item]):
            yield word


def _check(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"no file {path}")
    if not path.name.lower().endswith((*ENDINGS, TEXT, f"{TEXT}.gz")):
        raise unknown("ending of a file", path.name, [*ENDINGS, TEXT])


def _history(value: Any, column: str) -> tuple[str, ...] | str:
    if isinstance(value, str) and column.endswith(SEQUENCE) and ";" not in value:
        value = value.split()
    if isinstance(value, str):
        return value.strip() or ()
    words = value or ()
    if not isinstance(words, list | tuple):
        words = (words,)
    return tuple(word for word in map(word_in, words) if word)
