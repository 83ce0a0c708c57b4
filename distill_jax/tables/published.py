"""Numbers of papers, kept as data beside the code and never mixed with measured ones.

Each number says its paper, table, metric and split, and in which public text it was read; a
number that could not be read anywhere is not there. A TOML file a set, in ``published_numbers/``.
"""

import functools
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.fields import check_fields

_FOLDER = resources.files("distill_jax.tables") / "published_numbers"
_SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Number:
    """One published number.

    Attributes:
      row, column: its place in the set.
      value: in the unit that the set's title names.
      metric: what was measured.
      split: ``dev`` or ``test``.
      paper: authors, year, title or arXiv number.
      table: where in the paper, or in what was released with it.
      read_in: the public text in which it was read.
      spread: the ± as printed; None where there is none.
      remark: what a reader must know of this number.
    """

    row: str
    column: str
    value: float
    metric: str
    split: str
    paper: str
    table: str
    read_in: str
    spread: float | None = None
    remark: str = ""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Published:
    """A set of published numbers.

    Attributes:
      title: a heading, with the unit.
      source: whose they are.
      remarks: errata, and what differs from the setup here.
      columns: in order.
      numbers: each with its own source.
      task: the data set, ``glue/sst2`` say.
    """

    title: str
    source: str
    remarks: tuple[str, ...]
    columns: tuple[str, ...]
    numbers: tuple[Number, ...]
    task: str

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def rows(self) -> dict[str, dict[str, float]]:
        """Row label -> column -> value, in the order of the file."""
        rows: dict[str, dict[str, float]] = {}
        for number in self.numbers:
            rows.setdefault(number.row, {})[number.column] = number.value
        return rows


def names() -> tuple[str, ...]:
    """The sets there are."""
    files = (file.name for file in _FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in files if name.endswith(".toml")))


@functools.cache
def load_published(name: str) -> Published:
    """A set by its name.

    Raises:
      UserError: for a name that is none.
    """
    if name not in names():
        raise unknown("set of published numbers", name, names())
    return parse_published((_FOLDER / f"{name}.toml").read_text("utf-8"), where=f"{name}.toml")


def parse_published(text: str, *, where: str) -> Published:
    """A set from its TOML.

    Args:
      text: with ``title``, ``task``, ``source``, ``columns``, ``remarks``, ``[papers]`` and a
        ``[[numbers]]`` for each number, which names its paper by the key in ``[papers]``.
      where: what the text is, for errors.

    Raises:
      UserError: for missing or unknown fields, an unknown paper, column or split, or a place
        that is taken twice.
    """
    try:
        fields = tomllib.loads(text)
        papers: Mapping[str, str] = fields.pop("papers")
        if not all(isinstance(paper, str) for paper in papers.values()):
            raise TypeError("papers are text")
        numbers = tuple(_number(entry, papers, where) for entry in fields.pop("numbers"))
        columns, remarks = tuple(fields.pop("columns")), tuple(fields.pop("remarks"))
        published = Published(numbers=numbers, columns=columns, remarks=remarks, **fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where} is no set of published numbers: {error}") from error
    unused = set(papers.values()) - {number.paper for number in numbers}
    if unused:
        raise UserError(f"{where}: no number is of {', '.join(sorted(unused))}")
    places = set()
    for number in numbers:
        if number.column not in columns:
            raise unknown("column", number.column, columns, where=f"in {where}")
        if (number.row, number.column) in places:
            raise UserError(f"{where} has two numbers for {number.row!r}, {number.column!r}")
        places.add((number.row, number.column))
    return published


def _number(entry: Mapping[str, Any], papers: Mapping[str, str], where: str) -> Number:
    if entry["paper"] not in papers:
        raise unknown("paper", entry["paper"], papers, where=f"in {where}")
    number = Number(**{**entry, "paper": papers[entry["paper"]]})
    for field in ("row", "metric", "table", "read_in"):
        if not getattr(number, field):
            raise UserError(f"{where}: a number of {number.row!r} does not say its {field}")
    if number.split not in _SPLITS:
        raise unknown("split", number.split, _SPLITS, where=f"in {where}")
    if not math.isfinite(number.value):
        raise UserError(f"{where}: the value of {number.row!r} is not a number")
    return number
