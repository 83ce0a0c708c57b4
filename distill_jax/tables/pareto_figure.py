"""The figure of what is worth having: score and agreement against each cost, the front drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill_jax.tables.drawing import (
    PALETTE,
    SHAPES,
    TITLE_CHARS,
    WIDTH_INCHES,
    legend_below,
    wrap,
)
from distill_jax.tables.pareto import COSTS, Cost, Point, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEATEN = "#BDBDBD"
FRONT = "#333333"
HEIGHT_INCHES = 6.4


def draw_pareto(
    points: Sequence[Point], *, title: str | None = None, score: str = "accuracy"
) -> Figure:
    """Two columns, a cost each, of the scores with their intervals and of the agreement.

    A point's colour is its model, its shape its variant; one that another point beats is grey. The
    front of the agreement is that of the scores: one choice of models, seen twice.

    Args:
      score: what it is called.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    models = dict.fromkeys(point.model for point in points)
    variants = dict.fromkeys(point.variant for point in points)
    colours = {model: PALETTE[n % len(PALETTE)] for n, model in enumerate(models)}
    shapes = {variant: SHAPES[n % len(SHAPES)] for n, variant in enumerate(variants)}
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    panels = figure.subplots(
        2, len(COSTS), sharex="col", sharey="row", squeeze=False,
        gridspec_kw={"height_ratios": (3, 2)},
    )  # fmt: skip
    for column, cost in enumerate(COSTS):
        best = front(points, cost)
        upper, lower = panels[0][column], panels[1][column]
        _draw(upper, points, best, cost, colours, shapes, with_intervals=True)
        _draw(lower, points, best, cost, colours, shapes, with_intervals=False)
        _in_plain_numbers(upper)
        lower.set_xlabel(cost.title)
    panels[0][0].set_ylabel(f"{score}, %")
    panels[1][0].set_ylabel("same class as the teacher, %")
    handles: dict[str, Any] = {
        model: Line2D([], [], marker="o", ls="none", ms=6, color=colour)
        for model, colour in colours.items()
    }
    for variant, shape in shapes.items():
        handles[variant] = Line2D([], [], marker=shape, ls="none", ms=6, mfc="none", mec=FRONT)
    handles["beaten by another"] = Line2D([], [], marker="o", ls="none", ms=6, color=BEATEN)
    handles["Pareto front"] = Line2D([], [], color=FRONT, lw=1.0)
    legend_below(figure, handles)
    if title:
        figure.suptitle(wrap(title, TITLE_CHARS), fontsize=10.5)
    return figure


def _in_plain_numbers(axes: Axes) -> None:
    """A logarithmic axis whose marks are 1, 2, 5, 10 ..."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _draw(
    axes: Axes,
    points: Sequence[Point],
    best: Sequence[Point],
    cost: Cost,
    colours: dict[str, str],
    shapes: dict[str, str],
    *,
    with_intervals: bool,
) -> None:
    """The points of a panel, beaten ones behind, and the front as steps."""
    for point in points:
        won = point in best
        colour = colours[point.model] if won else BEATEN
        x, y = cost.of(point), 100 * (point.score if with_intervals else point.agreement)
        if with_intervals:
            ends = [100 * point.low, 100 * point.high]
            axes.plot([x, x], ends, color=colour, lw=0.8, alpha=0.7, zorder=2 if won else 1)
        axes.plot(
            x, y, shapes[point.variant], color=colour, ms=6, mec="white", mew=0.5,
            zorder=4 if won else 2,
        )  # fmt: skip
    if with_intervals:
        xs = [cost.of(point) for point in best]
        ys = [100 * point.score for point in best]
        axes.step(xs, ys, where="post", color=FRONT, lw=0.8, zorder=3)
    axes.grid()
