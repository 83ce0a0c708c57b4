"""Statistics against textbook numbers, closed forms and laws."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from distill_jax.core.errors import UserError
from distill_jax.tables.statistics import (
    PairedTest,
    Summary,
    crossed_test,
    crossed_tests,
    holm,
    mean_squares,
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


@pytest.mark.parametrize("values", ["few", "many"])
def test_bootstrap_matches_resampling_done_plainly(values):
    rng = np.random.default_rng(1)
    a = rng.integers(0, 2, 200)
    b = np.where(rng.random(200) < 0.8, a, rng.integers(0, 2, 200))
    a[:12] = 1
    if values == "many":
        a = a + rng.normal(0, 0.1, 200)
    result = paired_bootstrap(a, b, resamples=20_000)
    d = a - b
    plain = d[rng.integers(0, 200, (20_000, 200))].mean(axis=1)
    assert result.difference == pytest.approx(d.mean())
    assert (result.low, result.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.006)
    plain_p = (np.abs(plain - d.mean()) >= abs(d.mean()) - 1e-12).mean()
    assert result.p == pytest.approx(plain_p, abs=0.015)


def test_bootstrap_is_seeded_and_understands_equal_systems():
    a, b = [1, 0, 1, 1, 0, 1] * 20, [0, 0, 1, 0, 1, 1] * 20
    assert paired_bootstrap(a, b, seed=3) == paired_bootstrap(a, b, seed=3)
    assert paired_bootstrap(a, b, seed=3) != paired_bootstrap(a, b, seed=4)
    same = paired_bootstrap(a, a)
    assert same.p == 1 and same.difference == same.low == same.high == 0
    always = paired_bootstrap([1] * 150, [0] * 150, resamples=999)
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


def joint(d_SN, weights=None):
    return crossed_test(mean_squares(d_SN, weights))


def crossed_by_hand(d_SN):
    """Mean, its variance and degrees of freedom, from sums over the two-way layout."""
    seeds, examples = len(d_SN), len(d_SN[0])
    mean = sum(map(sum, d_SN)) / (seeds * examples)
    row_means = [sum(row) / examples for row in d_SN]
    column_means = [sum(column) / seeds for column in zip(*d_SN, strict=True)]
    ms_seeds = examples * sum((m - mean) ** 2 for m in row_means) / (seeds - 1)
    ms_examples = seeds * sum((m - mean) ** 2 for m in column_means) / (examples - 1)
    ms_rest = sum(
        (d_SN[s][i] - row_means[s] - column_means[i] + mean) ** 2
        for s in range(seeds)
        for i in range(examples)
    ) / ((seeds - 1) * (examples - 1))
    ms_seeds, extra = max(ms_seeds, ms_rest), max(ms_examples - ms_rest, 0)
    total = ms_seeds + extra
    df = total**2 / (ms_seeds**2 / (seeds - 1) + extra**2 / (examples - 1))
    return mean, total / (seeds * examples), df


def layout(seed, seeds, examples, sd_seed, sd_example, sd_rest, mean=0.0):
    """Differences by seed and example with normal noise of each kind."""
    rng = np.random.default_rng(seed)
    return (
        mean
        + rng.normal(0, sd_seed, (seeds, 1))
        + rng.normal(0, sd_example, (1, examples))
        + rng.normal(0, sd_rest, (seeds, examples))
    )


@pytest.mark.parametrize("noise", [(0.5, 0.2, 1.0), (0.0, 2.0, 0.1), (0.0, 0.0, 1.0)])
def test_crossed_test_by_hand(noise):
    d_SN = layout(1, 4, 12, *noise, mean=0.3)
    mean, variance, df = crossed_by_hand(d_SN.tolist())
    test = joint(d_SN)
    assert (test.n, test.examples) == (4, 12)
    assert (test.difference, test.se, test.df) == pytest.approx((mean, variance**0.5, df))
    assert test.p == pytest.approx(2 * stats.t.sf(abs(mean) / variance**0.5, df))
    half = stats.t.ppf(0.975, df) * variance**0.5
    assert (test.low, test.high) == pytest.approx((mean - half, mean + half))


def test_crossed_test_is_one_of_its_parts_where_the_other_has_no_noise():
    # Examples that are all alike: the t-test over seeds; seeds that are all alike: over examples.
    seeds = np.tile([[0.1], [0.3], [0.6], [0.2]], 50)
    over_seeds = stats.ttest_1samp(seeds[:, 0], 0)
    assert joint(seeds).p == pytest.approx(over_seeds.pvalue)
    examples = np.tile(layout(0, 1, 200, 0, 1, 0, mean=0.2), (4, 1))
    over_examples = stats.ttest_1samp(examples[0], 0)
    assert joint(examples).p == pytest.approx(over_examples.pvalue)


def test_crossed_test_keeps_its_level_where_the_others_do_not():
    trials, rejected = 400, {"joint": 0, "seeds": 0, "examples": 0}
    for trial in range(trials):
        d_SN = layout(trial, 3, 200, 0.03, 0.3, 0.3)
        zero = dict.fromkeys(range(3), 0.0)
        found = {
            "joint": joint(d_SN),
            "seeds": paired_test(dict(enumerate(d_SN.mean(axis=1))), zero),
            "examples": paired_bootstrap(d_SN.mean(axis=0), np.zeros(200), resamples=500),
        }
        for name, test in found.items():
            rejected[name] += test.p < 0.05
    assert rejected["joint"] <= 0.075 * trials  # 5% expected
    assert rejected["seeds"] > 0.075 * trials and rejected["examples"] > 0.075 * trials


def test_weights_are_as_many_examples_with_one_difference():
    d_SN = layout(3, 4, 30, 0.1, 0.5, 0.4, mean=0.2)
    weights = np.arange(1, 31)
    test = joint(d_SN, weights)
    assert test.difference == pytest.approx(np.average(d_SN.mean(axis=0), weights=weights))
    assert joint(d_SN, np.full(30, 7.0)).se == pytest.approx(joint(d_SN).se)
    # The ratio's standard error over examples (Cochran 1977, section 2.11), seeds being alike.
    alike = np.tile(d_SN[:1], (4, 1))
    ratio = np.average(alike[0], weights=weights)
    residual = weights * (alike[0] - ratio)
    se = (residual.var(ddof=1) / 30) ** 0.5 / weights.mean()
    assert joint(alike, weights).se == pytest.approx(se)


def test_a_cluster_bootstrap_draws_users_with_all_their_cases():
    rng = np.random.default_rng(0)
    cases = rng.integers(1, 40, 150)
    a, b = rng.normal(0.1, 1, 150), np.zeros(150)
    test = paired_bootstrap(a, b, cases, resamples=20_000)
    drawn = rng.integers(0, 150, (20_000, 150))
    plain = (a * cases)[drawn].sum(axis=1) / cases[drawn].sum(axis=1)
    assert test.n == 150 and test.difference == pytest.approx(np.average(a, weights=cases))
    assert (test.low, test.high) == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.02)
    extreme = np.abs(plain - test.difference) >= abs(test.difference)
    assert test.p == pytest.approx(extreme.mean(), abs=0.02)
    equal = paired_bootstrap(a, b, np.full(150, 3))
    assert equal.p == paired_bootstrap(a, b).p


@pytest.mark.parametrize("n", [6, 9, 14])
def test_few_examples_have_the_exact_sign_flip_test(n):
    d = np.random.default_rng(n).normal(0.5, 1, n)
    flips = list(itertools.product([-1, 1], repeat=n))
    exact = sum(abs(np.dot(signs, d)) >= abs(d.sum()) - 1e-9 for signs in flips) / len(flips)
    assert paired_bootstrap(d, np.zeros(n)).p == pytest.approx(exact)
    always = paired_bootstrap(np.full(n, 0.25), np.zeros(n))
    assert always.p == 2.0 ** (1 - n)  # and not one in the number of resamples


def test_three_equal_differences_are_no_test():
    assert paired_bootstrap([1, 1, 1], [0, 0, 0]) is None
    assert mean_squares(np.ones((3, 5))) is None and mean_squares(np.ones((2, 50))) is None
    assert mean_squares(np.full((3, 50), np.nan)) is None
    assert joint(np.ones((3, 50))).p == 0.25  # of three seeds no test can say more
    assert joint(np.zeros((3, 50))).p == 1


def test_sampled_sign_flips_come_near_the_exact_ones():
    d = np.random.default_rng(0).normal(0.4, 1, 20)
    signs = 1 - 2 * np.random.default_rng(1).integers(0, 2, (200_000, 20))
    exact = (np.abs(signs @ d) >= abs(d.sum())).mean()
    assert paired_bootstrap(d, np.zeros(20)).p == pytest.approx(exact, abs=0.01)


def test_detectable_difference_is_found_as_often_as_it_says():
    noise, comparisons = (0.02, 0.3, 0.3), 4
    sizes = [joint(layout(t, 10, 400, *noise)).detectable(comparisons) for t in range(50)]
    truth = float(np.mean(sizes))
    found = [
        joint(layout(1000 + t, 10, 400, *noise, mean=truth)).p < 0.05 / comparisons
        for t in range(400)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


def test_in_a_group_no_seeds_count_as_far_quieter_than_the_others():
    sds = (0.0, 1.0, 1.0)
    quiet, loud, other = (mean_squares(layout(n, 4, 50, sd, 0.1, 0.2)) for n, sd in enumerate(sds))
    alone = [crossed_test(quiet), crossed_test(loud)]
    together = crossed_tests([quiet, loud, other])
    assert together[1] == alone[1]  # its own noise is more than half the median
    floor = min(loud.seeds, other.seeds) / 2
    total = floor + quiet.examples
    assert together[0].se == pytest.approx((total / 200) ** 0.5) and floor > quiet.seeds
    assert together[0].difference == alone[0].difference and together[0].p > alone[0].p
    assert crossed_tests([quiet]) == [crossed_test(quiet)] and crossed_tests([]) == []


def test_a_group_of_many_keeps_its_level_where_seeds_are_noisy():
    tables, alone, together = 150, 0, 0
    for table in range(tables):
        base = layout(table, 5, 60, 0.1, 0.1, 0.3)
        rows = [layout(1000 * (table + 1) + r, 5, 60, 0.1, 0.1, 0.3) for r in range(20)]
        family = [mean_squares(row - base) for row in rows]
        alone += min(crossed_test(each).p for each in family) < 0.05 / 20
        together += min(test.p for test in crossed_tests(family)) < 0.05 / 20
    assert together <= 0.08 * tables < alone + 0.04 * tables
    assert together < alone
