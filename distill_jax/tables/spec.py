"""What a table shows and from which runs: kept as ``table.json`` beside the ledger."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.tables.columns import Column
from distill_jax.tables.trends import Trend

Where = tuple[str, str, int, str]
"""(row, group, seed, candidate)."""


@dataclass(frozen=True)
class Place:
    """Where a run stands. One run may stand at several places: it is trained once.

    Attributes:
      row, group, seed: the table's row, its block or column, and the seed.
      hash: of the run, in the ledger.
      candidate: which of the row's settings it has, where one of several is chosen on validation.
    """

    row: str
    group: str
    seed: int
    hash: str
    candidate: str = ""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def where(self) -> Where:
        """All but the run."""
        return self.row, self.group, self.seed, self.candidate


@dataclass(frozen=True)
class TableSpec:
    """A table without its numbers: with the ledger it gives every output anew.

    Attributes:
      name: of the experiment.
      title: a heading, for people.
      layout: ``metrics``: a block of rows a group, a column a metric; ``grid``: rows x groups of
        the first column's metric.
      columns: metrics; one that no run has a number for is left out of the table.
      baseline: the row that the others of its group are tested against.
      places: of the students, in the order of the table.
      teachers: the same for the teachers.
      yardsticks: the same for what the labels give without a teacher.
      tested: keys of the columns that are tested.
      published: name of a set of published numbers that stand beside the measured ones.
      published_rows: (row here, row there) where the two have different names; others stand
        beside the row of their own label.
      trends: what a paper says and this table may hold or not.
      protocol: sentences: how the numbers came about.
      against: ``baseline``: every other row of a group stands against its baseline row; ``best``:
        against the best row of its group, where all pairs are tested and corrected for, and
        letters say which differ.
    """

    name: str
    title: str
    layout: Literal["metrics", "grid"]
    columns: tuple[Column, ...]
    baseline: str
    places: tuple[Place, ...]
    teachers: tuple[Place, ...] = ()
    tested: tuple[str, ...] = ("test/accuracy",)
    group_title: str = "student"
    row_title: str = "objective"
    published: str | None = None
    published_rows: tuple[tuple[str, str], ...] = ()
    trends: tuple[Trend, ...] = ()
    protocol: tuple[str, ...] = ()
    against: Literal["baseline", "best"] = "baseline"
    yardsticks: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.columns:
            raise UserError(f"table {self.name} has no columns.")
        for places in (self.places, self.teachers, self.yardsticks):
            once = {(p.row, p.group, p.candidate, p.hash) for p in set(places)}
            if len(once) < len(set(places)):
                raise UserError(
                    f"table {self.name}: one run stands at two seeds of one entry; it would count "
                    "twice in the mean."
                )

    @property
    def hashes(self) -> tuple[str, ...]:
        """Of all runs, each once, in the order of the table."""
        places = (*self.teachers, *self.yardsticks, *self.places)
        return tuple(dict.fromkeys(place.hash for place in places))

    @property
    def figure_key(self) -> str:
        """The column that the figure shows."""
        if self.layout == "grid" or not self.tested:
            return self.columns[0].key
        return self.tested[0]

    def to_json(self) -> str:
        """As JSON, for people too."""
        fields = dataclasses.asdict(self)
        if not self.yardsticks:  # tables from before they were stay as they are
            del fields["yardsticks"]
        for place in (*fields["places"], *fields["teachers"], *fields.get("yardsticks", ())):
            if not place["candidate"]:  # where nothing is chosen, nothing is said of it
                del place["candidate"]
        return json.dumps(fields, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "TableSpec":
        """Read again what ``to_json`` wrote.

        Raises:
          UserError: when it is something else.
        """
        try:
            fields: dict[str, Any] = json.loads(text)
            fields["columns"] = tuple(Column(**column) for column in fields["columns"])
            fields["places"] = tuple(Place(**place) for place in fields["places"])
            for name in ("teachers", "yardsticks"):
                fields[name] = tuple(Place(**place) for place in fields.get(name, ()))
            fields["trends"] = tuple(Trend.from_dict(trend) for trend in fields.get("trends", ()))
            pairs = fields.get("published_rows", ())
            fields["published_rows"] = tuple((here, there) for here, there in pairs)
            for name in ("tested", "protocol"):
                if name in fields:
                    fields[name] = tuple(fields[name])
            return cls(**fields)
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise UserError(f"this is not the description of a table: {error}") from error
