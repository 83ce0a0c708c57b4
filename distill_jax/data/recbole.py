"""RecBole's atomic files: tab-separated, every column typed in the header line.

``NAME.inter`` holds the interactions (``user_id:token``, ``item_id:token``, ``rating:float``,
``timestamp:float``); ``NAME.item`` and ``NAME.user`` hold features. A split of one's own is
``NAME.train.inter``, ``NAME.valid.inter`` and ``NAME.test.inter``. Where there is a column
``item_id_list:token_seq`` a row is an item and all that its user took before it. The format:
https://recbole.io/docs/user_guide/data/atomic_files.html
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.build_interactions import RawInteractions, Rows, join_texts, joined
from distill_jax.data.column_names import column_of, fields_of, no_column
from distill_jax.data.separated import name_in, number_in, separated
from distill_jax.data.times import in_seconds

TYPES = ("token", "token_seq", "float", "float_seq")
PARTS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class AtomicTable:
    """One atomic file.

    Attributes:
      path: where it was read.
      types: column -> ``token``, ``token_seq``, ``float`` or ``float_seq``.
      columns: column -> cells: words, tuples of words, numbers or tuples of numbers.
      lines: line of each row.
    """

    path: Path
    types: dict[str, str]
    columns: dict[str, list]
    lines: list[int]

    def column(self, name: str, kind: str) -> list:
        """A column that has to be there, of this type."""
        if name not in self.types:
            raise unknown("column", name, self.types, where=f"in {self.path}, line 1")
        if self.types[name] != kind:
            raise UserError(
                f"{self.path}, line 1: column {name!r} has type {self.types[name]!r}; expected "
                f"'{name}:{kind}'."
            )
        return self.columns[name]


def read_atomic(path: Path) -> AtomicTable:
    """Every cell of an atomic file, checked against its column's type.

    Raises:
      UserError: one line that names the file, the line in it, the column and what was expected.
    """
    types: dict[str, str] = {}
    columns: dict[str, list] = {}
    lines = []
    for line, cells in separated(path):
        if not types:
            types = dict(_typed(path, head) for head in cells)
            columns = {name: [] for name in types}
            if len(types) < len(cells):
                raise UserError(f"{path}, line 1: a column occurs twice in {', '.join(cells)}.")
        lines.append(line)
        for (name, kind), cell in zip(types.items(), cells.values(), strict=True):
            columns[name].append(_value(path, line, name, kind, cell))
    if not lines:
        raise UserError(f"{path}: no rows; expected at least one.")
    return AtomicTable(path, types, columns, lines)


def read(folder: Path, columns: Mapping[str, str] | None = None) -> RawInteractions:
    """The atomic files of a folder; an item's text joins all its ``token_seq`` columns.

    Args:
      columns: role -> column, where they are not called as usual, see ``column_names``.
    """
    whole = [
        p for p in folder.glob("*.inter") if not p.stem.endswith(tuple(f".{x}" for x in PARTS))
    ]
    split = sorted(set(folder.glob("*.inter")) - set(whole))
    if len(whole) + (len(split) > 0) != 1:
        names = ", ".join(sorted(path.name for path in folder.glob("*.inter")))
        raise UserError(f"data files: expected one NAME.inter in {folder}, found {names}.")
    name = whole[0].stem if whole else split[0].stem.rpartition(".")[0]
    paths = whole or [folder / f"{name}.{part}.inter" for part in PARTS]
    for path in paths:
        if not path.is_file():
            raise UserError(f"data files: no {path.name} in {folder}; a split needs all three.")
    fields_of((), folder, columns)  # they are read from CSV and TSV alone
    atomic = [read_atomic(path) for path in paths]
    notes = []
    if all(_list_of(table, columns) for table in atomic):
        rows, column = _unrolled(atomic, columns), None
        notes.append(f"{_list_of(atomic[0], columns)}: the order of the lists is that of time")
    else:
        tables = [_interactions(table, columns) for table in atomic]
        rows, column = tables[0]
        if not whole:
            rows = joined(folder, [rows for rows, _ in tables])
        if column is None:
            notes.append("no time column: the file's order decides")
    if rows.times_N is not None and column is not None:
        times_N, note = in_seconds(rows.times_N, folder, column)
        rows, notes = rows._replace(times_N=times_N), [note]
    texts = None
    if (folder / f"{name}.item").is_file():
        texts = _texts(read_atomic(folder / f"{name}.item"))
    if (folder / f"{name}.user").is_file():
        read_atomic(folder / f"{name}.user").column("user_id", "token")
        notes.append("features of users are not used")
    return RawInteractions(rows, texts, tuple(notes))


def _typed(path: Path, head: str) -> tuple[str, str]:
    name, colon, kind = head.strip().rpartition(":")
    if not colon or not name:
        raise UserError(
            f"{path}, line 1: column {head!r} has no type; expected 'name:type' with one of the "
            f"types {', '.join(TYPES)}."
        )
    if kind not in TYPES:
        raise unknown("type", kind, TYPES, where=f"of column {name!r} in {path}, line 1")
    return name, kind


def _value(path: Path, line: int, name: str, kind: str, cell: str):
    if kind == "token":
        return cell.strip()
    if kind == "token_seq":
        return tuple(cell.split())
    if kind == "float":
        return number_in(path, line, name, cell) if cell.strip() else float("nan")
    return tuple(number_in(path, line, name, word) for word in cell.split())


def _interactions(table: AtomicTable, said: Mapping[str, str] | None) -> tuple[Rows, str | None]:
    """The rows, and what their column of times is called; None where they have none."""
    users, items = _named(table, "user", said), _named(table, "item", said)
    time, rating, kind = (
        column_of(role, table.types, table.path, said) for role in ("time", "rating", "kind")
    )
    kinds = None if kind is None else _named(table, "kind", said)
    return Rows(users, items, _floats(table, time), _floats(table, rating), kinds=kinds), time


def _named(table: AtomicTable, role: str, said: Mapping[str, str] | None) -> list[str]:
    name = column_of(role, table.types, table.path, said)
    if name is None:
        raise no_column(role, table.types, f"{table.path}, line 1", f"{role}_id")
    cells = zip(table.lines, table.column(name, "token"), strict=True)
    return [name_in(table.path, line, name, cell) for line, cell in cells]


def _list_of(table: AtomicTable, said: Mapping[str, str] | None) -> str | None:
    """The column of what was taken before, or None."""
    name = column_of("history", table.types, table.path, said)
    return name if name is not None and table.types[name] == "token_seq" else None


def _unrolled(tables: Sequence[AtomicTable], said: Mapping[str, str] | None) -> Rows:
    """Each item once, in the order in which its user took them.

    A user's first row says what came before it, which is learned from; the lists of later rows (cut
    to the newest items, perhaps) say it again.

    Raises:
      UserError: for a list that does not end as the user's row before.
    """
    taken: dict[str, list[str]] = {}
    parts: dict[str, list[int]] = {}
    for part, table in enumerate(tables):
        name = _list_of(table, said) or ""
        users, items = _named(table, "user", said), _named(table, "item", said)
        rows = zip(table.lines, users, items, table.columns[name], strict=True)
        for line, user, item, before in rows:
            known = taken.setdefault(user, list(before))
            own = parts.setdefault(user, [0] * len(before))
            length = min(len(known), len(before))
            if known[len(known) - length :] != list(before[len(before) - length :]) or (
                known and not before
            ):
                raise UserError(
                    f"{table.path}, line {line}: {name} of user {user!r} does not go on from the "
                    "user's row before; expected rows in order of time, each list ending with "
                    "the item before."
                )
            known.append(item)
            own.append(part)
    return Rows(
        users=[user for user, items in taken.items() for _ in items],
        items=[item for items in taken.values() for item in items],
        parts_N=np.concatenate(list(parts.values())) if len(tables) > 1 else None,
    )


def _floats(table: AtomicTable, column: str | None) -> np.ndarray | None:
    if column is None:
        return None
    values = np.array(table.column(column, "float"))
    empty = np.flatnonzero(np.isnan(values))
    if len(empty):
        line = table.lines[int(empty[0])]
        raise UserError(
            f"{table.path}, line {line}: column {column!r} is empty; expected a number."
        )
    return values


def _texts(table: AtomicTable) -> dict[str, str] | None:
    words = {name: table.columns[name] for name, kind in table.types.items() if kind == "token_seq"}
    items = table.column("item_id", "token")
    if not words:
        return None
    texts: dict[str, str] = {}
    for row, (line, item) in enumerate(zip(table.lines, items, strict=True)):
        if item in texts:
            raise UserError(f"{table.path}, line {line}: item {item!r} occurs a second time.")
        texts[item] = join_texts([" ".join(words[name][row]) for name in words])
    return texts
