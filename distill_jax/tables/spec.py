"""What a table shows and from which runs: kept as ``table.json`` beside the ledger."""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.tables.columns import Column
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.table import Against, Table, build_table
from distill_jax.tables.trends import Trend

if TYPE_CHECKING:
    from distill_jax.tables.published import Published


SELECT = "validation/accuracy"
"""By the mean of this over the seeds one of a row's candidates is chosen."""
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
      published_rows: (row here, row there) where the two have different names.
      trends: what a paper says and this table may hold or not.
      protocol: sentences: how the numbers came about.
      against: what rows are tested against, see ``table.build_table``.
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
    against: Against = "baseline"
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
        return tuple(dict.fromkeys(place.hash for place in self._all))

    @property
    def _all(self) -> tuple[Place, ...]:
        return *self.teachers, *self.yardsticks, *self.places

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


def place_rows(places: Iterable[Place], rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """Runs under the labels of the places where they stand, in the order of the places.

    Args:
      places: one run may stand at several.
      rows: of the ledger, in any order; a place whose run is not among them is left out.
    """
    by_hash = {row.hash: row for row in rows}
    return [
        dataclasses.replace(by_hash[place.hash], row=place.row, group=place.group, seed=place.seed)
        for place in places
        if place.hash in by_hash
    ]


def table_of(
    spec: TableSpec, rows: Sequence[LedgerRow], published: "Published | None" = None
) -> Table:
    """The table that ``spec`` describes, from the runs of a ledger.

    Args:
      spec: what stands where.
      rows: of the ledger; runs of other tables may be among them.
      published: the numbers that ``spec.published`` names.

    Raises:
      UserError: see ``build_table``.
    """
    finished = {row.hash for row in rows}
    missing = [hash for hash in spec.hashes if hash not in finished]
    teachers, yardsticks = _told_apart(spec.teachers), _told_apart(spec.yardsticks)
    places, choices = _chosen(spec, rows)
    students, teaching = place_rows(places, rows), place_rows(teachers, rows)
    measuring = place_rows(yardsticks, rows)
    table = build_table(
        students,
        _known_columns(spec, [*teaching, *measuring, *students]),
        baseline=spec.baseline,
        teachers=teaching,
        yardsticks=measuring,
        order=[(place.group, place.row) for place in spec.places],
        teacher_order=[(place.group, place.row) for place in teachers],
        yardstick_order=[(place.group, place.row) for place in yardsticks],
        tested=spec.tested,
        group_title=spec.group_title,
        row_title=spec.row_title,
        layout=spec.layout,
        published=published,
        published_rows=dict(spec.published_rows),
        unfinished=(len(missing), len(spec.hashes)),
        against=spec.against,
    )
    return dataclasses.replace(table, protocol=spec.protocol, notes=(*table.notes, *choices))


def _chosen(spec: TableSpec, rows: Sequence[LedgerRow]) -> tuple[list[Place], list[str]]:
    """The places, of a row's candidates those of the best on validation; and notes that say so.

    The test split has no say. Nothing is chosen before every candidate's runs are finished.
    """
    by_hash = {row.hash: row for row in rows}
    settings: dict[tuple[str, str], dict[str, list[Place]]] = {}
    for place in spec.places:
        if place.candidate:
            candidates = settings.setdefault((place.group, place.row), {})
            candidates.setdefault(place.candidate, []).append(place)
    places = [place for place in spec.places if not place.candidate]
    notes = []
    for (group, row), candidates in settings.items():
        title = f"{group} `{row}`"
        runs = [place.hash for own in candidates.values() for place in own]
        if not all(hash in by_hash for hash in runs):
            notes.append(f"{title}: not chosen yet, the runs of its settings are not finished.")
            continue
        means = {
            name: fmean(_selected(by_hash[place.hash]) for place in own)
            for name, own in candidates.items()
        }
        finite = [name for name, mean in means.items() if math.isfinite(mean)]
        if not finite:
            notes.append(f"{title}: nothing chosen, no setting has a finite {SELECT}.")
            continue
        best = max(finite, key=means.__getitem__)
        places += candidates[best]
        tried = "; ".join(f"{name}: {100 * mean:.1f}" for name, mean in means.items())
        notes.append(
            f"{title} is {best}: of {len(means)} settings the best by mean {SELECT}, "
            f"{100 * means[best]:.1f}%. All settings, in %: {tried}."
        )
    return places, notes


def _selected(run: LedgerRow) -> float:
    number = run.number(SELECT)
    return math.nan if number is None else float(number)


def _known_columns(spec: TableSpec, runs: Sequence[LedgerRow]) -> list[Column]:
    """The columns that some run has a number for; the first, and what is tested, always."""
    kept = {spec.columns[0].key, *spec.tested}
    return [
        column
        for column in spec.columns
        if column.key in kept or any(run.number(column.key) is not None for run in runs)
    ]


def _told_apart(places: Sequence[Place]) -> list[Place]:
    """Several of one row, group and seed are no replicates: each gets a row of its own."""
    apart: list[Place] = []
    counts: dict[tuple[str, str, int], int] = {}
    for place in places:
        where = (place.row, place.group, place.seed)
        counts[where] = counts.get(where, 0) + 1
        suffix = f" {counts[where]}" if counts[where] > 1 else ""
        apart.append(dataclasses.replace(place, row=place.row + suffix))
    return apart
