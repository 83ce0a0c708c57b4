"""Score against latency: what a row gains, and what an answer of it costs."""

from typing import TYPE_CHECKING, Any

import numpy as np

from distill_jax.tables.drawing import (
    TEACHER,
    WIDTH_INCHES,
    legend_below,
    styles_of,
    wrap,
)
from distill_jax.tables.table import Table, TableRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LATENCY = "latency/p50_ms"


def has_costs(table: Table, key: str) -> bool:
    """Whether some student has a score and a latency."""
    return any(_point(row, key) for row in table.students)


def draw_costs(table: Table, key: str, *, title: str | None = None) -> "Figure":
    """A point a row: the mean score over seeds with its standard deviation, by mean latency."""
    from matplotlib.figure import Figure

    column, styles, groups = table.column(key), styles_of(table), list(table.groups)
    figure = Figure(figsize=(WIDTH_INCHES, 3.6), layout="constrained")
    axes = figure.subplots()
    handles = {}
    for row in table.rows:
        found = _point(row, key)
        if found is None:
            continue
        latency, score, sd = found
        if row.role == "yardstick":
            continue
        if row.role == "teacher":
            style: dict[str, Any] = {"color": TEACHER, "marker": "*", "ms": 11}
            label = f"{row.row} {row.group}"
        else:
            own = styles[row.row]
            style = {"color": own["color"], "marker": own["marker"], "ms": 6}
            label = row.row if len(groups) == 1 else f"{row.row} ({row.group})"
            if len(groups) > 1 and groups.index(row.group) % 2:
                style["mfc"] = "white"
        drawn = axes.errorbar(
            latency,
            score * column.scale,
            yerr=sd * column.scale if np.isfinite(sd) else None,
            ls="none",
            elinewidth=1,
            **style,
        )
        handles[wrap(label.strip())] = drawn
    axes.set_xscale("log")
    axes.set_xlabel("median CPU time of a single example, ms (logarithmic)")
    axes.set_ylabel(column.title)
    axes.grid()
    legend_below(figure, handles)
    if title:
        figure.suptitle(title, fontsize=10.5)
    return figure


def _point(row: TableRow, key: str) -> tuple[float, float, float] | None:
    """Latency, mean and standard deviation of the score; None where one is missing."""
    summary = row.entries[key].summary
    numbers = [number for run in row.runs.values() if (number := run.number(LATENCY)) is not None]
    if not summary.n or not np.isfinite(summary.mean) or not numbers or min(numbers) <= 0:
        return None
    return float(np.mean(numbers)), summary.mean, summary.sd
