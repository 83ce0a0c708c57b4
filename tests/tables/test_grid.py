"""The figure of a grid: where lines and numbers stand, and that nothing overlaps."""

import functools
import itertools
import math

import matplotlib.style
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from samples import sample_run, sample_runs, sample_spec, sample_teacher, sample_yardstick

from distill_jax.core.errors import UserError
from distill_jax.tables.build import table_of
from distill_jax.tables.drawing import STYLE, save_drawing, styles_of
from distill_jax.tables.figure import draw_figure
from distill_jax.tables.grid import draw_grid, panels_of, positions_of
from distill_jax.tables.markdown import to_markdown

SHARES = ("5%", "10%", "25%", "50%", "100%")
MANY = tuple(["ce", *(f"hidden_mse(layers='last') + kl(T={i})" for i in range(9))])
WORDS = ("spread layers", "last-heavy layers", "the lowest three layers")


def tabulate(groups=("tiny", "l2"), rows=("ce", "kl"), teachers=None, seeds=3, yardsticks=()):
    runs = sample_runs(groups, rows, seeds)
    teachers = [sample_teacher()] if teachers is None else teachers
    spec = sample_spec(runs, teachers, yardsticks, layout="grid", group_title="share of labels")
    return table_of(spec, [*runs, *teachers, *yardsticks])


def styled(table, **options):
    with matplotlib.style.context(["default", STYLE]):
        figure = draw_grid(table, "test/accuracy", **options)
        FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize(
    ("groups", "places"),
    [
        (["0.1", "0.5", "1"], [0.1, 0.5, 1.0]),
        (["0%", "20%", "60%"], [0.0, 20.0, 60.0]),
        (["1x", "3x", "30x"], [0.0, math.log10(3), math.log10(30)]),
        (["100", "10", "1"], [2.0, 1.0, 0.0]),
        (["-1", "1e1"], [-1.0, 10.0]),
        (["α=0.1", "α=0.5", "α=1"], [0.1, 0.5, 1.0]),
    ],
)
def test_numbers_stand_at_their_value(groups, places):
    assert positions_of(groups) == (pytest.approx(places), True)


@pytest.mark.parametrize(
    "groups",
    [
        ["5%", "10"],
        ["tiny", "l2"],
        ["1", "3", "2"],
        ["1", "1.0"],
        ["7"],
        ["1", "inf"],
        ["a=1", "b=2"],
    ],
)
def test_others_stand_side_by_side(groups):
    assert positions_of(groups) == ([float(i) for i in range(len(groups))], False)


def test_lines_go_through_the_means_and_bars_show_the_intervals():
    table = tabulate(SHARES)
    (axes,) = styled(table).axes
    bars = {container.get_label(): container for container in axes.containers}
    assert list(bars) == ["ce", "kl"]
    places, _ = positions_of(list(SHARES))
    for label, container in bars.items():
        line, _, (segments,) = container.lines
        rows = [row for row in table.students if row.row == label]
        summaries = [row.entries["test/accuracy"].summary for row in rows]
        assert line.get_ydata() == pytest.approx([100 * s.mean for s in summaries])
        assert np.abs(line.get_xdata() - np.array(places)).max() < 0.02  # moved apart a little
        for (low, high), s in zip(segments.get_segments(), summaries, strict=True):
            assert (low[1], high[1]) == pytest.approx((100 * s.low, 100 * s.high))
    assert [text.get_text() for text in axes.get_xticklabels()] == list(SHARES)
    (teacher,) = [line for line in axes.lines if len(set(line.get_ydata())) == 1][:1]
    assert teacher.get_ydata()[0] == pytest.approx(80)


CROSSED = tuple(f"{share}, {source}" for share in ("5%", "10%") for source in ("labelled", "more"))


def test_crossed_groups_have_a_panel_for_each_value_of_the_second_factor():
    assert panels_of(list(CROSSED)) == {
        "labelled": {"5%": "5%, labelled", "10%": "10%, labelled"},
        "more": {"5%": "5%, more", "10%": "10%, more"},
    }
    for plain in (["a", "b"], ["a, x", "b"], ["a, x", "b, x"], ["a, x", "b, x", "a, y"]):
        assert panels_of(plain) == {"": {group: group for group in plain}}
    table = tabulate(CROSSED)
    panels = styled(table).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["labelled", "more"]
    for axes, name in zip(panels, ("labelled", "more"), strict=True):
        assert [text.get_text() for text in axes.get_xticklabels()] == ["5%", "10%"]
        (kl,) = [c for c in axes.containers if c.get_label() == "kl"]
        rows = [r for r in table.students if r.row == "kl" and r.group.endswith(name)]
        means = [100 * row.entries["test/accuracy"].summary.mean for row in rows]
        assert kl.lines[0].get_ydata() == pytest.approx(means)


def test_two_seeds_have_no_interval():
    (axes,) = styled(tabulate(seeds=2)).axes
    for container in axes.containers:
        (segments,) = container.lines[2]
        assert all(low[1] == high[1] for low, high in segments.get_segments())
    assert axes.get_ylabel() == "accuracy % (mean)"


def test_many_rows_are_a_map_of_numbers():
    table = tabulate(SHARES, MANY)
    axes, colours = styled(table).axes
    shown = {(t.get_position()[::-1]): t for t in axes.texts}
    assert len(shown) == len(MANY) * len(SHARES)
    values = axes.images[0].get_array()
    for row in table.students:
        where = (MANY.index(row.row), SHARES.index(row.group))
        entry = row.entries["test/accuracy"]
        assert values[where] == pytest.approx(100 * entry.summary.mean)
        assert shown[where].get_text().startswith(f"{100 * entry.summary.mean:.1f} ± ")
        assert (shown[where].get_weight() == "bold") == entry.bold(True)
    assert colours.get_ylabel() == "accuracy %"
    assert "teacher minilm: 80.0" in axes.get_xlabel()


@pytest.mark.parametrize(
    "table",
    [
        tabulate(SHARES),
        tabulate(WORDS, ("ce", "kl", MANY[1], MANY[2])),
        tabulate(SHARES, MANY),
        tabulate(tuple(f"a long name of group {i}" for i in range(14))),
        tabulate(SHARES, ("ce", "kl"), [sample_teacher(group) for group in SHARES]),
    ],
    ids=["numbers", "words", "map", "slanted", "teachers"],
)
def test_no_text_overlaps_another_or_leaves_the_figure(table):
    figure = styled(table, title="A grid of scores")
    axes = figure.axes[0]
    texts = [figure._suptitle, axes.xaxis.label, *axes.texts]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [
            tick.label1
            for tick in axis.get_major_ticks()
            if low <= tick.get_loc() <= high and tick.label1.get_text()
        ]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]
    assert len(boxes) >= 18
    # Boxes around slanted text meet where the text does not.
    upright = [(t.get_text(), t.get_window_extent()) for t in texts if not t.get_rotation()]
    for (text, box), (other, other_box) in itertools.combinations(upright, 2):
        assert not box.overlaps(other_box), (text, other)
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, text


def test_rows_can_be_told_apart():
    styles = styles_of(tabulate(("a",), tuple(["ce", *(f"row {i}" for i in range(20))])))
    assert len({(s["color"], s["ls"], s["marker"]) for s in styles.values()}) == 21


@pytest.mark.parametrize("rows", [("ce", "kl"), MANY])
def test_unfinished_and_diverged_entries_do_not_break_the_rest(rows):
    runs = sample_runs(rows=rows)
    finished = [r for r in runs if r.row == "ce" and r.group == "tiny"]
    finished.append(sample_run("kl", "l2", 0, math.nan, hash="l2/kl/0"))
    figure = styled(table_of(sample_spec(runs, layout="grid"), finished))
    assert figure.axes


def test_the_same_bytes_twice(tmp_path):
    for rows in (("ce", "kl"), MANY):
        drawing = functools.partial(draw_figure, tabulate(SHARES, rows), "test/accuracy")
        first, again = (save_drawing(drawing, tmp_path / name) for name in "ab")
        assert [path.suffix for path in first] == [".png", ".svg"]
        for one, other in zip(first, again, strict=True):
            assert one.read_bytes() == other.read_bytes()


def test_bad_input():
    with pytest.raises(UserError, match="unknown column"):
        draw_grid(tabulate(), "test/acc")
    alone = table_of(sample_spec([], [sample_teacher()], layout="grid"), [sample_teacher()])
    with pytest.raises(UserError, match="nothing to draw"):
        draw_grid(alone, "test/accuracy")


@pytest.mark.parametrize("rows", [("ce", "kl"), MANY])
def test_yardsticks_are_said_in_lines_and_in_heat_maps(rows):
    table = tabulate(rows=rows, yardsticks=[sample_yardstick(accuracy=0.123)])
    figure = styled(table)
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    texts += [figure.axes[0].get_xlabel()]
    assert any("12.3" in text and "tfidf+logreg" in text for text in texts)
    assert "tfidf+logreg yardstick: 12.3" in to_markdown(table)
    if rows == ("ce", "kl"):
        assert figure.axes[0].get_ylim()[0] > 40  # the lines keep their room
