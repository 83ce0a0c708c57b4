"""Fields of items from a table: category, brand, price; each a category or a band of numbers.

A table (CSV, TSV, JSON, JSONL, Parquet) has a column ``item`` and one a field. A field whose cells
are numbers, more than ``BANDS`` different ones, is cut into bands of like many items; any other is
a category by its words. Number 0 of every field is for items of which nothing is known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.errors import UserError
from distill_jax.data.column_names import column_of
from distill_jax.data.file_formats import read_cells, word_in
from distill_jax.data.separated import is_number

BANDS = 10
"""Into so many a field of numbers is cut; one with no more different numbers is of categories."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fields:
    """What a table says of a catalogue.

    Attributes:
      names: C of them, as the table's columns.
      sizes: numbers that each field has, 0 (unknown) among them.
      numbers_IC: int32 [I, C].
      notes: a sentence a field, and on what does not fit.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    numbers_IC: np.ndarray
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of the content."""
        numbers = digest_arrays({"numbers": self.numbers_IC})
        return digest({"names": self.names, "sizes": self.sizes, "numbers": numbers})


def read_item_fields(path: Path, item_names: Sequence[str], first: int | None = None) -> Fields:
    """The fields of a catalogue.

    Args:
      first: words are numbered as those of the first so many items are, of which the catalogue has
        grown; None for all.

    Raises:
      UserError: for a file that is no such table, an item that occurs twice, or none of the
        catalogue's.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: expected a table of items with their fields")
    place = {name: number for number, name in enumerate(item_names)}
    seen: set[str] = set()
    columns: dict[str, list[str]] = {}
    item: str | None = None
    for line, cells in read_cells(path):
        item = item or column_of("item", cells, path)
        if item is None or len(cells) < 2:
            named = ", ".join(map(str, cells))
            raise UserError(f"{path} has columns {named}; expected item, and a column a field.")
        name = word_in(cells.get(item))
        if not name:
            raise UserError(f"{path}, line {line}: column {item!r} is empty; expected an item.")
        if name in seen:
            raise UserError(f"{path}, line {line}: item {name!r} occurs a second time.")
        seen.add(name)
        if name in place:
            for field, cell in cells.items():
                if field != item:
                    column = columns.setdefault(field, [""] * len(item_names))
                    column[place[name]] = word_in(cell)
    if not columns:
        raise UserError(f"{path}: none of its items is in the catalogue ({item_names[0]!r}, ...).")
    made = {field: numbered(words, first) for field, words in columns.items()}
    notes = [f"{path.name}: field {field!r} has {what}" for field, (_, _, what) in made.items()]
    if missing := len(place) - len(seen & place.keys()):
        notes.append(
            f"{missing} of {len(place)} items are not in {path.name}: their fields are unknown"
        )
    numbers_IC = np.stack([numbers for numbers, _, _ in made.values()], axis=1)
    return Fields(tuple(made), tuple(n for _, n, _ in made.values()), numbers_IC, tuple(notes))


def numbered(words: Sequence[str], first: int | None = None) -> tuple[np.ndarray, int, str]:
    """Numbers of a field's words, int32, how many there are with 0 for "", and what that is.

    Numbers are cut at the quantiles of all that are there; a band holds its upper end.

    Args:
      first: quantiles and categories are those of the first so many words; what is no number, or
        no category, of theirs is unknown. None for all.
    """
    there = [word for word in words[:first] if word]
    numbers = np.zeros(len(words), np.int32)
    if len(set(there)) > BANDS and all(map(is_number, there)):
        edges = np.unique(np.quantile([float(word) for word in there], np.arange(1, BANDS) / BANDS))
        known = np.array([bool(word) and is_number(word) for word in words])
        values = np.array([float(word) for word, kept in zip(words, known, strict=True) if kept])
        numbers[known] = 1 + np.searchsorted(edges, values)
        return numbers, len(edges) + 2, f"{len(edges) + 1} bands of numbers"
    place = {word: number for number, word in enumerate(sorted(set(there)), start=1)}
    numbers[:] = [place.get(word, 0) for word in words]
    return numbers, len(place) + 1, f"{len(place)} categories"
