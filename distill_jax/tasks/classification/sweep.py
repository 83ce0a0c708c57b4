"""A table as an object: rows x columns x seeds, each a change of one base cell."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product as all_combinations
from typing import Any, Literal

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.fields import check_fields
from distill_jax.objectives.grammar import parse
from distill_jax.tables.columns import Column
from distill_jax.tables.spec import Place, TableSpec, Where
from distill_jax.tables.trends import Trend
from distill_jax.tasks.classification.cells import Cell, Stage
from distill_jax.tasks.classification.draws import what_was_fixed


@dataclass(frozen=True)
class Point:
    """A label and what it changes: dotted paths of a ``Cell`` and their values.

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
class Entry:
    """A cell and the place it stands in; ``candidate`` as in ``Place``."""

    row: str
    group: str
    cell: Cell
    candidate: str = ""

    @property
    def where(self) -> Where:
        """See ``Place.where``."""
        return self.row, self.group, self.cell.seed, self.candidate

    @property
    def label(self) -> str:
        """Of the row; of a candidate with its name."""
        return f"{self.row}: {self.candidate}" if self.candidate else self.row


@dataclass(frozen=True)
class Sweep:
    """A whole table, declared: nothing here runs.

    Attributes:
      name: of the experiment.
      title: for people.
      base: the cell that every entry changes.
      rows, groups: the axes; a group is a block of rows, or a column of a grid.
      seeds: one run each.
      teacher_seeds, label_seeds: of the teacher's fine-tuning and of the draw of the labels: the
        i-th seed has the i-th of each, from the start again when they run out; () leaves it to the
        cells, where one teacher and one draw serve all seeds.
      baseline: label of the row that others are tested against, within each group.
      columns: metrics to show.
      overrides: exceptions.
      yardsticks: whether what the same labels give without a teacher is measured too.
      layout, group_title, row_title, published, published_rows, trends, protocol: see
        ``TableSpec``.
    """

    name: str
    title: str
    base: Cell
    rows: Axis
    groups: Axis
    seeds: tuple[int, ...]
    baseline: str
    columns: tuple[Column, ...]
    teacher_seeds: tuple[int, ...] = ()
    label_seeds: tuple[int, ...] = ()
    overrides: tuple[Override, ...] = ()
    yardsticks: bool = False
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
        if self.baseline not in {p.label for p in self.rows}:
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

    def entries(self) -> tuple[Entry, ...]:
        """Every entry, seeds innermost, objectives in canonical form."""
        entries = []
        for group in self.groups:
            for row in self.rows:
                for candidate in row.candidates or (Point(""),):
                    changes = (*group.changes, *row.changes, *candidate.changes)
                    cell = changed(self.base, changes)
                    for override in self._overrides_of(row, group):
                        cell = changed(cell, override.changes)
                    cell = _canonical(cell)
                    entries += [
                        Entry(row.label, group.label, each, candidate.label)
                        for each in self._seeded(cell)
                    ]
        if any(self.label_seeds) and not any(e.cell.data.draws_labels for e in entries):
            raise UserError(
                "label seeds are for draws of labels: here all labels are used, as they are"
            )
        return tuple(entries)

    def _seeded(self, cell: Cell) -> list[Cell]:
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

    def spec(
        self,
        places: Sequence[Place],
        teachers: Sequence[Place],
        yardsticks: Sequence[Place] = (),
    ) -> TableSpec:
        """The table's description, now that the runs have hashes."""
        return TableSpec(
            name=self.name,
            title=self.title,
            layout=self.layout,
            columns=self.columns,
            baseline=self.baseline,
            places=tuple(places),
            teachers=tuple(teachers),
            yardsticks=tuple(yardsticks),
            group_title=self.group_title,
            row_title=self.row_title,
            published=self.published,
            published_rows=self.published_rows,
            trends=self.trends,
            protocol=(*self.protocol, what_was_fixed([e.cell for e in self.entries()])),
        )


def changed(cell: Any, changes: Iterable[tuple[str, Any]]) -> Any:
    """A frozen dataclass with fields replaced, by dotted path.

    Raises:
      UserError: for a field that is not there.
    """
    for path, value in changes:
        cell = _replaced(cell, path, path.split("."), value)
    return cell


def _replaced(node: Any, path: str, keys: Sequence[str], value: Any) -> Any:
    names = [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []
    if keys[0] not in names:
        raise unknown(f"field in {path!r}", keys[0], names)
    if len(keys) > 1:
        value = _replaced(getattr(node, keys[0]), path, keys[1:], value)
    return dataclasses.replace(node, **{keys[0]: value})


def _join(combination: Sequence[Point]) -> Point:
    label = ", ".join(point.label for point in combination if point.label)
    changes = tuple(change for point in combination for change in point.changes)
    chosen = [point.candidates for point in combination if point.candidates]
    return Point(label, changes, product(*chosen) if chosen else ())


def _canonical(cell: Cell) -> Cell:
    stage = cell.intermediate
    if stage is not None:
        stage = Stage(str(parse(stage.objective)), stage.training)
    return dataclasses.replace(cell, objective=str(parse(cell.objective)), intermediate=stage)
