"""Statistics against textbook numbers, closed forms and laws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.sweeps.statistics import (
    PairedTest,
    Summary,
    holm,
    paired_bootstrap,
    paired_test,
    summarise,
)

p_values = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8)


def test_summary_by_hand():
    summary = summarise([1.0, 2.0, 3.0, 6.0])
    sd = math.sqrt((4 + 1 + 0 + 9) / 3)
    half = 3.182446305284263 * sd / 2  # t_{0.975, 3} from a table
    assert summary.n == 4 and summary.mean == 3
    assert summary.sd == pytest.approx(sd)
    assert (summary.low, summary.high) == pytest.approx((3 - half, 3 + half))


def test_summary_of_few():
    assert repr(summarise([])) == repr(Summary(0, *[math.nan] * 4))
    assert repr(summarise([2.0])) == repr(Summary(1, 2.0, *[math.nan] * 3))
    assert math.isnan(summarise([1.0, math.nan, 2.0]).mean)


def test_paired_test_is_the_closed_form_for_three_pairs():
    # d = 1, 2, 3: t = 2 / (1 / sqrt 3). With 2 degrees of freedom p = 1 - t / sqrt(2 + t^2).
    test = paired_test({0: 2.0, 1: 4.0, 2: 6.0}, {0: 1.0, 1: 2.0, 2: 3.0})
    t = 2 * math.sqrt(3)
    half = 4.302652729911275 / math.sqrt(3)
    assert test.n == 3 and test.difference == pytest.approx(2)
    assert test.p == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert (test.low, test.high) == pytest.approx((2 - half, 2 + half))


def test_pairs_are_matched_by_seed_not_by_order():
    baseline = {0: 1.0, 1: 2.0, 2: 3.0, 3: 9.0}
    scores = {7: 5.0, 2: 6.0, 1: 4.0, 0: 2.0}
    in_order = {0: 2.0, 1: 4.0, 2: 6.0}
    assert paired_test(scores, baseline).p == pytest.approx(paired_test(in_order, baseline).p)
    assert paired_test(scores, baseline).n == 3


def test_fewer_than_three_pairs_or_a_diverged_run_give_no_test():
    assert paired_test({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.5}) is None
    assert paired_test({0: 1.0, 1: 2.0, 2: 3.0}, {3: 0.0, 4: 0.5, 5: 1.0}) is None
    assert paired_test({0: 1.0, 1: math.nan, 2: 3.0}, {0: 0.0, 1: 0.5, 2: 1.0}) is None
    assert paired_test({}, {}) is None


@pytest.mark.parametrize("n", [3, 5, 8])
def test_identical_differences_get_the_exact_sign_flip_p(n):
    # 0.1 + 0.2 and friends: equal differences up to rounding, a vast t by mistake.
    baseline = {seed: 0.1 * seed for seed in range(n)}
    test = paired_test({seed: score + 0.2 for seed, score in baseline.items()}, baseline)
    flips = list(itertools.product([-1, 1], repeat=n))
    exact = sum(abs(sum(signs)) >= n for signs in flips) / len(flips)
    assert test.p == exact == 2.0 ** (1 - n)
    assert paired_test(baseline, baseline) == PairedTest(n, 0.0, 0.0, 0.0, 1.0)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8),
    st.floats(-1, 1),
)
def test_paired_test_laws(pairs, shift):
    ours = {seed: a for seed, (a, _) in enumerate(pairs)}
    theirs = {seed: b for seed, (_, b) in enumerate(pairs)}
    test, swapped = paired_test(ours, theirs), paired_test(theirs, ours)
    assert 0 <= test.p <= 1
    assert test.p == pytest.approx(swapped.p)
    assert test.difference == pytest.approx(-swapped.difference)
    assert test.low <= test.difference <= test.high
    # Significant exactly when the interval leaves out 0 (where t is defined).
    if test.low < test.high and abs(test.p - 0.05) > 1e-6:
        assert (test.p < 0.05) == (test.low > 0 or test.high < 0)


def test_bootstrap_matches_resampling_done_plainly():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 2, 200)
    b = np.where(rng.random(200) < 0.8, a, rng.integers(0, 2, 200))
    a[:12] = 1
    result = paired_bootstrap(a, b, resamples=20_000)
    d = a - b
    plain = d[rng.integers(0, 200, (20_000, 200))].mean(axis=1)
    assert result.difference == pytest.approx(d.mean())
    assert (result.low, result.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.006)
    plain_p = (np.abs(plain - d.mean()) >= abs(d.mean()) - 1e-12).mean()
    assert result.p == pytest.approx(plain_p, abs=0.015)


def test_bootstrap_is_seeded_and_understands_equal_systems():
    a, b = [1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 1]
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert paired_bootstrap(a, b, seed=3) != paired_bootstrap(a, b, seed=4)
    same = paired_bootstrap(a, a)
    assert same.p == 1 and same.difference == same.low == same.high == 0
    always = paired_bootstrap([1] * 50, [0] * 50, resamples=999)
    assert always.p == 1 / 1000  # never 0: no more than the resamples can show


def test_bootstrap_finds_a_difference_and_keeps_its_level_without_one():
    rng = np.random.default_rng(0)
    right = (rng.random(1000) < 0.8).astype(float), (rng.random(1000) < 0.6).astype(float)
    assert paired_bootstrap(*right, resamples=2000).p < 0.001
    rejected = 0
    for trial in range(200):
        pair = rng.integers(0, 2, (2, 100))
        rejected += paired_bootstrap(*pair, resamples=400, seed=trial).p < 0.05
    assert rejected <= 20  # 10 expected at 5%


def test_bootstrap_refuses_what_is_no_pair():
    for a, b in [([1, 0], [1]), ([], []), ([[1]], [[0]])]:
        with pytest.raises(UserError, match="one length"):
            paired_bootstrap(a, b)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, then 0.04 -> 0.06.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == [] and holm([None]) == [None]


@given(p_values)
def test_holm_laws(raw):
    adjusted = holm(raw)
    assert [p is None for p in adjusted] == [p is None for p in raw]
    pairs = [(p, q) for p, q in zip(raw, adjusted, strict=True) if p is not None]
    m = len(pairs)
    for p, q in pairs:
        assert p <= q <= min(1, m * p) + 1e-12  # between no correction and Bonferroni's
    for (p, q), (p2, q2) in itertools.product(pairs, pairs):
        if p <= p2:
            assert q <= q2
    if pairs:
        smallest = min(p for p, _ in pairs)
        assert min(q for _, q in pairs) == pytest.approx(min(1, m * smallest))


@given(p_values, st.randoms(use_true_random=False))
def test_holm_does_not_depend_on_the_order(raw, random):
    order = list(range(len(raw)))
    random.shuffle(order)
    assert holm([raw[i] for i in order]) == [holm(raw)[i] for i in order]


def test_holm_refuses_what_is_no_p_value():
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            holm([0.5, bad])
