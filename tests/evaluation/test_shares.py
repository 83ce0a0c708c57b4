"""Numbers of single examples: their mean is the score, and they move as a resample does."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from distill_jax.evaluation.shares import of_correlation, of_ratio

RNG = np.random.default_rng(0)


def test_the_mean_is_the_score():
    above, below = RNG.integers(0, 3, 50), RNG.integers(1, 5, 50)
    assert of_ratio(above, below).mean() == pytest.approx(above.sum() / below.sum())
    x = RNG.normal(size=50)
    y = x + RNG.normal(size=50)
    assert of_correlation(x, y).mean() == pytest.approx(stats.pearsonr(x, y).statistic)


def test_micro_f1_is_such_a_ratio():
    labels, given = RNG.random((2, 40, 3)) < 0.4
    above = 2 * (labels & given).sum(axis=1)
    below = labels.sum(axis=1) + given.sum(axis=1)
    expected = f1_score(labels, given, average="micro")
    assert of_ratio(above, below).mean() == pytest.approx(expected)


def test_nothing_below_is_no_score():
    assert of_ratio([0, 0], [0, 0]).tolist() == [0.0, 0.0]
    assert np.isnan(of_correlation([1.0, 1.0], [0.0, 1.0])).all()


@pytest.mark.parametrize("kind", ["ratio", "correlation"])
def test_the_mean_of_a_resample_is_near_the_score_of_the_resample(kind):
    """The spread over resamples is that of the score itself; a plain mean of terms is not."""
    n = 400
    x = RNG.normal(size=n)
    y = 0.8 * x + 0.6 * RNG.normal(size=n)
    above, below = RNG.integers(0, 2, n), RNG.integers(1, 4, n)
    numbers = of_ratio(above, below) if kind == "ratio" else of_correlation(x, y)
    exact, linear = [], []
    for _ in range(300):
        rows = RNG.integers(0, n, n)
        linear.append(numbers[rows].mean())
        if kind == "ratio":
            exact.append(above[rows].sum() / below[rows].sum())
        else:
            exact.append(stats.pearsonr(x[rows], y[rows]).statistic)
    assert np.corrcoef(exact, linear)[0, 1] > 0.99
    assert np.std(linear) == pytest.approx(np.std(exact), rel=0.1)
    plain = x * y if kind == "correlation" else above / below
    assert abs(plain.std() / numbers.std() - 1) > 0.1
