"""Losses on logits as numbers, class by class, against formulas in plain loops."""

import math

import numpy as np
import pytest

from distill_jax import losses


def mean(values):
    return sum(values) / len(values)


def softmax(logits, T=1.0):
    top = max(logits)
    odds = [math.exp((z - top) / T) for z in logits]
    return [o / sum(odds) for o in odds]


def correlation(a, b):
    """Pearson's r; 0 where one side is constant."""
    a, b = [x - mean(a) for x in a], [x - mean(b) for x in b]
    across = sum(x * y for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    return across / spread if spread > 0 else 0.0


def over_examples(formula):
    def oracle(student, teacher, *, where, **hyper):
        values = np.zeros(where.shape)
        for b in range(len(where)):
            if where[b]:
                values[b] = formula(list(student[b]), list(teacher[b]), **hyper)
        return values

    return oracle


def mse(s, t):
    return mean([(a - b) ** 2 for a, b in zip(s, t, strict=True)])


def kl_infinite_temperature(s, t):
    s, t = [a - mean(s) for a in s], [b - mean(t) for b in t]
    return mse(s, t) / 2


def cosine_logits(s, t):
    across = sum(a * b for a, b in zip(s, t, strict=True))
    return 1 - across / math.sqrt(sum(a * a for a in s) * sum(b * b for b in t))


def bce(s, t, T=1.0):
    total = 0.0
    for a, b in zip(s, t, strict=True):
        q, p = 1 / (1 + math.exp(-a / T)), 1 / (1 + math.exp(-b / T))
        total -= p * math.log(q) + (1 - p) * math.log(1 - q)
    return T**2 * total


def dist(student, teacher, *, where, T=1.0, beta=1.0, gamma=1.0):
    there = [b for b in range(len(where)) if where[b]]
    p_s = {b: softmax(list(student[b]), T) for b in there}
    p_t = {b: softmax(list(teacher[b]), T) for b in there}
    intra = 0.0
    if len(there) > 1:
        for c in range(student.shape[-1]):
            r = correlation([p_s[b][c] for b in there], [p_t[b][c] for b in there])
            intra += (1 - r) / student.shape[-1]
    values = np.zeros(where.shape)
    for b in there:
        values[b] = beta * (1 - correlation(p_s[b], p_t[b])) + gamma * intra
    return values


CASES = {
    "mse_logits": (losses.mse_logits, over_examples(mse), {}),
    "mse_regression": (losses.mse_regression, over_examples(mse), {}),
    "kl_infinite_temperature": (
        losses.kl_infinite_temperature,
        over_examples(kl_infinite_temperature),
        {},
    ),
    "cosine_logits": (losses.cosine_logits, over_examples(cosine_logits), {}),
    "bce": (losses.bce, over_examples(bce), {"T": 2.0}),
    "dist": (losses.dist, dist, {"T": 2.0, "beta": 0.5, "gamma": 2.0}),
}
# Its values are compared with the released code in test_released.py.
DIST_RELEASED = losses.dist, None, {"T": 2.0, "variant": "as_released"}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_formula(case, bench, rng):
    loss, oracle, hyper = CASES[case]
    student, teacher = rng.normal(size=(2, 4, 5)) * 2
    student[1], teacher[1] = student[0], teacher[0]
    student[2] = np.nan
    where = np.array([True, True, False, True])
    bench.check(loss, oracle, student, teacher, where=where, **hyper)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("classes", [2, 1000])
def test_few_and_many_classes_in_a_batch_of_one(case, classes, bench, rng):
    loss, oracle, hyper = CASES[case]
    student, teacher = rng.normal(size=(2, 1, classes))
    # Two classes correlate with +-1 whatever the student says: round-off is all its gradient.
    bench.check(loss, oracle, student, teacher, where=np.ones(1, bool), entries=4, **hyper)


@pytest.mark.parametrize("case", [*CASES, "dist_released"])
def test_extreme_logits_have_finite_values_and_gradients(case, bench):
    loss, _, hyper = CASES.get(case, DIST_RELEASED)
    student = np.array([[1e4, -1e4, 0, -np.inf, 1], [0] * 5, [0] * 5, [-np.inf] * 5])
    teacher = np.array([[-1e4, 1e4, 0, 1, -np.inf], [0] * 5, [1, 2, 3, 4, 5], [0] * 5])
    if case == "mse_regression":
        student, teacher = np.nan_to_num(student, neginf=-1e4), np.nan_to_num(teacher, neginf=-1e4)
    values, grads = bench(loss, student, teacher, where=np.ones(4, bool), **hyper)
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))


def test_classes_at_minus_infinity_are_left_out_of_means(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 5))
    for case in ("mse_logits", "kl_infinite_temperature", "cosine_logits"):
        loss, oracle, _ = CASES[case]
        expected = oracle(student[:, :3], teacher[:, :3], where=np.ones(4, bool))
        worse_s, worse_t = student.copy(), teacher.copy()
        worse_s[:, 3], worse_t[:, 4] = -np.inf, -np.inf
        values, grads = bench(loss, worse_s, worse_t, where=np.ones(4, bool))
        np.testing.assert_allclose(values, expected, rtol=1e-9)
        np.testing.assert_array_equal(grads[:, 3:], 0)


def test_bce_reads_infinite_teacher_logits_as_hard_labels(bench, rng):
    student = rng.normal(size=(4, 5))
    labels = rng.integers(0, 2, size=(4, 5))
    teacher = np.where(labels == 1, np.inf, -np.inf)
    values, _ = bench(losses.bce, student, teacher, where=np.ones(4, bool), T=1.0)
    q = 1 / (1 + np.exp(-student))
    expected = -np.log(np.where(labels == 1, q, 1 - q)).sum(axis=-1)
    np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_standardized_logits_have_mean_zero_and_deviation_one(rng):
    logits = rng.normal(size=(4, 5)).astype(np.float32) * 7 + 3
    logits[0, 4] = -np.inf
    where = np.array([True, True, True, False])
    for variant, ddof in (("paper", 0), ("as_released", 1)):
        got = np.asarray(losses.standardize_logits(logits, where=where, variant=variant))
        for b, count in ((0, 4), (1, 5), (2, 5)):
            z = logits[b, :count].astype(np.float64)
            expected = (z - z.mean()) / z.std(ddof=ddof)
            np.testing.assert_allclose(got[b, :count], expected, rtol=1e-4, atol=1e-5)
        assert got[0, 4] == -1e9
        np.testing.assert_array_equal(got[3], 0)


def test_dist_needs_examples_to_relate():
    with pytest.raises(ValueError, match="compares examples"):
        losses.dist(np.zeros(3, np.float32), np.zeros(3, np.float32))
