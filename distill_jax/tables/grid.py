"""The figure of a grid: a line per row over the groups, or a heat map where rows are many."""

import math
import re
from typing import TYPE_CHECKING, Any

from distill_jax.core.errors import UserError
from distill_jax.tables.columns import Column
from distill_jax.tables.drawing import (
    TEACHER,
    TITLE_CHARS,
    WIDTH_INCHES,
    draw_teachers,
    draw_yardsticks,
    legend_below,
    styles_of,
    wrap,
)
from distill_jax.tables.sheet import format_entry, outside_grid
from distill_jax.tables.statistics import MIN_PAIRS
from distill_jax.tables.table import Table, TableRow

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

MAX_LINES = 8
"""More lines than this cannot be followed by eye."""
MAX_PANELS = 4
LOG_RANGE = 20
"""Positive numbers that span this factor or more stand on a logarithmic axis."""
DODGE = 0.012
"""Neighbouring lines are moved apart by this share of the axis, so that error bars stay visible."""
_NUMBER = re.compile(
    r"(?P<name>\w+\s*=\s*)?(?P<value>[-+−]?\d*\.?\d+(?:e[-+]?\d+)?)\s*(?P<unit>%|x|×)?",
    re.IGNORECASE,
)


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

    Labels that are all numbers (or all percentages, all multiples such as ``3x``, all values of
    one name such as ``α=0.1``) in rising or falling order stand at their value, or at its
    logarithm where they span a factor of 20. Others stand side by side.
    """
    matches = [_NUMBER.fullmatch(group.strip()) for group in groups]
    found = [match for match in matches if match]
    kinds = {(match["name"], match["unit"]) for match in found}
    if len(groups) > 1 and len(found) == len(groups) and len(kinds) == 1:
        values = [float(match["value"].replace("−", "-")) for match in found]
        if min(values) > 0 and max(values) / min(values) >= LOG_RANGE:
            values = [math.log10(value) for value in values]
        rising = sorted(set(values))
        if values in (rising, rising[::-1]):
            return values, True
    return [float(index) for index in range(len(groups))], False


def panels_of(groups: list[str]) -> dict[str, dict[str, str]]:
    """Panel -> place on its axis -> group.

    Groups that cross two factors, ``5%, labelled`` and so on, have a panel for each value of
    the second; others share one panel without a name.
    """
    pairs = [tuple(group.split(", ")) for group in groups]
    if all(len(pair) == 2 for pair in pairs):
        panels: dict[str, dict[str, str]] = {}
        for pair, group in zip(pairs, groups, strict=True):
            panels.setdefault(pair[1], {})[pair[0]] = group
        first = list(next(iter(panels.values())))
        if 1 < len(panels) <= MAX_PANELS and all(list(p) == first for p in panels.values()):
            return panels
    return {"": {group: group for group in groups}}


def _lines(table: Table, column: Column) -> "Figure":
    """A line with error bars for each row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_INCHES, 4.2), layout="constrained")
    panels = panels_of(list(table.groups))
    handles: dict[str, Artist | ErrorbarContainer] = {}
    for axes, (name, groups) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
    ):
        handles |= _panel(axes, table, column, groups)
        axes.set_title(name, loc="left")
        axes.grid(axis="y")
        if len(panels) == 1:
            axes.set_xlabel(table.spec.group_title)
    for axes in figure.get_axes():
        handles |= draw_yardsticks(axes, table, column, horizontal=True)
    if len(panels) > 1:
        figure.get_axes()[len(panels) // 2].set_xlabel(table.spec.group_title)
    interval = any(row.entries[column.key].summary.n >= MIN_PAIRS for row in table.students)
    ylabel = f"{column.title} (mean{', 95% interval' if interval else ''})"
    figure.get_axes()[0].set_ylabel(ylabel)
    legend_below(figure, handles)
    return figure


def _panel(
    axes: "Axes", table: Table, column: Column, groups: dict[str, str]
) -> "dict[str, Artist | ErrorbarContainer]":
    """The lines over some of the groups; returns legend entries."""
    places, _ = positions_of(list(groups))
    by_group = dict(zip(groups.values(), places, strict=True))
    span = max(places) - min(places) or 1.0
    everywhere = [row for row in table.teachers if row.group not in table.groups]
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
        rows = [row for row in table.students if row.row == label and row.group in by_group]
        shift = (number - (len(styles) - 1) / 2) * DODGE * span
        handles |= _line(axes, label, rows, by_group, shift, column, style)
    _group_ticks(axes, list(groups), places)
    return handles


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
    _group_ticks(axes, groups, [float(index) for index in range(len(groups))])
    axes.set_xlabel("\n".join([table.spec.group_title, *outside_grid(table, column)]))
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
            weight="bold" if entry.bold(column.higher_is_better) else "normal",
            color="white" if mean < middle else "black",
        )


def _group_ticks(axes: "Axes", labels: list[str], places: list[float]) -> None:
    """Labels below each other where they fit, slanted where they do not."""
    axes.minorticks_off()
    panels = len(axes.figure.get_axes())
    chars = 80 // (panels * len(labels))
    if max(len(word) for label in labels for word in label.split() or [""]) <= max(chars, 4):
        axes.set_xticks(places, [wrap(label, max(chars, 4)) for label in labels])
    else:
        axes.set_xticks(places, labels, rotation=30, ha="right", rotation_mode="anchor")
