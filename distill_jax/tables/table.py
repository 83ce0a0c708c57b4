"""A table from ledger rows: means, spreads, paired tests, footnotes.

The table is plain data; Markdown, LaTeX, CSV, the terminal, the figures and the report are
views of it.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from distill_jax.core.errors import UserError, unknown
from distill_jax.tables.columns import Column as Column
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.notes import notes_of
from distill_jax.tables.significance import (
    KINDS,
    Comparison,
    Tests,
    add_tests,
    compare_rows,
    reference,
)
from distill_jax.tables.statistics import Summary, summarise

if TYPE_CHECKING:
    from distill_jax.tables.published import Published
    from distill_jax.tables.terminal import TerminalTable

Against = Literal["baseline", "best"]
_TEST_FIELDS = ("n", "difference", "ci95_low", "ci95_high", "p_raw", "p_holm")
CSV_FIELDS = (
    *("group", "row", "role", "metric", "n", "mean", "sd", "ci95_low", "ci95_high", "against"),
    *(f"{kind}_{name}" for kind in KINDS for name in _TEST_FIELDS),
    *("joint_se", "joint_df", "letters"),
)
Role = Literal["teacher", "yardstick", "baseline", "compared"]
Where = tuple[str, str]
"""(group, row)."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of the table, in raw (unscaled) units.

    Attributes:
      by_seed: seed -> score.
      summary: over the seeds.
      tests: against the baseline of the same group, or the best row of it; None where there are
        none.
      letters: where all pairs of a group are tested: rows without a common letter differ.
    """

    by_seed: Mapping[int, float]
    summary: Summary
    tests: Tests | None = None
    letters: str = ""

    def bold(self, higher_is_better: bool | None) -> bool:
        """Whether it is better than the baseline by the joint test at 5%.

        Where rows stand against the best one instead: whether it is not worse than that.
        """
        if self.letters:
            return "a" in self.letters
        joint = self.tests.joint if self.tests and self.tests.different else None
        if joint is None or higher_is_better is None:
            return False
        return joint.difference > 0 if higher_is_better else joint.difference < 0


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One line: all runs of one row label in one group.

    Attributes:
      group, row: where it stands.
      role: teachers and yardsticks are never tested, the others of a group are compared with its
        baseline.
      runs: seed -> run, by rising seed.
      entries: key of the column -> entry.
    """

    group: str
    row: str
    role: Role
    runs: Mapping[int, LedgerRow]
    entries: Mapping[str, Entry]

    @property
    def is_student(self) -> bool:
        """Whether it is neither a teacher nor a yardstick."""
        return self.role in ("baseline", "compared")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the finished runs."""
        return tuple(self.runs)


@dataclasses.dataclass(frozen=True)
class Table:
    """A finished table; build it with ``build_table`` or ``spec.table_of``."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    baseline: str
    tested: tuple[str, ...]
    notes: tuple[str, ...]
    group_title: str = "student"
    row_title: str = "objective"
    layout: Literal["metrics", "grid"] = "metrics"
    published: "Published | None" = None
    published_rows: Mapping[str, str] = dataclasses.field(default_factory=dict)
    protocol: tuple[str, ...] = ()
    against: Against = "baseline"
    comparisons: tuple[Comparison, ...] = ()
    unfinished: tuple[int, int] = (0, 0)

    @property
    def students(self) -> tuple[TableRow, ...]:
        """The rows beside the teachers' and the yardsticks'."""
        return tuple(row for row in self.rows if row.is_student)

    @property
    def teachers(self) -> tuple[TableRow, ...]:
        """The teachers' rows."""
        return tuple(row for row in self.rows if row.role == "teacher")

    @property
    def yardsticks(self) -> tuple[TableRow, ...]:
        """The rows of what the labels give without a teacher."""
        return tuple(row for row in self.rows if row.role == "yardstick")

    @property
    def groups(self) -> dict[str, list[TableRow]]:
        """The students' rows by group, both in the table's order."""
        groups: dict[str, list[TableRow]] = {}
        for row in self.students:
            groups.setdefault(row.group, []).append(row)
        return groups

    def column(self, key: str) -> Column:
        """The column of this key.

        Raises:
          UserError: if there is none.
        """
        for column in self.columns:
            if column.key == key:
                return column
        raise unknown("column", key, [column.key for column in self.columns])

    def to_markdown(self) -> str:
        """GitHub Markdown with aligned source, footnotes below."""
        from distill_jax.tables.markdown import to_markdown

        return to_markdown(self)

    def to_latex(self, *, caption: str = "", label: str = "") -> str:
        """A floating table in LaTeX; needs the package booktabs."""
        from distill_jax.tables.latex import to_latex

        return to_latex(self, caption=caption, label=label)

    def to_csv(self) -> str:
        """Raw numbers, unscaled and unrounded: a line for each row and column of the table."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(CSV_FIELDS)
        for row in self.rows:
            for column in self.columns:
                entry = row.entries[column.key]
                other = reference(self, row, column.key) if entry.tests else None
                summary = [getattr(entry.summary, f.name) for f in dataclasses.fields(Summary)]
                cells = [*summary, other.row if other else None, *_csv_tests(entry.tests)]
                blank = ["" if x is None or x != x else x for x in cells]
                where = [row.group, row.row, row.role, column.key]
                writer.writerow([*where, *blank, entry.letters])
        return out.getvalue()

    def to_rich(self) -> "TerminalTable":
        """The table for a terminal, as wide as it is: something for ``rich.print``."""
        from distill_jax.tables.terminal import TerminalTable

        return TerminalTable(self)


def build_table(
    rows: Iterable[LedgerRow],
    columns: Sequence[Column],
    *,
    baseline: str,
    teachers: Iterable[LedgerRow] = (),
    yardsticks: Iterable[LedgerRow] = (),
    order: Sequence[Where] = (),
    teacher_order: Sequence[Where] = (),
    yardstick_order: Sequence[Where] = (),
    tested: Sequence[str] = ("test/accuracy",),
    group_title: str = "student",
    row_title: str = "objective",
    layout: Literal["metrics", "grid"] = "metrics",
    published: "Published | None" = None,
    published_rows: Mapping[str, str] | None = None,
    unfinished: tuple[int, int] = (0, 0),
    against: Against = "baseline",
) -> Table:
    """Gather runs into a table with tests against a baseline.

    Within a group, every row is compared with the baseline row of that group: paired by seed, by
    test example, and by both at once where the runs kept what each example contributed. Holm's
    correction runs over all comparisons in the table, for each kind of test.

    Args:
      rows: one per run; of rows with the same hash, row and group the last wins.
      columns: what to show.
      baseline: label of the row that the others of its group are tested against.
      teachers: runs of teachers, shown on top and never tested.
      yardsticks: the same for yardsticks, below the teachers.
      order: (group, row) from top to bottom; one without runs is shown as missing. What is not
        named follows, group by group, in the order in which it appears.
      teacher_order, yardstick_order: the same for the teachers and the yardsticks.
      tested: keys of the columns that are tested.
      group_title, row_title: what groups and rows are, for people.
      layout: see ``TableSpec``.
      published: numbers of a paper, shown beside the measured ones.
      published_rows: label of a row -> label of the published row to show beside it; rows that
        are not named stand beside the one of their own label.
      unfinished: how many runs are not finished, of how many; said below the table.
      against: ``best``: rows stand against the best of their group, all pairs are tested and
        corrected for, and letters say which differ.

    Raises:
      UserError: no rows, no baseline anywhere, an unknown tested key, or two different runs
        that claim the same place and seed.
    """
    columns, tested = tuple(columns), tuple(tested)
    students, teaching, measuring = map(_by_place, (rows, teachers, yardsticks))
    if not students and not teaching and not measuring:
        raise UserError("no results to tabulate: the ledger has no finished run of this table.")
    for key in tested:
        if key not in {column.key for column in columns}:
            raise unknown("tested column", key, [column.key for column in columns])
    places = _ordered(order, students)
    if places and baseline not in {row for _, row in places}:
        raise unknown("baseline row", baseline, {row for _, row in places})
    lines = [
        _gather(where, "teacher", teaching.get(where, {}), columns)
        for where in dict.fromkeys([*teacher_order, *teaching])
    ]
    lines += [
        _gather(where, "yardstick", measuring.get(where, {}), columns)
        for where in dict.fromkeys([*yardstick_order, *measuring])
    ]
    lines += [
        _gather(
            where,
            "baseline" if where[1] == baseline else "compared",
            students.get(where, {}),
            columns,
        )
        for where in places
    ]
    table = Table(
        columns,
        tuple(lines),
        baseline,
        tested,
        (),
        group_title,
        row_title,
        layout,
        published,
        published_rows or {},
        against=against,
        unfinished=unfinished,
    )
    comparisons = tuple(compare_rows(table))
    rows_tested = tuple(add_tests(table, comparisons))
    table = dataclasses.replace(table, rows=rows_tested, comparisons=comparisons)
    return dataclasses.replace(table, notes=notes_of(table, unfinished))


def _by_place(rows: Iterable[LedgerRow]) -> dict[Where, dict[int, LedgerRow]]:
    """Runs by (group, row) in order of appearance, then by seed."""
    latest = {(row.hash, row.group, row.row): row for row in rows}
    places: dict[Where, dict[int, LedgerRow]] = {}
    for row in latest.values():
        runs = places.setdefault((row.group, row.row), {})
        if row.seed in runs:
            raise UserError(
                f"two different runs ({runs[row.seed].hash}, {row.hash}) claim row {row.row!r} of "
                f"{row.group!r}, seed {row.seed}: their configurations differ. Tabulate one "
                "experiment and one setting at a time."
            )
        runs[row.seed] = row
    return {where: dict(sorted(runs.items())) for where, runs in places.items()}


def _ordered(order: Sequence[Where], found: Iterable[Where]) -> list[Where]:
    """What was asked for, then what was found; groups stay together."""
    places = list(dict.fromkeys([*order, *found]))
    groups = list(dict.fromkeys(group for group, _ in places))
    return sorted(places, key=lambda place: groups.index(place[0]))


def _gather(
    where: Where, role: Role, runs: Mapping[int, LedgerRow], columns: Sequence[Column]
) -> TableRow:
    entries = {}
    for column in columns:
        numbers = {seed: run.number(column.key) for seed, run in runs.items()}
        scores = {seed: float(value) for seed, value in numbers.items() if value is not None}
        entries[column.key] = Entry(scores, summarise(list(scores.values())))
    return TableRow(*where, role, runs, entries)


def _csv_tests(tests: Tests | None) -> list[float | None]:
    """The numbers of the three tests, in the order of ``CSV_FIELDS``."""
    numbers: list[float | None] = []
    for kind in KINDS:
        test = getattr(tests, kind) if tests else None
        found = [test.n, test.difference, test.low, test.high, test.p] if test else [None] * 5
        numbers += [*found, getattr(tests, f"p_{kind}") if test else None]
    joint = tests.joint if tests else None
    return [*numbers, *([joint.se, joint.df] if joint else [None, None])]
