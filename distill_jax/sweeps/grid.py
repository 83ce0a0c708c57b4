"""The figure of a grid: a line per row over the groups, or a heat map where rows are many."""

import math
import re
from typing import TYPE_CHECKING, Any

from distill_jax.core.errors import UserError
from distill_jax.sweeps.columns import Column
from distill_jax.sweeps.figure import (
    TEACHER,
    TITLE_CHARS,
    WIDTH_INCHES,
    draw_teachers,
    legend_below,
    styles_of,
    wrap,
)
from distill_jax.sweeps.sheet import format_entry
from distill_jax.sweeps.statistics import MIN_PAIRS
from distill_jax.sweeps.table import Table, TableRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

MAX_LINES = 8
"""More lines than this cannot be followed by eye."""
LOG_RANGE = 20
"""Positive numbers that span this factor or more stand on a logarithmic axis."""
DODGE = 0.012
"""Neighbouring lines are moved apart by this share of the axis, so that error bars stay visible."""
_NUMBER = re.compile(r"([-+−]?\d*\.?\d+(?:e[-+]?\d+)?)\s*(%|x|×)?", re.IGNORECASE)


def draw_grid(table: Table, key: str, *, title: str | None = None) -> "Figure":
    """One column of a grid over its groups.

    Raises:
      UserError: for a key that is no column, or a table with nothing but the teacher.
    """
    column = table.column(key)
    labels = list(dict.fromkeys(row.row for row in table.students))
    if not labels:
        raise UserError("nothing to draw: the table has no row beside the teacher's.")
    figure = _lines(table, column) if len(labels) <= MAX_LINES else _heat_map(table, column)
    if title:
        figure.suptitle(wrap(title, TITLE_CHARS), fontsize=10.5)
    return figure


def positions_of(groups: list[str]) -> tuple[list[float], bool]:
    """Where groups stand on the axis, and whether that is a scale of numbers.

    Labels that are all numbers (or all percentages, or all multiples such as ``3x``) in rising
    or falling order stand at their value, or at its logarithm where they span a factor of 20.
    Others stand side by side.
    """
    matches = [_NUMBER.fullmatch(group.strip()) for group in groups]
    found = [match for match in matches if match]
    if len(groups) > 1 and len(found) == len(groups) and len({m[2] for m in found}) == 1:
        values = [float(match[1].replace("−", "-")) for match in found]
        if min(values) > 0 and max(values) / min(values) >= LOG_RANGE:
            values = [math.log10(value) for value in values]
        rising = sorted(set(values))
        if values in (rising, rising[::-1]):
            return values, True
    return [float(index) for index in range(len(groups))], False


def _lines(table: Table, column: Column) -> "Figure":
    """A line with error bars for each row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, 4.2), layout="constrained")
    axes = figure.subplots()
    groups = list(table.groups)
    places, scale = positions_of(groups)
    by_group = dict(zip(groups, places, strict=True))
    span = max(places) - min(places) or 1.0
    everywhere = [row for row in table.teachers if row.group not in by_group]
    known = [row for row in everywhere if row.entries[column.key].summary.n]
    handles: dict[str, Artist | ErrorbarContainer] = {}
    handles |= draw_teachers(axes, known, column, horizontal=True)
    inside = [row for row in table.teachers if row.group in by_group]
    for label in dict.fromkeys(row.row for row in inside):
        rows = [row for row in inside if row.row == label]
        teaching: dict[str, Any] = {"color": TEACHER, "ls": "--", "marker": "_"}
        handles |= _line(axes, label, rows, by_group, 0.0, column, teaching)
    styles = styles_of(table)
    for number, (label, style) in enumerate(styles.items()):
        rows = [row for row in table.students if row.row == label]
        shift = (number - (len(styles) - 1) / 2) * DODGE * span
        if not scale:  # between categories there is nothing to go through
            style = {**style, "alpha": 0.9}
        handles |= _line(axes, label, rows, by_group, shift, column, style)
    _group_axis(axes, table, places)
    interval = any(row.entries[column.key].summary.n >= MIN_PAIRS for row in table.students)
    axes.set_ylabel(f"{column.title} (mean{', 95% interval' if interval else ''})")
    axes.grid(axis="y", color="#E6E6E6", lw=0.6)
    axes.set_axisbelow(True)
    legend_below(figure, handles)
    return figure


def _line(
    axes: "Axes",
    label: str,
    rows: list[TableRow],
    by_group: dict[str, float],
    shift: float,
    column: Column,
    style: dict[str, Any],
) -> "dict[str, Artist | ErrorbarContainer]":
    """Means of one row, with 95% intervals from 3 seeds on; returns its legend entry."""
    rows = [row for row in rows if math.isfinite(row.entries[column.key].summary.mean)]
    summaries = [row.entries[column.key].summary for row in rows]
    x = [by_group[row.group] + shift for row in rows]
    y = [summary.mean * column.scale for summary in summaries]
    bars = [
        (summary.mean - summary.low) * column.scale if summary.n >= MIN_PAIRS else 0.0
        for summary in summaries
    ]
    # A legend entry even without a number: what is not finished is not hidden.
    line = axes.errorbar(
        x, y, yerr=bars, lw=1.3, ms=4.5, elinewidth=1.0, capsize=2, label=label, **style
    )
    return {label: line}


def _heat_map(table: Table, column: Column) -> "Figure":
    """Numbers on colours: rows from top to bottom, groups from left to right."""
    import numpy as np
    from matplotlib.figure import Figure

    groups = list(table.groups)
    inside = [row for row in table.teachers if row.group in groups]
    rows = [*inside, *table.students]
    labels = list(dict.fromkeys(row.row for row in rows))
    means_RG = np.full((len(labels), len(groups)), np.nan)
    for row in rows:
        mean = row.entries[column.key].summary.mean * column.scale
        means_RG[labels.index(row.row), groups.index(row.group)] = mean
    names = [wrap(label, 34) for label in labels]
    tallest = max(name.count("\n") + 1 for name in names)
    height = 1.3 + (0.15 + 0.13 * tallest) * len(labels)
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_invalid(means_RG), aspect="auto", cmap="cividis")
    _numbers(axes, table, column, rows, labels)
    axes.set_yticks(range(len(labels)), names, fontsize=8)
    axes.tick_params(length=0)
    _group_axis(axes, table, [float(index) for index in range(len(groups))])
    outside = [
        f"{row.row} {row.group}: {format_entry(row.entries[column.key], column, seeds=1)}"
        for row in table.teachers
        if row not in inside
    ]
    axes.set_xlabel("\n".join([table.group_title, *outside]))
    figure.colorbar(image, label=column.title, aspect=40, pad=0.02)
    return figure


def _numbers(
    axes: "Axes", table: Table, column: Column, rows: list[TableRow], labels: list[str]
) -> None:
    """The entries as text, light on dark colours and dark on light ones."""
    groups = list(table.groups)
    means = [row.entries[column.key].summary.mean for row in rows]
    known = [mean for mean in means if math.isfinite(mean)] or [0.0]
    middle = min(known) + 0.55 * (max(known) - min(known))
    seeds = max(len(row.seeds) for row in table.students)
    for row, mean in zip(rows, means, strict=True):
        entry = row.entries[column.key]
        expected = len(row.seeds) if row.role == "teacher" else seeds
        axes.text(
            groups.index(row.group),
            labels.index(row.row),
            format_entry(entry, column, seeds=expected),
            ha="center",
            va="center",
            fontsize=max(5.0, min(8.0, 44 / len(groups))),
            weight="bold" if entry.significant(column.higher_is_better) else "normal",
            color="white" if mean < middle else "black",
        )


def _group_axis(axes: "Axes", table: Table, places: list[float]) -> None:
    groups = list(table.groups)
    # Labels side by side must fit the width; numbers stand where they are.
    chars = max(6, 80 // len(groups))
    axes.set_xticks(places, [wrap(group, chars) for group in groups])
    axes.minorticks_off()
    axes.set_xlabel(table.group_title)
