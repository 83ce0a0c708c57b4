"""A comparison table from ledger rows: means, spreads, paired tests, footnotes.

The table is plain data; Markdown, CSV, the terminal and the figures are views of it.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from distill_jax.core.errors import UserError, unknown
from distill_jax.sweeps.ledger import LedgerRow
from distill_jax.sweeps.statistics import (
    MIN_PAIRS,
    PairedTest,
    Summary,
    holm,
    paired_test,
    summarise,
)

if TYPE_CHECKING:
    from distill_jax.sweeps.terminal import TerminalTable

SIGNIFICANCE = 0.05
MISSING = "–"
CSV_FIELDS = (
    *("group", "row", "role", "metric", "n", "mean", "sd", "ci95_low", "ci95_high"),
    *("pairs", "difference", "difference_ci95_low", "difference_ci95_high", "p_raw", "p_holm"),
)


@dataclasses.dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
      key: what ``LedgerRow.number`` looks up: ``test/accuracy``, ``seconds/train`` ...
      title: heading, with the unit.
      scale: shown value = raw value * scale; e.g. 100 for percent.
      decimals: digits after the point.
      kind: ``mean_sd`` shows mean and standard deviation over seeds, ``mean`` the mean alone,
        ``value`` a number that is the same for all seeds (a range is shown if it is not).
      higher_is_better: direction; None where there is none. Bold needs a direction.
    """

    key: str
    title: str
    scale: float = 1.0
    decimals: int = 1
    kind: Literal["mean_sd", "mean", "value"] = "mean_sd"
    higher_is_better: bool | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of the table, in raw (unscaled) units.

    Attributes:
      by_seed: seed -> score.
      summary: over the seeds.
      test: against the baseline of the same group; None where there is no test.
      p_holm: the test's p value after Holm's correction.
    """

    by_seed: Mapping[int, float]
    summary: Summary
    test: PairedTest | None = None
    p_holm: float | None = None

    def significant(self, higher_is_better: bool | None) -> bool:
        """Whether it is better than the baseline at 5% after correction."""
        if self.test is None or self.p_holm is None or higher_is_better is None:
            return False
        better = self.test.difference > 0 if higher_is_better else self.test.difference < 0
        return better and self.p_holm < SIGNIFICANCE


@dataclasses.dataclass(frozen=True)
class TableRow:
    """One line: all runs of one row label in one group."""

    group: str
    row: str
    role: Literal["teacher", "baseline", "compared"]
    seeds: tuple[int, ...]
    entries: Mapping[str, Entry]


@dataclasses.dataclass(frozen=True)
class Table:
    """A finished table; build it with ``build_table``."""

    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    tested: tuple[str, ...]
    notes: tuple[str, ...]
    group_title: str = "student"
    row_title: str = "objective"

    def heading(self) -> list[str]:
        """Titles of the columns as shown, each tested column followed by its p value."""
        titles = [self.group_title, self.row_title, "seeds"]
        for column in self.columns:
            titles.append(column.title)
            if column.key in self.tested:
                titles.append("p")
        return titles

    def body(self, bold: str = "**{}**") -> list[list[str]]:
        """The lines as shown; ``bold`` wraps what is significantly better."""
        return [self._line(row, bold) for row in self.rows]

    def _line(self, row: TableRow, bold: str) -> list[str]:
        cells = [row.group, row.row, str(len(row.seeds))]
        for column in self.columns:
            entry = row.entries[column.key]
            text = format_entry(entry, column, seeds=len(row.seeds))
            cells.append(bold.format(text) if entry.significant(column.higher_is_better) else text)
            if column.key in self.tested:
                cells.append(MISSING if entry.p_holm is None else format_p(entry.p_holm))
        return cells

    def to_markdown(self) -> str:
        """GitHub Markdown with aligned source, footnotes below."""
        from rich.cells import cell_len

        lines = [
            [*map(_escape_markdown, line[:2]), *line[2:]] for line in [self.heading(), *self.body()]
        ]
        widths = [max(3, *map(cell_len, column)) for column in zip(*lines, strict=True)]

        def join(cells: Iterable[str]) -> str:
            padded = []
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True)):
                space = " " * (width - cell_len(cell))
                padded.append(cell + space if index < 2 else space + cell)
            return "| " + " | ".join(padded) + " |"

        rule = ["-" * w if i < 2 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        table = "\n".join([join(lines[0]), join(rule), *map(join, lines[1:])])
        notes = "\n".join(f"- {note}" for note in self.notes)
        return f"{table}\n\n{notes}\n" if notes else f"{table}\n"

    def to_csv(self) -> str:
        """Raw numbers, unscaled and unrounded: a line for each row and column of the table."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(CSV_FIELDS)
        for row in self.rows:
            for column in self.columns:
                entry = row.entries[column.key]
                s, t = entry.summary, entry.test
                summary = [s.n, s.mean, s.sd, s.low, s.high]
                test = [t.n, t.difference, t.low, t.high, t.p] if t else [""] * 5
                numbers = [*summary, *test, "" if entry.p_holm is None else entry.p_holm]
                blank = ["" if isinstance(x, float) and math.isnan(x) else x for x in numbers]
                writer.writerow([row.group, row.row, row.role, column.key, *blank])
        return out.getvalue()

    def to_rich(self) -> "TerminalTable":
        """The table for a terminal, as wide as it is: something for ``rich.print``."""
        from distill_jax.sweeps.terminal import TerminalTable

        return TerminalTable(self)


def build_table(
    rows: Iterable[LedgerRow],
    columns: Sequence[Column],
    *,
    baseline: str,
    teacher: str = "teacher",
    group_order: Sequence[str] | None = None,
    row_order: Sequence[str] | None = None,
    tested: Sequence[str] = ("test/accuracy",),
    group_title: str = "student",
    row_title: str = "objective",
) -> Table:
    """Gather ledger rows into a table with tests against a baseline.

    Within a group, every row is compared with the baseline row of that group, paired by seed.
    For each tested column, Holm's correction runs over all comparisons in the table.

    Args:
      rows: one per run; of rows with the same hash the last wins.
      columns: what to show.
      baseline: label of the row that the others of its group are tested against.
      teacher: label of the teacher's row, shown on top and never tested.
      group_order: groups from top to bottom; one without runs is shown as missing. Groups not
        named follow in the order in which they appear.
      row_order: the same for the rows of each group.
      tested: keys of the columns that are tested.

    Raises:
      UserError: no rows, no baseline anywhere, an unknown tested key, or two different runs
        that claim the same place and seed.
    """
    columns = tuple(columns)
    latest = list({row.hash: row for row in rows}.values())
    if not latest:
        raise UserError("no results to tabulate: the ledger has no finished run of this table.")
    for key in tested:
        if key not in {column.key for column in columns}:
            raise unknown("tested column", key, [column.key for column in columns])
    places = _by_place(latest)
    students = [place for place in places if place[1] != teacher]
    if students and baseline not in {label for _, label in students}:
        raise unknown("baseline row", baseline, {label for _, label in students})
    groups = _ordered(group_order, [group for group, _ in students])
    labels = _ordered(row_order, [label for _, label in students])
    order = [place for place in places if place[1] == teacher]
    order += [(group, label) for group in groups for label in labels if label != teacher]

    def role(label: str) -> Literal["teacher", "baseline", "compared"]:
        if label == teacher:
            return "teacher"
        return "baseline" if label == baseline else "compared"

    lines = [
        _gather(group, label, role(label), places.get((group, label), {}), columns)
        for group, label in order
    ]
    for key in tested:
        lines = _test(lines, key)
    notes = _notes(lines, baseline, tuple(tested), columns, group_title)
    return Table(columns, tuple(lines), tuple(tested), notes, group_title, row_title)


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


def format_p(p: float) -> str:
    """A p value to three decimals."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _by_place(rows: Iterable[LedgerRow]) -> dict[tuple[str, str], dict[int, LedgerRow]]:
    """(group, row label) -> seed -> run."""
    places: dict[tuple[str, str], dict[int, LedgerRow]] = {}
    for row in rows:
        runs = places.setdefault((row.group, row.row), {})
        if row.seed in runs:
            raise UserError(
                f"two different runs ({runs[row.seed].hash} and {row.hash}) claim the place "
                f"group {row.group!r}, row {row.row!r}, seed {row.seed}: their configurations "
                "differ. Tabulate one experiment and one setting at a time."
            )
        runs[row.seed] = row
    return places


def _ordered(first: Sequence[str] | None, found: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*(first or ()), *found]))


def _gather(
    group: str,
    label: str,
    role: Literal["teacher", "baseline", "compared"],
    runs: Mapping[int, LedgerRow],
    columns: Sequence[Column],
) -> TableRow:
    entries = {}
    for column in columns:
        numbers = {seed: runs[seed].number(column.key) for seed in sorted(runs)}
        scores = {seed: float(value) for seed, value in numbers.items() if value is not None}
        entries[column.key] = Entry(scores, summarise(list(scores.values())))
    return TableRow(group, label, role, tuple(sorted(runs)), entries)


def _test(lines: Sequence[TableRow], key: str) -> list[TableRow]:
    """Fill in the tests of one column."""
    baselines = {line.group: line.entries[key].by_seed for line in lines if line.role == "baseline"}
    tests = [
        paired_test(line.entries[key].by_seed, baselines.get(line.group, {}))
        if line.role == "compared"
        else None
        for line in lines
    ]
    corrected = holm([test.p if test else None for test in tests])
    done = []
    for line, test, p in zip(lines, tests, corrected, strict=True):
        entry = dataclasses.replace(line.entries[key], test=test, p_holm=p)
        done.append(dataclasses.replace(line, entries={**line.entries, key: entry}))
    return done


def _notes(
    lines: Sequence[TableRow],
    baseline: str,
    tested: Sequence[str],
    columns: Sequence[Column],
    group_title: str,
) -> tuple[str, ...]:
    """What the reader must know to read the table rightly."""
    notes = []
    counts = [len(line.seeds) for line in lines if line.role != "teacher"]
    if counts:
        notes.append(f"Mean ± standard deviation over {_count(counts, 'seed')}.")
    titles = {column.key: column.title for column in columns}
    for key in tested:
        tests = [line.entries[key].test for line in lines]
        pairs = [test.n for test in tests if test]
        if pairs:
            notes.append(
                f"p: {titles[key]} against `{baseline}` of the same {group_title}, two-sided "
                f"t-test paired over {_count(pairs, 'seed')}, Holm-corrected over "
                f"{_count([len(pairs)], 'comparison')}; bold: better at 5%. It weighs the spread "
                "between training runs, not the choice of test examples."
            )
        notes += [f"{titles[key]}: {note}" for note in _untested(lines, key)]
    return tuple(notes)


def _untested(lines: Sequence[TableRow], key: str) -> list[str]:
    """Why some rows have no test."""
    baselines = {line.group: line.entries[key].by_seed for line in lines if line.role == "baseline"}
    compared = [line for line in lines if line.role == "compared"]
    few: list[str] = []
    diverged: list[str] = []
    for line in compared:
        if line.entries[key].test is None:
            common = set(line.entries[key].by_seed) & set(baselines.get(line.group, {}))
            (few if len(common) < MIN_PAIRS else diverged).append(f"{line.group} `{line.row}`")
    notes = []
    if few and len(few) == len(compared):
        notes.append(f"no test: fewer than {MIN_PAIRS} seeds.")
    elif few:
        notes.append(
            f"no test: fewer than {MIN_PAIRS} seeds in common with the baseline: {', '.join(few)}."
        )
    if diverged:
        notes.append(f"no test: a score is not a finite number: {', '.join(diverged)}.")
    return notes


def _count(numbers: Sequence[int], noun: str) -> str:
    """``3 seeds``, ``1 seed`` or ``2 to 5 seeds``."""
    low, high = min(numbers), max(numbers)
    plural = "" if high == 1 else "s"
    return f"{low} {noun}{plural}" if low == high else f"{low} to {high} {noun}{plural}"


def _escape_markdown(text: str) -> str:
    for special in "\\|*<":
        text = text.replace(special, "\\" + special)
    return text
