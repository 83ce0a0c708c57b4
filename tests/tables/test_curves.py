"""Learning curves: means over the steps that all seeds have."""

import dataclasses
import itertools

import matplotlib.style
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from samples import sample_run, sample_runs, sample_spec

from distill_jax.core.errors import UserError
from distill_jax.tables.build import table_of
from distill_jax.tables.curves import draw_curves, has_curves, mean_curve, shown
from distill_jax.tables.drawing import STYLE, save_drawing


def with_history(*points_by_seed):
    return {
        seed: sample_run(
            "ce", "tiny", seed, history=[{"step": s, "accuracy": a} for s, a in points.items()]
        )
        for seed, points in enumerate(points_by_seed)
    }


def tabulate(runs):
    return table_of(sample_spec(runs), runs)


def styled(table, **options):
    with matplotlib.style.context(["default", STYLE]):
        figure = draw_curves(table, **options)
        FigureCanvasAgg(figure).draw()
    return figure


def test_mean_and_deviation_by_hand():
    steps, mean, sd = mean_curve(with_history({10: 0.5, 20: 0.6}, {20: 0.8, 10: 0.7}))
    assert steps == [10, 20]
    assert mean == pytest.approx([0.6, 0.7])
    assert sd == pytest.approx([np.sqrt(0.02), np.sqrt(0.02)])


def test_only_common_steps_and_kept_histories_count():
    assert mean_curve(with_history({10: 0.5, 20: 0.6}, {20: 0.8, 30: 0.9}))[0] == [20]
    assert mean_curve(with_history({10: 0.5}, {20: 0.8})) == ([], [], [])
    assert mean_curve(with_history({10: 0.5}, {})) == ([10], [0.5], [0.0])
    assert mean_curve({}) == ([], [], [])


@pytest.mark.parametrize(
    ("point", "name"),
    [
        ({"step": 1, "hr@10": 0.2, "ndcg@10": 0.1}, "ndcg@10"),
        ({"step": 1, "loss": 2.0, "accuracy": 0.9}, "accuracy"),
        ({"step": 1, "pearson": 0.4, "rmse": 3.0}, "pearson"),
    ],
)
def test_the_score_that_is_shown(point, name):
    assert shown(point) == name


def test_a_panel_a_group_and_a_line_a_row():
    runs = sample_runs(groups=("tiny", "l2", "l3", "l6"))
    figure = styled(tabulate(runs), title="Curves")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == [
        f"student {group}" for group in ("tiny", "l2", "l3", "l6")
    ]
    for axes, group in zip(panels, ("tiny", "l2", "l3", "l6"), strict=True):
        assert len(axes.lines) == 3 and len(axes.collections) == 3
        ce = {run.seed: run for run in runs if (run.row, run.group) == ("ce", group)}
        steps, mean, _ = mean_curve(ce)
        assert axes.lines[0].get_xdata().tolist() == steps
        assert axes.lines[0].get_ydata() == pytest.approx(100 * np.array(mean))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["ce", "kl", "0.9*kl(T=4) + 0.1*ce"]


@pytest.mark.parametrize("groups", [("tiny",), ("tiny", "l2"), tuple("abcde")])
def test_no_text_overlaps_another(groups):
    figure = styled(tabulate(sample_runs(groups)), title="Curves")
    texts = [figure._suptitle, figure._supylabel, *figure.legends[0].get_texts()]
    for axes in figure.axes:
        if axes.get_visible():
            texts += [axes._left_title, axes.xaxis.label]
            low, high = axes.get_xlim()
            ticks = axes.xaxis.get_major_ticks()
            texts += [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]
    assert len(boxes) >= 12
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other_box), (text, other)
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, text


def test_runs_without_a_history_are_left_out():
    runs = [
        dataclasses.replace(run, history=[]) if run.group == "l2" or run.row == "kl" else run
        for run in sample_runs()
    ]
    figure = styled(tabulate(runs))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["student tiny"]
    assert len(figure.axes[0].lines) == 2
    bare = tabulate([dataclasses.replace(run, history=[]) for run in runs])
    assert not has_curves(bare)
    with pytest.raises(UserError, match="no learning curves"):
        draw_curves(bare)


def test_the_same_bytes_twice(tmp_path):
    first = save_drawing(lambda: draw_curves(tabulate(sample_runs())), tmp_path / "a")
    again = save_drawing(lambda: draw_curves(tabulate(sample_runs())), tmp_path / "b")
    assert [path.name for path in first] == ["a.png", "a.svg"]
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()
