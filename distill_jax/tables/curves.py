"""Learning curves: the validation score against the step, a panel per group."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.tables.drawing import (
    TITLE_CHARS,
    WIDTH_INCHES,
    legend_below,
    styles_of,
    wrap,
)
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

PANELS_A_LINE = 3


def has_curves(table: Table) -> bool:
    """Whether any student kept its history."""
    return any(run.history for row in table.students for run in row.runs.values())


def mean_curve(runs: Mapping[int, LedgerRow]) -> tuple[list[float], list[float], list[float]]:
    """Steps, mean score and standard deviation over the runs, at the steps that all have.

    A run without a history is left out; with a single run the deviation is 0.
    """
    histories = [
        {point["step"]: point[shown(point)] for point in run.history}
        for run in runs.values()
        if run.history
    ]
    if not histories:
        return [], [], []
    steps = sorted(set.intersection(*(set(history) for history in histories)))
    accuracies_SN = np.array([[history[step] for history in histories] for step in steps])
    if not steps:
        return [], [], []
    sd_S = accuracies_SN.std(axis=1, ddof=1) if len(histories) > 1 else np.zeros(len(steps))
    return steps, accuracies_SN.mean(axis=1).tolist(), sd_S.tolist()


def shown(point: Mapping[str, float]) -> str:
    """The score of a point that curves show: accuracy, NDCG@10, or the first that it has."""
    names = [name for name in point if name != "step"]
    return next((name for name in ("accuracy", "ndcg@10") if name in names), names[0])


def draw_curves(table: Table, *, title: str | None = None) -> "Figure":
    """Means over seeds, with a band of one standard deviation to either side."""
    from matplotlib.figure import Figure

    if not has_curves(table):
        raise UserError("no learning curves: no run kept its history.")
    groups = {
        group: rows
        for group, rows in table.groups.items()
        if any(run.history for row in rows for run in row.runs.values())
    }
    width = min(len(groups), PANELS_A_LINE)
    height = math.ceil(len(groups) / width)
    styles = styles_of(table)
    extra = 0.6 + 0.17 * math.ceil(len(styles) / 2)
    figure = Figure(
        figsize=(WIDTH_INCHES, (2.1 if width > 1 else 3.0) * height + extra), layout="constrained"
    )
    panels = figure.subplots(height, width, sharey=True, squeeze=False).ravel()
    handles: dict[str, Artist] = {}
    for axes, (group, rows) in zip(panels, groups.items(), strict=False):
        for row in rows:
            steps, mean, sd = mean_curve(row.runs)
            if not steps:
                continue
            mean_S, sd_S = 100 * np.array(mean), 100 * np.array(sd)
            style = {**styles[row.row], "ms": 3 if len(steps) < 12 else 0}
            handles[row.row] = axes.plot(steps, mean_S, lw=1.2, **style)[0]
            colour = styles[row.row]["color"]
            axes.fill_between(steps, mean_S - sd_S, mean_S + sd_S, color=colour, alpha=0.12, lw=0)
        full, chars = f"{table.spec.group_title} {group}", 90 // width
        axes.set_title(full if len(full) <= chars else wrap(group, chars), loc="left")
        axes.grid(axis="y")
    for number, axes in enumerate(panels):
        axes.set_visible(number < len(groups))
        if number + width >= len(groups):
            axes.set_xlabel("optimiser step")
    names = {shown(p) for row in table.students for run in row.runs.values() for p in run.history}
    which = " or ".join(sorted(names)).replace("ndcg", "NDCG")
    figure.supylabel(f"validation {which} % (mean ± sd)", fontsize=9)
    ordered = {label: handles[label] for label in styles if label in handles}
    legend_below(figure, ordered)
    if title:
        figure.suptitle(wrap(title, TITLE_CHARS), fontsize=10.5)
    return figure
