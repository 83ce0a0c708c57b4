"""Dominance as a law, the front, and what is said of it."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.tables.drawing import save_drawing
from distill_jax.tables.pareto import (
    LATENCY,
    SIZE,
    Point,
    dominated,
    from_json,
    front,
    pareto_markdown,
    to_json,
)
from distill_jax.tables.pareto_figure import BEATEN, draw_pareto

COSTS_AND_SCORES = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 6)), min_size=1, max_size=12
)


def point(model, score, ms, size, variant="as is", **changes):
    made = Point(
        model, variant, score, score - 0.02, score + 0.02, 0.9, 1_000_000, size, 5 * 10**7,
        ms, 2 * ms, 1000 / ms,
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


POINTS = [
    point("static", 0.70, 0.1, 10**7),
    point("static", 0.69, 0.1, 10**6, "int8"),
    point("l2", 0.78, 2.0, 6 * 10**7),
    point("l2", 0.79, 1.0, 2 * 10**7, "int8"),
    point("teacher", 0.83, 8.0, 9 * 10**7),
]


def beats(one, other):
    (cost, score), (their_cost, their_score) = one, other
    return cost <= their_cost and score >= their_score and one != other


@given(COSTS_AND_SCORES)
def test_a_point_is_dominated_exactly_if_one_beats_it(pairs):
    lost = dominated(*map(np.array, zip(*pairs, strict=True)))
    assert lost.tolist() == [any(beats(other, one) for other in pairs) for one in pairs]


@given(COSTS_AND_SCORES)
def test_whoever_is_dominated_is_so_by_somebody_on_the_front(pairs):
    lost = dominated(*map(np.array, zip(*pairs, strict=True)))
    best = [pair for pair, gone in zip(pairs, lost, strict=True) if not gone]
    assert best
    for one, gone in zip(pairs, lost, strict=True):
        assert gone == any(beats(other, one) for other in best)


@given(COSTS_AND_SCORES)
def test_along_the_front_scores_rise_with_costs(pairs):
    points = [point("m", score / 10, float(cost), 1) for cost, score in pairs]
    best = [(each.p50_ms, each.score) for each in front(points, LATENCY)]
    distinct = sorted(set(best))
    assert [b for b, _ in best] == sorted(b for b, _ in best)
    assert all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(distinct))


@given(COSTS_AND_SCORES, st.randoms())
def test_order_and_units_do_not_matter(pairs, random):
    costs, scores = map(np.array, zip(*pairs, strict=True))
    order = list(range(len(pairs)))
    random.shuffle(order)
    shuffled = dominated(1e-6 * costs[order], scores[order] / 100)
    assert shuffled.tolist() == dominated(costs, scores)[order].tolist()


def test_fronts_of_latency_and_of_size():
    assert [(p.model, p.variant) for p in front(POINTS, LATENCY)] == [
        ("static", "as is"), ("l2", "int8"), ("teacher", "as is"),
    ]  # fmt: skip
    assert [(p.model, p.variant) for p in front(POINTS, SIZE)] == [
        ("static", "int8"), ("static", "as is"), ("l2", "int8"), ("teacher", "as is"),
    ]  # fmt: skip


def test_the_table_says_on_which_front_each_is():
    lines = pareto_markdown(POINTS, ["said"]).splitlines()
    assert lines[2].startswith("| static | as is | 70.0 [68.0, 72.0] | 90.0 | 1.00 | 10.0 | 50 |")
    fronts = [line.split("|")[-2].strip() for line in lines[2:7]]
    assert fronts == ["latency, size", "size", "", "latency, size", "latency, size"]
    assert lines[-1] == "said"


def test_what_is_kept_is_read_again():
    points, facts = from_json(to_json(POINTS, {"machine": "this"}))
    assert points == POINTS and facts == {"machine": "this"}
    for broken in ("", "[]", "{}", '{"points": [{"model": "a"}]}', '{"points": 3}'):
        with pytest.raises(UserError, match="no points"):
            from_json(broken)
    with pytest.raises(UserError):
        from_json(to_json(POINTS, {}).replace('"as is"', "3", 1))


def test_dominated_points_are_grey_and_the_front_is_one_line(tmp_path):
    figure = draw_pareto(POINTS, title="A title")
    upper, by_size, lower, _ = figure.axes
    marks = {
        (line.get_xdata()[0], line.get_ydata()[0]): line.get_color()
        for line in upper.lines
        if line.get_marker() not in ("None", "", None)
    }
    beaten = {(p.p50_ms, 100 * p.score) for p in POINTS if p not in front(POINTS, LATENCY)}
    assert {place for place, colour in marks.items() if colour == BEATEN} == beaten
    assert len(marks) == len(POINTS)
    (steps,) = [line for line in upper.lines if len(line.get_xdata()) == 3]
    assert list(steps.get_xdata()) == [0.1, 1.0, 8.0]
    assert upper.get_xscale() == lower.get_xscale() == by_size.get_xscale() == "log"
    paths = save_drawing(lambda: draw_pareto(POINTS), tmp_path / "figure")
    assert paths[0].read_bytes().startswith(b"\x89PNG")
