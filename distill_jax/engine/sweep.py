"""A table as an object: rows x columns x seeds, each a change of one base cell."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as all_combinations
from typing import Any, Generic, Literal

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.fields import check_fields
from distill_jax.engine.cell import Cell, SetupT, changed
from distill_jax.tables.columns import Column
from distill_jax.tables.spec import Place, TableSpec, Where
from distill_jax.tables.trends import Trend


@dataclass(frozen=True)
class Point:
    """A label and what it changes: paths in a ``Cell``, see ``cell.changed``, and their values.

    Attributes:
      label: of the row or group.
      changes: (path, value).
      candidates: further changes, one of which is chosen on validation: all are run, the best one's
        runs stand in the table (rows only).
    """

    label: str
    changes: tuple[tuple[str, Any], ...] = ()
    candidates: "tuple[Point, ...]" = ()


Axis = tuple[Point, ...]


def axis(path: str, values: Mapping[str, Any] | Iterable[Any]) -> Axis:
    """Points that change one field: ``axis("objective", ["ce", "kl"])``.

    Args:
      path: dotted, e.g. ``training.optimizer.learning_rate``.
      values: values that are their own labels, or label -> value.
    """
    pairs = values.items() if isinstance(values, Mapping) else ((str(v), v) for v in values)
    return tuple(Point(label, ((path, value),)) for label, value in pairs)


def points(changes: Mapping[str, Mapping[str, Any]]) -> Axis:
    """Points that change several fields: label -> path -> value."""
    return tuple(Point(label, tuple(fields.items())) for label, fields in changes.items())


def product(*axes: Axis) -> Axis:
    """Every combination of points, the last axis fastest."""
    return tuple(_join(combination) for combination in all_combinations(*axes))


def zipped(*axes: Axis) -> Axis:
    """First with first, second with second.

    Raises:
      UserError: when the axes differ in length.
    """
    if len({len(each) for each in axes}) > 1:
        raise UserError(f"axes of {', '.join(str(len(a)) for a in axes)} points cannot be zipped")
    return tuple(_join(combination) for combination in zip(*axes, strict=True))


@dataclass(frozen=True)
class Override:
    """Changes made last, where row and group are the named ones (None: any)."""

    changes: tuple[tuple[str, Any], ...]
    row: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Entry(Generic[SetupT]):
    """A cell and the place it stands in; ``candidate`` as in ``Place``."""

    row: str
    group: str
    cell: Cell[SetupT]
    candidate: str = ""

    @property
    def where(self) -> Where:
        """See ``Place.where``."""
        return self.row, self.group, self.cell.seed, self.candidate

    @property
    def place(self) -> Place:
        """Where its run stands, once the cell has a hash."""
        return Place(self.row, self.group, self.cell.seed, self.cell.hash, self.candidate)

    @property
    def label(self) -> str:
        """Of the row; of a candidate with its name."""
        return f"{self.row}: {self.candidate}" if self.candidate else self.row

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.group}  {self.label}  seed {self.cell.seed}"


@dataclass(frozen=True)
class Sweep(Generic[SetupT]):
    """A whole table, declared: nothing here runs.

    Attributes:
      name: of the experiment.
      title: for people.
      base: the cell that every entry changes.
      rows, groups: the axes; a group is a block of rows, or a column of a grid.
      seeds: one run each.
      columns: metrics to show.
      baseline: label of the row that others are tested against, within each group; None for the
        first.
      teacher_seeds, label_seeds: of the teacher's training and of the draw of the labels: the
        i-th seed has the i-th of each, from the start again when they run out; () leaves it to the
        cells, where one teacher and one draw serve all seeds.
      overrides: exceptions.
      references: names of what stands beside the students without hearing the teacher: majority
        class and TF-IDF, popularity and EASE. Each task knows its own.
      tested, layout, group_title, row_title, published, published_rows, trends, protocol: see
        ``TableSpec``.
    """

    name: str
    title: str
    base: Cell[SetupT]
    rows: Axis
    groups: Axis
    seeds: tuple[int, ...]
    columns: tuple[Column, ...]
    baseline: str | None = None
    teacher_seeds: tuple[int, ...] = ()
    label_seeds: tuple[int, ...] = ()
    overrides: tuple[Override, ...] = ()
    references: tuple[str, ...] = ()
    tested: tuple[str, ...] = ("test/accuracy",)
    layout: Literal["metrics", "grid"] = "metrics"
    group_title: str = "student"
    row_title: str = "objective"
    published: str | None = None
    published_rows: tuple[tuple[str, str], ...] = ()
    trends: tuple[Trend, ...] = ()
    protocol: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for kind, given in (
            (f"{self.row_title}s", [p.label for p in self.rows]),
            (f"{self.group_title}s", [p.label for p in self.groups]),
            ("seeds", list(self.seeds)),
            ("teacher seeds", list(self.teacher_seeds)),
            ("label seeds", list(self.label_seeds)),
        ):
            if not given and kind not in ("teacher seeds", "label seeds"):
                raise UserError(f"no {kind} given")
            if len(set(given)) != len(given):
                raise UserError(f"the {kind} repeat themselves: {', '.join(map(str, given))}")
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise UserError("seeds are from 0 to 4294967295")
        if self.baseline is not None and self.baseline not in {p.label for p in self.rows}:
            raise unknown("baseline", self.baseline, [p.label for p in self.rows])
        self._check_candidates()
        self._check_overrides()

    def _check_candidates(self) -> None:
        if any(point.candidates for point in self.groups):
            raise UserError(f"the {self.group_title}s of a table cannot have candidates, rows can")
        for row in self.rows:
            names = [point.label for point in row.candidates]
            if len(set(names)) < len(names) or not all(names):
                raise UserError(f"row {row.label!r}: its candidates need names of their own")
            if len(names) == 1:
                raise UserError(f"row {row.label!r} has one candidate: nothing to choose from")
            if any(point.candidates for point in row.candidates):
                raise UserError(f"row {row.label!r}: a candidate cannot have candidates")

    def _check_overrides(self) -> None:
        for override in self.overrides:
            for what, name, axis_ in (
                ("row", override.row, self.rows),
                ("group", override.group, self.groups),
            ):
                if name is not None and name not in {p.label for p in axis_}:
                    raise unknown(f"{what} in an override", name, [p.label for p in axis_])

    def entries(self) -> tuple[Entry[SetupT], ...]:
        """Every entry, seeds innermost, cells in canonical form."""
        entries = []
        for group in self.groups:
            for row in self.rows:
                for candidate in row.candidates or (Point(""),):
                    changes = (*group.changes, *row.changes, *candidate.changes)
                    cell = changed(self.base, changes)
                    for override in self._overrides_of(row, group):
                        cell = changed(cell, override.changes)
                    if cell.steps:
                        raise UserError(
                            "the students of a table are trained and no more; what is done to "
                            "them afterwards (prune, int8) is for distill-jax compress"
                        )
                    entries += [
                        Entry(row.label, group.label, each.setup.settled(each), candidate.label)
                        for each in self._seeded(cell)
                    ]
        return tuple(entries)

    def _seeded(self, cell: Cell[SetupT]) -> list[Cell[SetupT]]:
        """The cell with each seed, and the teacher and the labels that go with it."""
        cells = []
        for index, seed in enumerate(self.seeds):
            changes: list[tuple[str, Any]] = [("seed", seed)]
            for path, seeds in (
                ("teacher.seed", self.teacher_seeds),
                ("data.label_seed", self.label_seeds),
            ):
                if seeds:
                    changes.append((path, seeds[index % len(seeds)]))
            cells.append(changed(cell, changes))
        return cells

    def _overrides_of(self, row: Point, group: Point) -> list[Override]:
        return [
            override
            for override in self.overrides
            if override.row in (None, row.label) and override.group in (None, group.label)
        ]

    def spec(self, places: Sequence[Place]) -> TableSpec:
        """The table's description, now that the runs have hashes; its task adds the rest."""
        return TableSpec(
            name=self.name,
            title=self.title,
            layout=self.layout,
            columns=self.columns,
            baseline=self.rows[0].label if self.baseline is None else self.baseline,
            places=tuple(places),
            tested=self.tested,
            group_title=self.group_title,
            row_title=self.row_title,
            published=self.published,
            published_rows=self.published_rows,
            trends=self.trends,
            protocol=self.protocol,
        )


def distinct(entries: Iterable[Entry[SetupT]]) -> list[Cell[SetupT]]:
    """The cells that differ in more than the seed."""
    return list({repr(cell := entry.cell.but(seed=0)): cell for entry in entries}.values())


def objectives_told(entries: Iterable[Entry[SetupT]]) -> tuple[str, ...]:
    """A sentence on what the rows train with whose labels do not say it; none where all do."""
    told: dict[str, str] = {}
    for entry in entries:
        stages = " then ".join(entry.cell.objectives)
        if stages != entry.label:
            told.setdefault(entry.label, stages)
    if not told:
        return ()
    rows = "; ".join(f"{label} = {stages}" for label, stages in told.items())
    return (f"Objectives: {rows}.",)


def _join(combination: Sequence[Point]) -> Point:
    label = ", ".join(point.label for point in combination if point.label)
    changes = tuple(change for point in combination for change in point.changes)
    chosen = [point.candidates for point in combination if point.candidates]
    return Point(label, changes, product(*chosen) if chosen else ())
