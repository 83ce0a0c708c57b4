"""The figure of a comparison: means with intervals and single seeds, a panel per student."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill_jax.core.errors import UserError
from distill_jax.tables.columns import Column
from distill_jax.tables.drawing import (
    BASELINE,
    COMPARED,
    TITLE_CHARS,
    WIDTH_INCHES,
    draw_teachers,
    draw_yardsticks,
    legend_below,
    wrap,
)
from distill_jax.tables.grid import draw_grid
from distill_jax.tables.sheet import show
from distill_jax.tables.statistics import MIN_PAIRS
from distill_jax.tables.table import Table, TableRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = {"compared": "o", "baseline": "D"}
NUMBERS_X = 1.015
SEED_OFFSET = 0.25
"""Single seeds stand this far below their interval, in rows, so that neither hides the other."""


def draw_figure(table: Table, key: str, *, title: str | None = None) -> "Figure":
    """The figure of one column: a grid's over its groups, otherwise a panel a group.

    Raises:
      UserError: for a key that is no column, or a table with nothing but the teacher.
    """
    return (draw_grid if table.spec.layout == "grid" else draw)(table, key, title=title)


def draw(table: Table, key: str, *, title: str | None = None) -> "Figure":
    """The figure: a panel per group, a line per row, the teacher as a vertical line."""
    from matplotlib.figure import Figure

    column, groups = table.column(key), table.groups
    if not groups:
        raise UserError("nothing to draw: the table has no row beside the teacher's.")
    labels = {row.row: wrap(row.row) for rows in groups.values() for row in rows}
    row_inches = 0.2 + 0.13 * max(label.count("\n") + 1 for label in labels.values())
    heights = [len(rows) * row_inches for rows in groups.values()]
    height = sum(heights) + 0.35 * len(groups) + 0.8 + (0.25 if title else 0)

    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    panels = figure.subplots(
        len(groups), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    handles: dict[str, Artist] = {}
    for axes, (group, rows) in zip(panels, groups.items(), strict=True):
        handles |= draw_teachers(axes, _teachers_of(table, group, key), column)
        handles |= _draw_rows(axes, rows, column)
        axes.set_yticks(range(len(rows)), [labels[row.row] for row in rows])
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_title(f"{table.spec.group_title} {group}", loc="left")
    outside: dict[str, Artist] = {}
    for axes in panels:
        outside |= draw_yardsticks(axes, table, column)
    panels[-1].set_xlabel(column.title)
    figure.align_labels()
    # Reading order: what the marks are, then what they are compared with.
    legend_below(figure, dict(reversed({**outside, **handles}.items())))
    if title:
        figure.suptitle(wrap(title, TITLE_CHARS), fontsize=10.5)
    return figure


def _teachers_of(table: Table, group: str, key: str) -> list[TableRow]:
    """The teachers of this group's own; those that stand in no group are everybody's."""
    return [
        row
        for row in table.teachers
        if row.entries[key].summary.n and (row.group == group or row.group not in table.groups)
    ]


def _draw_rows(axes: "Axes", rows: Sequence[TableRow], column: Column) -> "dict[str, Artist]":
    """Marks of every row, its numbers at the right; returns legend entries."""
    from matplotlib.lines import Line2D

    handles: dict[str, Artist] = {}
    if column.kind == "mean_sd":
        numbers = "mean ± sd" if any(len(row.seeds) > 1 for row in rows) else "one seed"
        axes.set_title(numbers, loc="right", x=NUMBERS_X, ha="left", size=8, weight="normal")
    for position, row in enumerate(rows):
        entry, role = row.entries[column.key], row.role
        colour = BASELINE if role == "baseline" else COMPARED
        axes.text(
            NUMBERS_X,
            position,
            show(row, column),
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            weight="bold" if entry.bold(column.higher_is_better) else "normal",
        )
        if not entry.summary.n:
            continue
        scores = [score * column.scale for score in entry.by_seed.values()]
        below = [position + SEED_OFFSET] * len(scores)
        seeds = axes.plot(scores, below, "o", ms=3, mfc="none", mec=colour, mew=0.8, alpha=0.8)
        mean = entry.summary.mean * column.scale
        ends = [mean, mean]
        if entry.summary.n >= MIN_PAIRS:  # with 2 seeds it would be nine deviations to a side
            ends = [entry.summary.low * column.scale, entry.summary.high * column.scale]
        axes.plot(ends, [position] * 2, color=colour, lw=1.6, solid_capstyle="round")
        mark: dict[str, Any] = {"marker": MARKERS[role], "ms": 6, "mec": "white", "mew": 0.6}
        axes.plot(mean, position, ls="none", color=colour, zorder=3, **mark)
        interval = "mean, 95% interval" if ends[0] < ends[1] else "mean"
        if role == "compared":
            handles["single seed"] = seeds[0]
        what = "baseline" if role == "baseline" else interval
        handles[what] = Line2D([], [], lw=1.6 if ends[0] < ends[1] else 0, color=colour, **mark)
    return handles
