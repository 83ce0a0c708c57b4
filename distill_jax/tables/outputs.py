"""Everything a sweep prints, from its description and its ledger alone."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.tables.columns import COLUMNS, Column
from distill_jax.tables.cost import draw_costs, has_costs
from distill_jax.tables.csv import to_csv
from distill_jax.tables.curves import draw_curves, has_curves
from distill_jax.tables.drawing import save_drawing
from distill_jax.tables.figure import draw_figure
from distill_jax.tables.latex import to_latex
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.names import YARDSTICK
from distill_jax.tables.report import report
from distill_jax.tables.spec import Place, TableSpec
from distill_jax.tables.table import Table
from distill_jax.tables.terminal import TerminalTable
from distill_jax.tables.trends import TrendResult, evaluate_trend
from distill_jax.tables.trends_markdown import trends_markdown

if TYPE_CHECKING:
    from rich.console import Console

SPEC, LEDGER = "table.json", "ledger.jsonl"
TEACHER = "teacher"
"""Label of teachers' rows in ledgers without a description."""
STUDENTS = ("student", "model.name")
"""Settings that name the student."""
CONSEQUENCES = ("data_digest", "teacher_digest", "teacher_dtype", "model.", "top")
"""Settings that follow from others."""


def load_results(folder: Path) -> tuple[TableSpec, list[LedgerRow]]:
    """Description and runs of an experiment; a ledger alone describes itself.

    Raises:
      UserError: without a ledger, or when either file is damaged.
    """
    ledger = folder / LEDGER
    if not ledger.is_file():
        raise UserError(f"no ledger at {ledger}")
    rows = Ledger(ledger).rows()
    if not (folder / SPEC).is_file():
        return describe_ledger(rows, folder.resolve().name), rows
    try:
        return TableSpec.from_json((folder / SPEC).read_text(encoding="utf-8")), rows
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"{folder / SPEC}: {error}") from error


def describe_ledger(rows: Sequence[LedgerRow], name: str) -> TableSpec:
    """A table of all that is in a ledger: a block a group, a line a row, a column a metric.

    The baseline is ``ce``, or the first row where there is no ``ce``.
    """
    yardsticks = [row for row in rows if row.group == YARDSTICK]
    students = [row for row in rows if row.row != TEACHER and row not in yardsticks]
    if not rows:
        raise UserError("no results to tabulate: the ledger has no finished run.")
    labels = [row.row for row in students]
    columns = _columns(rows)
    tested = [column.key for column in columns if column.key == "test/accuracy"]
    return TableSpec(
        name=name,
        title=_title(rows[0], name),
        layout="metrics",
        columns=columns,
        baseline="ce" if "ce" in labels or not labels else labels[0],
        places=tuple(map(_place, students)),
        teachers=tuple(_place(row) for row in rows if row.row == TEACHER),
        yardsticks=tuple(map(_place, yardsticks)),
        tested=tuple(tested),
        group_title=_group_title(students),
    )


def write_outputs(table: Table, folder: Path) -> list[Path]:
    """Write a table with its description, figures, trends and report into ``folder``.

    The same description and runs give the same bytes, for the same version of matplotlib.

    Returns:
      The paths written: ``table.json``, ``table.md``, ``table.tex``, ``table.csv``, ``trends.md``
      where there are trends, ``figure``, (where runs kept their history) ``curves`` and (where
      they were timed) ``costs`` as PNG and SVG, ``report.html``.
    """
    spec, trends = table.spec, evaluate(table)
    texts = {
        SPEC: spec.to_json() + "\n",
        "table.md": to_markdown(table),
        "table.tex": to_latex(table, caption=spec.title, label=f"tab:{spec.name}"),
        "table.csv": to_csv(table),
    }
    if trends:
        texts["trends.md"] = trends_markdown(trends)
    for name, text in texts.items():
        write_atomic(folder / name, text)
    drawings = {"figure": lambda: draw_figure(table, spec.figure_key, title=spec.title)}
    if has_curves(table):
        drawings["curves"] = lambda: draw_curves(table, title=spec.title)
    if has_costs(table, spec.figure_key):
        drawings["costs"] = lambda: draw_costs(table, spec.figure_key, title=spec.title)
    figures = [
        path for name, draw in drawings.items() for path in save_drawing(draw, folder / name)
    ]
    svg = {name: (folder / f"{name}.svg").read_bytes() for name in drawings}
    write_atomic(folder / "report.html", report(table, trends, svg, folder))
    paths = [*(folder / name for name in texts), *figures, folder / "report.html"]
    for name in ("trends.md", "curves.png", "curves.svg", "costs.png", "costs.svg"):
        if folder / name not in paths:  # of an earlier description; it would tell of other runs
            with contextlib.suppress(OSError):
                (folder / name).unlink()
    return paths


def show(table: Table, console: "Console") -> None:
    """Print a table and what became of its trends."""
    console.print(TerminalTable(table))
    for result in evaluate(table):
        line = f"{result.verdict}: {result.trend.statement}"
        console.print(line, markup=False, highlight=False)


def evaluate(table: Table) -> list[TrendResult]:
    """The trends of a table's description, on its runs."""
    scores = {(row.row, row.group): row.runs for row in table.students}
    return [evaluate_trend(trend, scores) for trend in table.spec.trends]


def _columns(rows: Sequence[LedgerRow]) -> tuple[Column, ...]:
    """Those that some run has a number for."""
    known = [c for c in COLUMNS if any(row.number(c.key) is not None for row in rows)]
    return tuple(known) or COLUMNS[:1]


def _group_title(rows: Sequence[LedgerRow]) -> str:
    """What the groups are: students, or else the settings that tell them apart.

    Such a setting is the same in all runs of a group, and not the same in all groups.
    """
    groups = {row.group for row in rows}
    if len(groups) < 2:
        return "student"
    values: dict[str, dict[str, set[str]]] = {}
    for row in rows:
        for path, value in row.settings().items():
            values.setdefault(path, {}).setdefault(row.group, set()).add(json.dumps(value))
    telling = [
        path
        for path, by_group in values.items()
        if all(len(own) == 1 for own in by_group.values())
        and len({min(own) for own in by_group.values()}) > 1
    ]
    if any(path in STUDENTS for path in telling):
        return "student"
    chosen = [path for path in telling if not path.startswith(CONSEQUENCES)]
    return ", ".join(path.rpartition(".")[2] for path in chosen) or "group"


def _place(row: LedgerRow) -> Place:
    return Place(row.row, row.group, row.seed, row.hash)


def share_of_labels(fraction: float) -> str:
    """How many of the training labels are used, in words."""
    return "all labels" if fraction == 1 else f"{100 * fraction:g}% of the labels"


def _title(row: LedgerRow, name: str) -> str:
    data = row.config.get("data")
    if not isinstance(data, dict) or "name" not in data:
        return name
    fraction = data.get("label_fraction")
    share = f", {share_of_labels(fraction)}" if isinstance(fraction, int | float) else ""
    return f"{data['name']}{share}"
