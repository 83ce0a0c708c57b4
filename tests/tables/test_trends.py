"""Trends: numbers by hand, choices that never see test, no test where there is no evidence."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import sample_run
from scipy import stats

from distill_jax.core.errors import UserError
from distill_jax.tables.trends import (
    Contrast,
    Pick,
    Trend,
    best_of,
    difference,
    evaluate_trend,
    gain_difference,
    ordering,
    slope,
)
from distill_jax.tables.trends_markdown import trends_markdown

A, B, C = ("a", "g"), ("b", "g"), ("c", "g")
LOW = [0.70, 0.71, 0.69, 0.70]
HIGH = [0.80, 0.82, 0.81, 0.79]


def run(row, group, seed, test, validation):
    metrics = {"test/accuracy": test, "validation/accuracy": validation}
    return sample_run(row, group, seed, metrics=metrics)


def runs(where, test, validation=None, seeds=None):
    seeds = seeds or range(len(test))
    validation = validation or [0.5] * len(test)
    values = zip(seeds, test, validation, strict=True)
    return {where: {seed: run(*where, seed, t, v) for seed, t, v in values}}


def test_difference_by_hand():
    result = evaluate_trend(difference("a is better", A, B), runs(A, HIGH) | runs(B, LOW))
    differences = np.subtract(HIGH, LOW)
    half = stats.t.ppf(0.975, 3) * differences.std(ddof=1) / 2
    (summary,) = result.summaries
    assert summary.n == 4
    assert summary.mean == pytest.approx(differences.mean())
    assert summary.low == pytest.approx(differences.mean() - half)
    assert result.verdict == "held"
    assert result.held == (True,)


def test_opposite_is_said():
    scores = runs(A, LOW) | runs(B, HIGH)
    result = evaluate_trend(difference("a is better", A, B), scores)
    assert (result.verdict, result.verdicts) == ("not held", ("not held: opposite",))
    assert evaluate_trend(difference("a is worse", A, B, claim="negative"), scores).held == (True,)
    assert "not held: opposite" in trends_markdown([result])


def test_undecided_is_not_opposite():
    scores = runs(A, [0.7, 0.8, 0.6]) | runs(B, [0.6, 0.9, 0.65])
    for claim in ("positive", "negative"):
        assert evaluate_trend(difference("?", A, B, claim=claim), scores).verdicts == ("not held",)


@pytest.mark.parametrize(
    ("claim", "margin", "shift", "verdict"),
    [
        ("within", 0.02, 0.0, "held"),
        ("within", 0.02, 0.015, "not held"),
        ("within", 0.02, 0.05, "not held: opposite"),
        ("within", 0.02, -0.05, "not held: opposite"),
        ("not_below", 0.02, 0.05, "held"),
        ("not_below", 0.02, -0.015, "not held"),
        ("not_below", 0.02, -0.05, "not held: opposite"),
    ],
)
def test_margins(claim, margin, shift, verdict):
    noise = [0.004, -0.004, 0.006, -0.006]
    scores = runs(A, [0.7 + shift + e for e in noise]) | runs(B, [0.7] * 4)
    trend = difference("as good", A, B, claim=claim, margin=margin)
    assert evaluate_trend(trend, scores).verdicts == (verdict,)


def test_only_common_seeds_count():
    scores = runs(A, [0.9, *HIGH], seeds=[9, 0, 1, 2, 3]) | runs(B, [*LOW, 0.1])
    result = evaluate_trend(difference("a is better", A, B), scores)
    assert result.summaries[0].n == 4
    assert result.summaries[0].mean == pytest.approx(np.subtract(HIGH, LOW).mean())


def test_pairing_is_by_seed_not_by_order():
    shuffled = runs(B, LOW[::-1], seeds=[3, 2, 1, 0])
    assert (
        evaluate_trend(difference("a", A, B), runs(A, HIGH) | shuffled).summaries
        == evaluate_trend(difference("a", A, B), runs(A, HIGH) | runs(B, LOW)).summaries
    )


def test_best_of_looks_at_validation_only():
    scores = (
        runs(A, LOW, validation=[0.9, 0.9, 0.9, 0.9])
        | runs(B, HIGH, validation=[0.95, 0.8, 0.8, 0.8])  # best on test, and for one seed
        | runs(C, [0.5, 0.51, 0.52, 0.5])
    )
    result = evaluate_trend(difference("tuned", best_of([B, A]), C), scores)
    assert result.chosen == ((A, C),)
    assert result.summaries[0].mean == pytest.approx(np.mean(LOW) - 0.5075)
    assert "by validation/accuracy the best of 2 is a (g)" in trends_markdown([result])


def test_best_of_chooses_over_the_common_seeds():
    scores = (
        runs(A, [*LOW, 0.7], validation=[0.9, 0.9, 0.9, 0.9, 0.0])
        | runs(B, HIGH, validation=[0.8] * 4)
        | runs(C, [0.5, 0.51, 0.52, 0.5])
    )
    assert evaluate_trend(difference("t", best_of([A, B]), C), scores).chosen == ((A, C),)


def test_best_of_passes_over_a_diverged_candidate():
    bad = [math.nan] * 4
    scores = runs(A, bad, validation=bad) | runs(B, HIGH) | runs(C, LOW)
    assert evaluate_trend(difference("t", best_of([A, B]), C), scores).chosen == ((B, C),)
    result = evaluate_trend(difference("t", best_of([A, A]), C), scores)
    assert result.verdict == "no test: a (g) has no finite validation/accuracy"


def test_ordering_needs_every_step():
    middle = [0.75, 0.76, 0.74, 0.76]
    scores = runs(A, HIGH) | runs(B, middle) | runs(C, LOW)
    assert evaluate_trend(ordering("a > b > c", [A, B, C]), scores).verdict == "held"
    result = evaluate_trend(ordering("a > c > b", [A, C, B]), scores)
    assert result.verdicts == ("held", "not held: opposite")
    assert result.verdict == "not held"
    table = trends_markdown([result])
    assert "| a > c > b | all 2 below | | **not held** |" in table
    assert "| | a − c (g) > 0 |" in table.replace("|  |", "| |")


def test_a_contrast_without_test_leaves_the_trend_open():
    scores = runs(A, HIGH) | runs(B, LOW)
    result = evaluate_trend(ordering("a > b > c", [A, B, C]), scores)
    assert result.verdict == "no test: no runs of c (g)"
    assert result.held == (True, False)
    failed = evaluate_trend(ordering("b > a > c", [B, A, C]), scores)
    assert failed.verdict == "not held"


@given(
    st.lists(st.floats(0, 100), min_size=2, max_size=6, unique=True).map(sorted),
    st.integers(0, 2**32 - 1),
)
def test_slope_is_least_squares_over_the_range(x, seed):
    if min(np.diff(x)) < 1e-3:
        return
    rng = np.random.default_rng(seed)
    places = [(f"x{i}", "g") for i in range(len(x))]
    y = rng.uniform(0, 1, (len(x), 3))
    scores = {}
    for place, values in zip(places, y, strict=True):
        scores |= runs(place, list(values))
    (summary,) = evaluate_trend(slope("rises", places, x), scores).summaries
    expected = [np.polyfit(x, y[:, k], 1)[0] * (x[-1] - x[0]) for k in range(3)]
    assert summary.mean == pytest.approx(np.mean(expected), abs=1e-6)
    assert summary.sd == pytest.approx(np.std(expected, ddof=1), abs=1e-6)


def test_slope_of_two_places_is_their_difference():
    scores = runs(A, LOW) | runs(B, HIGH)
    line = evaluate_trend(slope("rises", [A, B], [1, 20]), scores).summaries[0]
    assert line.mean == pytest.approx(np.subtract(HIGH, LOW).mean())


def test_gain_difference_by_hand():
    here, there = (("kl", "5%"), ("ce", "5%")), (("kl", "100%"), ("ce", "100%"))
    few = runs(here[0], [0.8, 0.81, 0.8]) | runs(here[1], [0.7, 0.7, 0.71])
    many = runs(there[0], [0.9, 0.9, 0.91]) | runs(there[1], [0.88, 0.89, 0.89])
    result = evaluate_trend(gain_difference("more with few labels", here, there), few | many)
    assert result.summaries[0].mean == pytest.approx(
        np.mean([0.1 - 0.02, 0.11 - 0.01, 0.09 - 0.02])
    )
    assert result.trend.contrasts[0].label == "[kl − ce (5%)] − [kl − ce (100%)]"
    assert result.verdict == "held"


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (runs(A, HIGH), "no runs of b (g)"),
        (runs(A, HIGH[:2]) | runs(B, LOW[:2]), "2 seeds in common"),
        (runs(A, HIGH) | runs(B, [0.7, math.nan, 0.7, 0.7]), "b (g) lacks a finite test/accuracy"),
        (runs(A, HIGH) | runs(B, [0.7, math.inf, 0.7, 0.7]), "b (g) lacks a finite test/accuracy"),
        (runs(A, [0.8] * 4) | runs(B, [0.7] * 4), "the same value for all 4 seeds"),
    ],
)
def test_no_test(scores, why):
    result = evaluate_trend(difference("a is better", A, B), scores)
    assert result.verdict.startswith("no test: ")
    assert why in result.verdict
    assert result.held == (False,)
    assert "| – |" in trends_markdown([result])


def test_missing_metric_is_no_test():
    trend = difference("a is better", A, B, metric="test/pearson")
    result = evaluate_trend(trend, runs(A, HIGH) | runs(B, LOW))
    assert result.verdict == "no test: a (g) lacks a finite test/pearson"


def test_rounding_errors_are_no_effect():
    places = [("x0", "g"), ("x1", "g"), ("x2", "g")]
    scores = {}
    for place in places:
        scores |= runs(place, [0.1, 0.7, 0.3, 0.6, 0.9, 0.2, 0.5])
    result = evaluate_trend(slope("rises", places, [1, 3, 20]), scores)
    assert result.verdict == "not held"
    assert result.summaries[0].mean == 0


def test_six_equal_differences_are_evidence():
    scores = runs(A, [0.75] * 6) | runs(B, [0.5] * 6)
    assert evaluate_trend(difference("a", A, B), scores).verdict == "held"


@pytest.mark.parametrize(
    "trend",
    [
        difference("a", A, B, claim="within", margin=0.01),
        ordering("o", [A, B, C]),
        slope("s", [A, B], [1, 2], metric="test/macro_f1"),
        gain_difference("g", (A, B), (best_of([A, C]), B)),
    ],
)
def test_json_round_trip(trend):
    assert Trend.from_dict(json.loads(json.dumps(dataclasses.asdict(trend)))) == trend


def test_unknown_fields_do_not_pass():
    fields = dataclasses.asdict(difference("a", A, B)) | {"clame": "positive"}
    with pytest.raises(TypeError):
        Trend.from_dict(fields)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ordering("o", [A]),
        lambda: slope("s", [A, B], [1]),
        lambda: slope("s", [A, B], [1, math.inf]),
        lambda: slope("s", [A, B], [2, 1]),
        lambda: difference("d", A, B, claim="larger"),
        lambda: difference("d", A, B, claim="within"),
        lambda: difference("d", A, B, claim="not_below", margin=-0.1),
        lambda: difference("d", best_of([]), B),
        lambda: Trend("t", ()),
        lambda: Trend("t", (Contrast("c", ()),)),
    ],
)
def test_mistakes_are_said(wrong):
    with pytest.raises(UserError):
        wrong()


def test_markdown_escapes_objectives():
    places = ("0.9*kl(T=4) + 0.1*ce", "s|1"), ("ce", "s|1")
    scores = runs(places[0], HIGH) | runs(places[1], LOW)
    table = trends_markdown([evaluate_trend(difference("KL > CE", *places), scores)])
    row = next(line for line in table.splitlines() if "KL > CE" in line)
    assert "0.9\\*kl(T=4) + 0.1\\*ce − ce (s\\|1) > 0" in row
    assert "+10.50 [+8.45, +12.55]" in row
    assert row.endswith("| **held** |")
    assert "over 4 seeds" in table


def test_weights_reach_the_values():
    mean_of_two = Contrast("mean", (Pick((A,), 0.5), Pick((B,), 0.5)))
    result = evaluate_trend(Trend("above 0", (mean_of_two,)), runs(A, HIGH) | runs(B, LOW))
    assert result.summaries[0].mean == pytest.approx((np.mean(HIGH) + np.mean(LOW)) / 2)
