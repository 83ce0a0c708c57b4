"""The house style of figures, and what they have in common: legends, teachers, yardsticks."""

import io
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_jax.core.files import write_atomic
from distill_jax.tables.columns import Column
from distill_jax.tables.sheet import show
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
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.color": "#888888",
    "xtick.labelcolor": "black",
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "svg.hashsalt": "distill_jax",  # ids from content, not from chance
}
WIDTH_INCHES = 7.2
LABEL_CHARS = 30
TITLE_CHARS = 90
LEGEND_CHARS = 120


def save_drawing(drawing: Callable[[], "Figure"], stem: Path | str) -> list[Path]:
    """Draw in the house style and write; the same drawing gives the same bytes, for one matplotlib.

    Returns:
      The paths written: ``stem.png`` and ``stem.svg``.
    """
    import matplotlib.style

    undated: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}
    paths = []
    with matplotlib.style.context(["default", STYLE]):
        figure = drawing()
        for suffix, metadata in undated.items():
            out = io.BytesIO()
            figure.savefig(out, format=suffix, dpi=200, metadata=metadata)
            paths.append(Path(f"{stem}.{suffix}"))
            write_atomic(paths[-1], out.getvalue())
    return paths


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
        value, mean = show(row, column), row.entries[column.key].summary.mean
        line = draw_line(mean * column.scale, color=TEACHER, lw=1.3, ls=style)
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
        values.append(entry.summary.mean * column.scale)
        line = draw_line(values[-1], color=YARDSTICK, lw=1.0, ls=style)
        handles[f"{row.group} {row.row}: {show(row, column)}"] = line
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
        if label == table.spec.baseline:
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
