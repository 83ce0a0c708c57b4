"""The figure of a comparison: means with intervals and single seeds, a panel per student."""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic
from distill_jax.tables.columns import Column
from distill_jax.tables.sheet import format_entry
from distill_jax.tables.statistics import MIN_PAIRS
from distill_jax.tables.table import Table, TableRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart under the common forms of colour blindness. Baseline and
# teacher differ from the rest in shape and line style too, for print in black and white.
COMPARED, BASELINE, TEACHER, YARDSTICK = "#0072B2", "#555555", "#D55E00", "#888888"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#A6761D", "#000000")
LINES = ("-", ":", "-.")
TEACHER_LINES: tuple[Any, ...] = ("--", ":", "-.", "-", (0, (7, 2, 1, 2, 1, 2)), (0, (1, 4)))
YARDSTICK_LINES: tuple[Any, ...] = (":", (0, (1, 4)))
SHAPES = ("o", "s", "^", "v", "P", "X", "*")
MARKERS = {"compared": "o", "baseline": "D"}

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # travels with matplotlib: the same glyphs everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": "#888888",
    "xtick.color": "#888888",
    "xtick.labelcolor": "black",
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "svg.hashsalt": "distill_jax",  # ids from content, not from chance
}
WIDTH_INCHES = 7.2
LABEL_CHARS = 30
TITLE_CHARS = 90
LEGEND_CHARS = 120
NUMBERS_X = 1.015
SEED_OFFSET = 0.25
"""Single seeds stand this far below their interval, in rows, so that neither hides the other."""


def save_figure(
    table: Table,
    key: str,
    stem: Path | str,
    *,
    title: str | None = None,
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Write the figure of one column, as ``stem.png`` and ``stem.svg``.

    Args:
      table: what to draw; a grid is drawn over its groups, otherwise a group is a panel.
      key: the column.
      stem: path without the suffix.
      title: printed above the panels.
      formats: suffixes that matplotlib can write.

    Returns:
      The paths written.

    Raises:
      UserError: for a key that is no column, or a table with nothing but the teacher.
    """
    from distill_jax.tables.grid import draw_grid

    drawing = draw_grid if table.layout == "grid" else draw
    return save_drawing(lambda: drawing(table, key, title=title), stem, formats)


def save_drawing(
    drawing: Callable[[], "Figure"], stem: Path | str, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Draw in the house style and write; the same drawing gives the same bytes, for one matplotlib.

    Returns:
      The paths written: ``stem`` with the formats as suffixes.
    """
    import matplotlib.style

    metadata: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
    paths = []
    with matplotlib.style.context(["default", STYLE]):
        figure = drawing()
        for suffix in formats:
            out = io.BytesIO()
            figure.savefig(out, format=suffix, dpi=200, metadata=metadata.get(suffix))
            paths.append(Path(f"{stem}.{suffix}"))
            write_atomic(paths[-1], out.getvalue())
    return paths


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
        axes.grid(axis="x", color="#E6E6E6", lw=0.6)
        axes.set_axisbelow(True)
        axes.set_title(f"{table.group_title} {group}", loc="left")
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


def legend_below(figure: "Figure", handles: "Mapping[str, Any]") -> None:
    """One legend for all panels, in as many columns as its longest label leaves room for."""
    longest = max((len(label) for label in handles), default=1)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=max(1, min(len(handles), 4, LEGEND_CHARS // (longest + 6))),
        frameon=False,
        fontsize=8,
        handletextpad=0.5,
        columnspacing=1.5,
    )


def draw_teachers(
    axes: "Axes", teachers: Sequence[TableRow], column: Column, *, horizontal: bool = False
) -> "dict[str, Artist]":
    """A line per teacher, its value in the legend where it cannot hide a point."""
    handles: dict[str, Artist] = {}
    draw_line = axes.axhline if horizontal else axes.axvline
    for row, style in zip(teachers, TEACHER_LINES * len(teachers), strict=False):
        entry = row.entries[column.key]
        value = format_entry(entry, column, seeds=len(row.seeds))
        line = draw_line(entry.summary.mean * column.scale, color=TEACHER, lw=1.3, ls=style)
        handles[f"{row.row} {row.group}: {value}" if row.group else f"{row.row}: {value}"] = line
    return handles


def draw_yardsticks(
    axes: "Axes", table: Table, column: Column, *, horizontal: bool = False
) -> "dict[str, Artist]":
    """A thin dotted line per yardstick; for when all panels have their points.

    A worse one does not move the axis: a chance level far off would press all points together.
    It is in the legend with its value all the same.
    """
    handles: dict[str, Artist] = {}
    values: list[float] = []
    if not table.yardsticks:
        return handles
    low, high = axes.get_ylim() if horizontal else axes.get_xlim()
    draw_line = axes.axhline if horizontal else axes.axvline
    for row, style in zip(table.yardsticks, YARDSTICK_LINES * len(table.yardsticks), strict=False):
        entry = row.entries[column.key]
        if not entry.summary.n or not math.isfinite(entry.summary.mean):
            continue
        value = format_entry(entry, column, seeds=len(row.seeds))
        values.append(entry.summary.mean * column.scale)
        line = draw_line(values[-1], color=YARDSTICK, lw=1.0, ls=style)
        handles[f"{row.group} {row.row}: {value}"] = line
    if values:
        margin = 0.03 * (high - low)
        if column.higher_is_better is False:
            low = min(low, min(values) - margin)
        else:
            high = max(high, max(values) + margin)
        (axes.set_ylim if horizontal else axes.set_xlim)(low, high)
    return handles


def styles_of(table: Table) -> dict[str, dict[str, Any]]:
    """Row label -> colour, line style and marker, the same in every panel and figure."""
    styles, number = {}, 0
    for label in dict.fromkeys(row.row for row in table.students):
        if label == table.baseline:
            styles[label] = {"color": BASELINE, "ls": "--", "marker": "D"}
            continue
        colour, turn = PALETTE[number % len(PALETTE)], number // len(PALETTE)
        styles[label] = {
            "color": colour,
            "ls": LINES[turn % len(LINES)],
            "marker": SHAPES[number % len(SHAPES)],
        }
        number += 1
    return styles


def wrap(label: str, chars: int = LABEL_CHARS) -> str:
    """A label in lines of so many characters."""
    return "\n".join(textwrap.wrap(label, chars, break_on_hyphens=False)) or label


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
            format_entry(entry, column, seeds=len(row.seeds)),
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
