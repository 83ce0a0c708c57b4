"""The figure of a comparison: a dot plot with intervals and single seeds, per student."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.files import write_atomic
from distill_jax.sweeps.table import Column, Table, TableRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart under the common forms of colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # travels with matplotlib: the same glyphs everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "svg.hashsalt": "distill_jax",
    "svg.fonttype": "none",
}
WIDTH_INCHES = 7.2
ROW_INCHES = 0.36


def save_figure(
    table: Table,
    key: str,
    stem: Path,
    *,
    title: str | None = None,
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Write the figure of one column, as ``stem.png`` and ``stem.svg``.

    The same table gives the same bytes with the same version of matplotlib.

    Args:
      table: what to draw.
      key: the column.
      stem: path without the suffix.

    Returns:
      The paths written.
    """
    import matplotlib.style

    metadata: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
    paths = []
    with matplotlib.rc_context(), matplotlib.style.context(["default", STYLE]):
        figure = draw(table, key, title=title)
        for suffix in formats:
            out = io.BytesIO()
            figure.savefig(out, format=suffix, dpi=200, metadata=metadata.get(suffix))
            paths.append(Path(f"{stem}.{suffix}"))
            write_atomic(paths[-1], out.getvalue())
    return paths


def draw(table: Table, key: str, *, title: str | None = None) -> "Figure":
    """The figure: a panel per group, a line per row, the teacher as a vertical line."""
    from matplotlib.figure import Figure

    column = _column(table, key)
    groups: dict[str, list[TableRow]] = {}
    for row in table.rows:
        if row.role != "teacher":
            groups.setdefault(row.group, []).append(row)
    if not groups:
        raise UserError("nothing to draw: the table has no row beside the teacher's.")
    heights = [len(rows) + 0.9 for rows in groups.values()]
    figure = Figure(figsize=(WIDTH_INCHES, ROW_INCHES * sum(heights) + 0.9), layout="constrained")
    panels = figure.subplots(
        len(groups), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    teachers = [row for row in table.rows if row.role == "teacher"]
    for axes, (group, rows) in zip(panels, groups.items(), strict=True):
        _draw_panel(axes, rows, column)
        _draw_teacher(axes, teachers, column)
        axes.set_title(f"{table.group_title}: {group}", loc="left")
    panels[-1].set_xlabel(column.title)
    if title:
        figure.suptitle(title)
    return figure


def _draw_panel(axes: "Axes", rows: Sequence[TableRow], column: Column) -> None:
    for position, row in enumerate(rows):
        entry = row.entries[column.key]
        summary = entry.summary
        colour = GREY if row.role == "baseline" else BLUE
        scores = [score * column.scale for score in entry.by_seed.values()]
        axes.plot(scores, [position] * len(scores), "o", ms=3, color=colour, alpha=0.45, mew=0)
        if summary.n == 0:
            continue
        mean = summary.mean * column.scale
        if summary.n > 1:
            low, high = summary.low * column.scale, summary.high * column.scale
            axes.plot([low, high], [position, position], color=colour, lw=1.5)
        axes.plot(mean, position, "D" if row.role == "baseline" else "o", ms=6, color=colour)
    axes.set_yticks(range(len(rows)), [row.row for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#E0E0E0", lw=0.6)
    axes.set_axisbelow(True)


def _draw_teacher(axes: "Axes", teachers: Sequence[TableRow], column: Column) -> None:
    for row in teachers:
        summary = row.entries[column.key].summary
        if summary.n:
            axes.axvline(summary.mean * column.scale, color=ORANGE, lw=1.2, ls="--")


def _column(table: Table, key: str) -> Column:
    for column in table.columns:
        if column.key == key:
            return column
    raise unknown("column", key, [column.key for column in table.columns])
