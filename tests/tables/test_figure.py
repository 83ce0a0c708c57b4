"""The figure: what is drawn, where, that nothing overlaps, the same bytes twice."""

import itertools
import math

import matplotlib.style
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from samples import place, sample_run, sample_spec

from distill_jax.core.errors import UserError
from distill_jax.tables.build import table_of
from distill_jax.tables.columns import Column
from distill_jax.tables.drawing import STYLE, save_drawing
from distill_jax.tables.figure import draw
from distill_jax.tables.spec import Place

ACCURACY = Column("test/accuracy", "accuracy (%)", 100, 1, higher_is_better=True)
LONG = "0.5*attention_kl(layers='uniform') + hidden_mse(layers='last') + $kl$(T=4)"


def make_run(group, row, seed, accuracy):
    correct = np.arange(1000) < np.round(1000 * accuracy)
    metrics = {"test/accuracy": accuracy}
    return sample_run(row, group, seed, correct=correct, metrics=metrics)


def make_table(groups=("tiny", "l2"), seeds=4, labels=("ce", "kl", LONG), yardsticks=()):
    rows, teachers = [], [make_run("minilm", "teacher", 0, 0.786)]
    for (g, group), (r, row) in itertools.product(enumerate(groups), enumerate(labels)):
        for seed in range(seeds):
            accuracy = 0.5 + 0.1 * g + 0.05 * r + 0.004 * seed * (r + 1)
            rows.append(make_run(group, row, seed, accuracy))
    measured = [make_run("yardstick", f"y{n}", 0, score) for n, score in enumerate(yardsticks)]
    spec = sample_spec(rows, teachers, measured, columns=(ACCURACY,))
    return table_of(spec, [*rows, *teachers, *measured])


def styled(table, **options):
    with matplotlib.style.context(["default", STYLE]):
        figure = draw(table, "test/accuracy", **options)
        FigureCanvasAgg(figure).draw()
    return figure


def offsets(axes):
    return [tuple(zip(*line.get_data(), strict=True)) for line in axes.lines]


def test_seeds_means_intervals_and_teacher_are_where_the_numbers_say():
    table = make_table()
    figure = styled(table)
    assert len(figure.axes) == 2
    for axes, group in zip(figure.axes, ("tiny", "l2"), strict=True):
        drawn = offsets(axes)
        assert drawn[0] == ((pytest.approx(78.6), 0), (pytest.approx(78.6), 1))
        rows = [row for row in table.rows if row.group == group]
        for position, row in enumerate(rows):
            entry = row.entries["test/accuracy"]
            seeds, interval, mean = drawn[1 + 3 * position : 4 + 3 * position]
            assert [x for x, _ in seeds] == pytest.approx(
                [100 * score for score in entry.by_seed.values()]
            )
            assert [x for x, _ in interval] == pytest.approx(
                [100 * entry.summary.low, 100 * entry.summary.high]
            )
            assert mean == ((pytest.approx(100 * entry.summary.mean), position),)


@pytest.mark.parametrize(
    "table",
    [
        make_table(),
        make_table(groups=("tiny",)),
        make_table(groups=("tiny", "l2", "l3"), labels=("ce", *(f"loss {i}" for i in range(8)))),
    ],
    ids=["two", "one", "many"],
)
def test_no_text_overlaps_another_or_leaves_the_figure(table):
    figure = styled(table, title="Movie snippets, 10% of the labels")
    texts = [figure._suptitle, *figure.legends[0].get_texts()]
    for axes in figure.axes:
        texts += [*axes.texts, *axes.get_yticklabels(), axes._left_title, axes._right_title]
    last = figure.axes[-1]
    low, high = last.get_xlim()  # ticks outside the view have labels that are not drawn
    texts += [tick for tick in last.get_xticklabels() if low <= tick.get_position()[0] <= high]
    texts.append(last.xaxis.label)
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]
    assert len(boxes) >= 21
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        assert not box.overlaps(other_box), (text, other)
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text
        assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, text


def test_legend_says_what_is_there():
    names = [text.get_text() for text in styled(make_table()).legends[0].get_texts()]
    assert names == [
        "mean, 95% interval",
        "single seed",
        "baseline",
        "teacher minilm: 78.6",
    ]
    few = [text.get_text() for text in styled(make_table(seeds=2)).legends[0].get_texts()]
    assert few[0] == "mean"  # two seeds give no interval worth drawing


def test_bold_numbers_are_those_of_the_table():
    table = make_table()
    for axes, group in zip(styled(table).axes, ("tiny", "l2"), strict=True):
        rows = [row for row in table.rows if row.group == group]
        for text, row in zip(axes.texts, rows, strict=True):
            significant = row.entries["test/accuracy"].bold(True)
            assert (text.get_weight() == "bold") == significant
    assert any(row.entries["test/accuracy"].bold(True) for row in table.rows)


def test_files_are_written_and_the_same_twice(tmp_path):
    first = save_drawing(lambda: draw(make_table(), "test/accuracy"), tmp_path / "a" / "figure.v1")
    again = save_drawing(lambda: draw(make_table(), "test/accuracy"), tmp_path / "b" / "figure.v1")
    assert [path.name for path in first] == ["figure.v1.png", "figure.v1.svg"]
    assert first[0].read_bytes().startswith(b"\x89PNG") and b"<svg" in first[1].read_bytes()
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_users_style_does_not_leak_in_or_out(tmp_path):
    plain = save_drawing(lambda: draw(make_table(), "test/accuracy"), tmp_path / "a")[
        0
    ].read_bytes()
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "red"}):
        styled_file = save_drawing(lambda: draw(make_table(), "test/accuracy"), tmp_path / "b")[0]
        assert matplotlib.rcParams["font.size"] == 30
    assert styled_file.read_bytes() == plain


def test_missing_and_diverged_entries_are_named_and_do_not_break_the_rest():
    rows = [make_run("tiny", "ce", seed, 0.5 + 0.01 * seed) for seed in range(3)]
    rows += [make_run("tiny", "kl", seed, math.nan) for seed in range(3)]
    places = (Place("absent", "tiny", 0, "absent"), *map(place, rows))
    table = table_of(sample_spec(rows, places=places, columns=(ACCURACY,)), rows)
    texts = [text.get_text() for text in styled(table).axes[0].texts]
    assert texts == ["–", "51.0 ± 1.0", "nan"]


def test_bad_input():
    with pytest.raises(UserError, match="unknown column 'test/acc'"):
        draw(make_table(), "test/acc")
    alone = make_table(groups=(), seeds=0)
    with pytest.raises(UserError, match="nothing to draw"):
        draw(alone, "test/accuracy")


def test_a_yardstick_is_a_line_and_a_worse_one_does_not_move_the_axis():
    low, high = styled(make_table()).axes[0].get_xlim()
    near, far, above = (
        styled(make_table(yardsticks=[score])).axes[0] for score in (0.6, 0.05, 0.95)
    )
    assert near.get_xlim() == far.get_xlim() == (low, high)
    assert above.get_xlim()[0] == low and above.get_xlim()[1] > 95
    for axes, at in ((near, 60.0), (far, 5.0), (above, 95.0)):
        assert [at, at] in [list(line.get_xdata()) for line in axes.lines]
        [legend] = axes.figure.legends
        assert f"yardstick y0: {at:.1f}" in [text.get_text() for text in legend.get_texts()]


def test_panels_share_an_axis_that_holds_the_points_of_all():
    figure = styled(make_table(yardsticks=[0.3, math.nan]))
    points = [x for axes in figure.axes for line in axes.lines for x in line.get_xdata()]
    students = [x for x in points if x > 40 or x < 1.1]
    low, high = figure.axes[0].get_xlim()
    assert {axes.get_xlim() for axes in figure.axes} == {(low, high)}
    assert all(low <= x <= high for x in students if x > 1.1)
