"""What a table shows and from which runs: kept as ``table.json`` beside the ledger."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from distill_jax.core.errors import UserError
from distill_jax.sweeps.table import Column
from distill_jax.sweeps.trends import Trend


@dataclass(frozen=True)
class Place:
    """Where a run stands. One run may stand at several places: it is trained once.

    Attributes:
      row, group, seed: the table's row, its block or column, and the seed.
      hash: of the run, in the ledger.
    """

    row: str
    group: str
    seed: int
    hash: str


@dataclass(frozen=True)
class TableSpec:
    """A table without its numbers: with the ledger it gives every output anew.

    Attributes:
      name: of the experiment.
      title: a heading, for people.
      layout: ``metrics``: a block of rows a group, a column a metric; ``grid``: rows x groups of
        the first column's metric.
      columns: metrics.
      baseline: the row that the others of its group are tested against.
      places: of the students, in the order of the table.
      teachers: the same for the teachers.
      tested: keys of the columns that are tested.
      published: name of a set of published numbers that stand beside the measured ones.
      trends: what a paper says and this table may hold or not.
      protocol: sentences: how the numbers came about.
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
    trends: tuple[Trend, ...] = ()
    protocol: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As JSON, for people too."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)

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
            fields["teachers"] = tuple(Place(**place) for place in fields["teachers"])
            fields["trends"] = tuple(Trend.from_dict(trend) for trend in fields["trends"])
            fields["tested"] = tuple(fields["tested"])
            fields["protocol"] = tuple(fields["protocol"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"this is not the description of a table: {error}") from error
