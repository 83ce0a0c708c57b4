"""A table as text in cells: what Markdown, LaTeX, the terminal and the report have in common."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from distill_jax.tables.columns import Column
from distill_jax.tables.published import Published
from distill_jax.tables.statistics import PairedTest
from distill_jax.tables.table import Entry, Table, TableRow

MISSING = "–"
MAX_ACROSS = 8
"""Groups of a grid that stand side by side."""


@dataclass(frozen=True)
class SheetCell:
    """Text of one cell; bold where it is significantly better."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Line:
    """One line; lines of one section stand together."""

    section: str
    cells: tuple[SheetCell, ...]


@dataclass(frozen=True)
class Sheet:
    """Lines of cells with a heading.

    Attributes:
      heading: titles of the columns.
      lines: as many cells as the heading has.
      labels: so many leading columns are labels, the others numbers.
      repeated: so many leading columns tell a reader which line it is.
      lead: sentences above.
    """

    heading: tuple[str, ...]
    lines: tuple[Line, ...]
    labels: int
    repeated: int
    lead: tuple[str, ...] = ()

    def only(self, columns: Sequence[int]) -> "Sheet":
        """These columns alone."""
        lines = [Line(line.section, tuple(line.cells[n] for n in columns)) for line in self.lines]
        heading = tuple(self.heading[n] for n in columns)
        return replace(self, heading=heading, lines=tuple(lines))

    def without_empty(self) -> "Sheet":
        """The same without the columns of numbers in which no line has any."""
        first = max(self.repeated, self.labels)
        filled = [
            n
            for n in range(first, len(self.heading))
            if any(line.cells[n].text not in ("", MISSING) for line in self.lines)
        ]
        return self.only([*range(first), *filled])

    def blocks(self, widths: Sequence[int], room: int) -> list[list[int]]:
        """Which columns fit side by side, block by block, the repeated ones first in each.

        Args:
          widths: of all columns, gaps included.
          room: of a block; one with a single column after the repeated ones may be wider.
        """
        repeated = list(range(self.repeated))
        blocks, used = [[*repeated]], 0
        for n in range(self.repeated, len(self.heading)):
            if blocks[-1] != repeated and used + widths[n] > room - sum(widths[: self.repeated]):
                blocks.append([*repeated])
                used = 0
            blocks[-1].append(n)
            used += widths[n]
        return blocks


def text_sheet(
    heading: Sequence[str], rows: Iterable[Sequence[str]], labels: int, repeated: int
) -> Sheet:
    """A sheet of plain text, see ``Sheet``."""
    lines = tuple(Line("", tuple(map(SheetCell, cells))) for cells in rows)
    return Sheet(tuple(heading), lines, labels, repeated)


def sheets_of(table: Table) -> list[Sheet]:
    """The table itself, then the published numbers that have no column in it."""
    main = _grid(table) if table.spec.layout == "grid" else _metrics(table)
    published = _published(table)
    return [main, published] if published else [main]


def every_test(table: Table) -> Sheet | None:
    """Every comparison that was tested, in numbers; None where there is none."""
    lines = []
    for c in table.comparisons:
        column, row, other = table.column(c.key), table.rows[c.line], table.rows[c.other]
        tests, bold = c.tests, c.tests.different
        cells = [row.group, f"{row.row} − {other.row}", column.title, str(tests.seeds.n)]
        cells += [_interval(tests.joint, column), _p(tests.p_joint)]
        cells += [_interval(tests.seeds, column), _p(tests.p_seeds)]
        cells += [_interval(tests.examples, column), _p(tests.p_examples)]
        lines.append(
            Line(row.group, tuple(SheetCell(t, bold and i > 3) for i, t in enumerate(cells)))
        )
    heading = (
        *(table.spec.group_title, table.spec.row_title, "metric", "pairs of seeds", "Δ [95%]", "p"),
        *("Δ [95%, seeds]", "p seeds", "Δ [95%, examples]", "p examples"),
    )
    return Sheet(heading, tuple(lines), 3, 3) if lines else None


def sources_of(published: Published) -> Sheet:
    """Where each published number stands, and where it was read."""
    rows = [
        (n.row, n.column, n.metric, n.split, n.paper, n.table, n.read_in, n.remark)
        for n in published.numbers
    ]
    heading = ("row", "column", "metric", "split", "paper", "where", "read in", "remark")
    return text_sheet(heading, rows, labels=len(heading), repeated=2)


def format_entry(entry: Entry, column: Column, *, seeds: int) -> str:
    """An entry as text: ``73.5 ± 0.4``; says how many seeds stand behind it if not all do."""
    summary = entry.summary
    if summary.n == 0:
        return MISSING
    if math.isnan(summary.mean):
        return "nan"

    def show(value: float) -> str:
        return f"{value * column.scale:,.{column.decimals}f}"

    text = show(summary.mean)
    if column.kind == "mean_sd" and summary.n > 1:
        text = f"{text} ± {show(summary.sd)}"
    if column.kind == "value":
        low, high = min(entry.by_seed.values()), max(entry.by_seed.values())
        text = show(low) if show(low) == show(high) else f"{show(low)} to {show(high)}"
    return text if summary.n == seeds else f"{text} (n={summary.n})"


def show(row: TableRow, column: Column) -> str:
    """A row's entry in a column as text."""
    return format_entry(row.entries[column.key], column, seeds=len(row.seeds))


def outside_grid(table: Table, column: Column) -> list[str]:
    """A sentence for each teacher and yardstick that stands in no group of a grid."""
    rows = [*(row for row in table.teachers if row.group not in table.groups), *table.yardsticks]
    return [f"{row.row} {row.group}: {show(row, column)}" for row in rows]


def format_p(p: float) -> str:
    """A p value with three digits, never as 0."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _metrics(table: Table) -> Sheet:
    """A line for each row of each group, a column for each metric."""
    heading = [table.spec.group_title, table.spec.row_title, "seeds"]
    extras = {column.key: _test_columns(table, column.key) for column in table.columns}
    for column in table.columns:
        heading += [column.title, *extras[column.key]]
    published = table.published
    matched = published is not None and any(
        _published_label(table, row.row) in published.rows for row in table.students
    )
    if published is not None and matched:
        heading += [f"{published.title}: {name}" for name in published.columns]
    lines = []
    for row in table.rows:
        cells = [SheetCell(row.group), SheetCell(row.row), SheetCell(str(len(row.seeds)))]
        for column in table.columns:
            entry = row.entries[column.key]
            cells.append(SheetCell(show(row, column), entry.bold(column.higher_is_better)))
            cells += [SheetCell(_test_text(entry, column, name)) for name in extras[column.key]]
        if published is not None and matched:
            cells += _published_cells(published, _published_label(table, row.row))
        section = f"group {row.group}" if row.is_student else row.role
        lines.append(Line(section, tuple(cells)))
    return Sheet(tuple(heading), tuple(lines), labels=2, repeated=3)


def _grid(table: Table) -> Sheet:
    """Rows x groups of the first column's metric; teachers of a group stand with it.

    Where groups are many they are the lines, so that the sheet stays narrow.
    """
    column, groups = table.columns[0], list(table.groups)
    inside = [row for row in table.teachers if row.group in groups]
    rows = list(dict.fromkeys((row.role == "teacher", row.row) for row in inside))
    rows += dict.fromkeys((False, row.row) for row in table.students)
    cells = _grid_cells(table, column)
    if len(groups) > MAX_ACROSS and len(groups) > len(rows):
        heading = (table.spec.group_title, *(label for _, label in rows))
        lines = [
            Line("", (SheetCell(group), *(cells.get((row, group), SheetCell("")) for row in rows)))
            for group in groups
        ]
        down_title, across_title = table.spec.group_title, table.spec.row_title
    else:
        heading = (table.spec.row_title, *groups)
        lines = [
            Line(
                "teacher" if row[0] else "",
                (SheetCell(row[1]), *(cells.get((row, group), SheetCell("")) for group in groups)),
            )
            for row in rows
        ]
        down_title, across_title = table.spec.row_title, table.spec.group_title
    lead = [f"{column.title}, by {down_title} (rows) and {across_title} (columns)."]
    lead += outside_grid(table, column)
    return Sheet(heading, tuple(lines), labels=1, repeated=1, lead=tuple(lead))


def _grid_cells(table: Table, column: Column) -> dict[tuple[tuple[bool, str], str], SheetCell]:
    """((whether a teacher, row), group) -> cell."""
    seeds = max((len(row.seeds) for row in table.students), default=0)
    cells = {}
    for row in table.rows:
        entry, teacher = row.entries[column.key], row.role == "teacher"
        text = format_entry(entry, column, seeds=len(row.seeds) if teacher else seeds)
        text += f" {entry.letters}" if entry.letters else ""
        bold = entry.bold(column.higher_is_better)
        cells[(teacher, row.row), row.group] = SheetCell(text, bold)
    return cells


def _published(table: Table) -> Sheet | None:
    """Published rows that the table above does not show."""
    published = table.published
    if published is None:
        return None
    shown = (
        {_published_label(table, row.row) for row in table.students}
        if table.spec.layout == "metrics"
        else set()
    )
    lines = [
        Line("", (SheetCell(label), *_published_cells(published, label)))
        for label in published.rows
        if label not in shown
    ]
    heading = (table.spec.row_title, *published.columns)
    lead = (f"{published.title}, as published ({published.source}):",)
    return Sheet(heading, tuple(lines), labels=1, repeated=1, lead=lead) if lines else None


def _published_label(table: Table, row: str) -> str:
    return dict(table.spec.published_rows).get(row, row)


def _published_cells(published: Published, label: str) -> list[SheetCell]:
    shown = {
        number.column: f"{number.value}" + (f" ± {number.spread}" if number.spread else "")
        for number in published.numbers
        if number.row == label
    }
    return [SheetCell(shown.get(name, MISSING)) for name in published.columns]


def _test_columns(table: Table, key: str) -> tuple[str, ...]:
    """Which columns about tests follow a metric's."""
    entries = [row.entries[key] for row in table.rows]
    tests = [entry.tests for entry in entries if entry.tests]
    letters = ("differ",) if any(entry.letters for entry in entries) else ()
    if any(test.joint for test in tests):
        return (*letters, "Δ [95%]", "p", "p seeds", "p examples")
    return ("p seeds",) if tests else ()


def _test_text(entry: Entry, column: Column, name: str) -> str:
    if name == "differ":
        return entry.letters or MISSING
    tests = entry.tests
    if tests is None:
        return MISSING
    if name == "Δ [95%]":
        return _interval(tests.joint, column)
    ps = {"p": tests.p_joint, "p seeds": tests.p_seeds, "p examples": tests.p_examples}
    return _p(ps[name])


def _p(p: float | None) -> str:
    return MISSING if p is None else format_p(p)


def _interval(test: PairedTest | None, column: Column) -> str:
    if test is None:
        return MISSING
    difference, low, high = (
        f"{value * column.scale:+.{column.decimals}f}"
        for value in (test.difference, test.low, test.high)
    )
    return f"{difference} [{low}, {high}]"
