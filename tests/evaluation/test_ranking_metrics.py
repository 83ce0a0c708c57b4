import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.evaluation import ranking

# Five cases by hand: the target came first, second, third, eleventh and fourth.
RANKS = [1, 2, 3, 11, 4]


def test_hit_rate_by_hand():
    assert ranking.hit_rate(RANKS, 3).tolist() == [1, 1, 1, 0, 0]
    assert ranking.hit_rate(RANKS, 10).tolist() == [1, 1, 1, 0, 1]


def test_ndcg_by_hand():
    expected = [1, 1 / math.log2(3), 1 / 2, 0, 0]
    np.testing.assert_allclose(ranking.ndcg(RANKS, 3), expected, rtol=1e-12)


def test_reciprocal_rank_by_hand():
    np.testing.assert_allclose(ranking.reciprocal_rank(RANKS, 3), [1, 1 / 2, 1 / 3, 0, 0])


def test_means_by_hand():
    found = ranking.mean_metrics(RANKS, (1, 4))
    assert found["hr@1"] == found["ndcg@1"] == found["mrr@1"] == 0.2
    assert found["hr@4"] == 0.8
    assert found["mrr@4"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 5)
    assert found["ndcg@4"] == pytest.approx((1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5)) / 5)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 40))
def test_laws(ranks, k):
    found = ranking.mean_metrics(ranks, (k, k + 1))
    for name in ("hr", "ndcg", "mrr"):
        assert 0 <= found[f"{name}@{k}"] <= found[f"{name}@{k + 1}"] <= 1
    assert found[f"mrr@{k}"] <= found[f"ndcg@{k}"] <= found[f"hr@{k}"]


def test_a_run_that_diverged_has_no_figures():
    found = ranking.mean_metrics([1, 0, 2])
    assert all(math.isnan(value) for value in found.values()) and len(found) == 3


def test_wrong_input():
    with pytest.raises(UserError, match="no case"):
        ranking.mean_metrics([])
    with pytest.raises(UserError, match="k = 0"):
        ranking.hit_rate([1], 0)
    with pytest.raises(UserError, match="too short for k = 3"):
        ranking.list_metrics(np.zeros((2, 2), int), [1, 1], (3,))


def test_means_by_user():
    values = [1.0, 0.0, 0.5, 1.0]
    users, means, cases = ranking.user_means(values, [7, 7, 2, 7])
    assert users.tolist() == [2, 7] and means.tolist() == [0.5, pytest.approx(2 / 3)]
    assert cases.tolist() == [1, 3]
    assert np.average(means, weights=cases) == pytest.approx(np.mean(values))


def test_lists_by_hand():
    # Four items with 10, 4, 4 and 0 training interactions.
    counts = [10, 4, 4, 0]
    top = np.array([[0, 1], [0, 2], [0, -1]])
    found = ranking.list_metrics(top, counts, (1, 2))
    assert found["coverage@1"] == 0.25 and found["coverage@2"] == 0.75
    assert found["popularity@1"] == 10 and found["popularity@2"] == (3 * 10 + 4 + 4) / 5
    # Percentiles: 3.5/4 for the first, 2/4 for the two equals, 0.5/4 for the last.
    assert found["popularity_percentile@1"] == 3.5 / 4
    assert found["popularity_percentile@2"] == pytest.approx((3 * 3.5 + 2 + 2) / 4 / 5)
    assert found["gini@1"] == pytest.approx(3 / 4)


def test_gini_by_hand_and_by_definition():
    assert ranking.gini([3, 3, 3]) == 0 and math.isnan(ranking.gini([0, 0]))
    times = np.array([5, 1, 0, 2])
    mean_difference = np.abs(times[:, None] - times[None, :]).mean()
    assert ranking.gini(times) == pytest.approx(mean_difference / (2 * times.mean()))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20))
def test_percentiles_have_mean_one_half(counts):
    assert ranking.popularity_percentiles(counts).mean() == pytest.approx(0.5)


def test_groups_of_items():
    counts = np.array([5, 0, 9, 5, 1, 1, 0])
    groups = ranking.item_groups(counts, head=0.4)  # two of the five that are not cold
    assert [ranking.GROUPS[g] for g in groups] == [
        "head", "cold", "head", "tail", "tail", "tail", "cold",
    ]  # fmt: skip
    assert (ranking.item_groups(np.zeros(3, int)) == ranking.COLD).all()


def test_slices():
    counts = np.array([9, 1, 0, 1, 1])
    targets = np.array([0, 1, 2, 0])
    found = ranking.slice_metrics(
        np.array([1, 3, 2, 20]), (10,), ranking.target_slices(targets, counts)
    )
    assert found["cases/head"] == 2 and found["hr@10/head"] == 0.5
    assert found["cases/tail"] == found["cases/cold"] == 1 and found["mrr@10/cold"] == 0.5
    by_length = dict(ranking.length_slices(np.array([1, 2, 3, 9]), (2, 5)))
    assert {name: where.tolist() for name, where in by_length.items()} == {
        "history 0-2": [True, True, False, False],
        "history 3-5": [False, False, True, False],
        "history 6-": [False, False, False, True],
    }
    empty = [("none", np.zeros(4, bool))]
    assert ranking.slice_metrics(np.ones(4), (10,), empty) == {}


def test_overlap_of_lists():
    first, second = [[1, 2, 3], [4, 5, -1]], [[3, 9, 1], [5, -1, -1]]
    assert ranking.overlap(first, second) == pytest.approx((2 + 1) / 6)
    assert ranking.overlap(first[:1], first[:1]) == 1
    with pytest.raises(UserError, match="cannot be compared"):
        ranking.overlap(first, first[:1])
