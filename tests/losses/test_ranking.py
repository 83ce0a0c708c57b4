"""Ranking losses against formulas in plain loops."""

import math

import numpy as np
import pytest

from distill_jax import losses

WHERE = np.array([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], bool)


def softmax(scores):
    top = max(scores)
    odds = [math.exp(z - top) for z in scores]
    return [o / sum(odds) for o in odds]


def falling(scores):
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def over_lists(formula):
    """An oracle for lists from a formula on a list's unmasked items (never none)."""

    def oracle(student, teacher, *, where, **hyper):
        values = np.zeros(len(where))
        for b in range(len(where)):
            items = [i for i in range(where.shape[1]) if where[b, i]]
            if items:
                values[b] = formula(
                    *([x[b, i] for i in items] for x in (student, teacher)), **hyper
                )
        return values

    return oracle


def listnet(s, t):
    return -sum(p * math.log(q) for p, q in zip(softmax(t), softmax(s), strict=True))


def likelihood(s, t, k=10):
    order = falling(t)
    value = 0.0
    for place, item in enumerate(order[:k]):
        value -= s[item] - math.log(sum(math.exp(s[j]) for j in order[place:]))
    return value


def ranking_distillation(s, t, k=10, lam=10.0, mu=0.1):
    place_s = {item: r for r, item in enumerate(falling(s))}
    weights, value = [], 0.0
    for r, item in enumerate(falling(t)[:k]):
        weight = math.exp(-(r + 1) / lam) * math.tanh(max(mu * (place_s[item] - r), 0))
        weights.append(weight)
        value += weight * math.log(1 + math.exp(-s[item]))
    return value / sum(weights) if sum(weights) > 0 else 0.0


def pairwise_logistic(s, t):
    pairs = [(i, j) for i in range(len(t)) for j in range(len(t)) if t[i] > t[j]]
    return sum(math.log(1 + math.exp(s[j] - s[i])) for i, j in pairs) / max(len(pairs), 1)


def margin_mse(student, teacher, *, where):
    values = np.zeros(len(where))
    for b in range(len(where)):
        others = [i for i in range(1, where.shape[1]) if where[b, i]]
        if where[b, 0] and others:
            for i in others:
                margins = [x[b, 0] - x[b, i] for x in (student, teacher)]
                values[b] += (margins[0] - margins[1]) ** 2 / len(others)
    return values


CASES = {
    "listnet": (losses.listnet, over_lists(listnet), {}),
    "listmle": (losses.listmle, over_lists(likelihood), {}),
    "relaxed_ranking": (losses.relaxed_ranking, over_lists(likelihood), {"k": 2}),
    "ranking_distillation": (
        losses.ranking_distillation,
        over_lists(ranking_distillation),
        {"k": 3, "lam": 2.0, "mu": 0.5},
    ),
    "pairwise_logistic": (losses.pairwise_logistic, over_lists(pairwise_logistic), {}),
    "margin_mse": (losses.margin_mse, margin_mse, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_formula(case, bench, rng):
    loss, oracle, hyper = CASES[case]
    student, teacher = rng.normal(size=(2, 4, 5)) * 2
    teacher[0, 2] = teacher[0, 1]  # a tie
    student[~WHERE], teacher[~WHERE] = np.nan, np.inf
    bench.check(loss, oracle, student, teacher, where=WHERE, entries=20, **hyper)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spread", [1e-3, 30.0])
def test_values_are_those_of_the_formula_at_other_spreads(case, spread, bench, rng):
    loss, oracle, hyper = CASES[case]
    student, teacher = rng.normal(size=(2, 4, 5)) * spread
    bench.check(loss, oracle, student, teacher, where=WHERE, entries=0, **hyper)


@pytest.mark.parametrize("case", CASES)
def test_extreme_scores_have_finite_gradients(case, bench):
    loss, _, hyper = CASES[case]
    student, teacher = np.zeros((2, 4, 5))
    student[0, :2], student[0, 2], teacher[0, 1] = (1e4, -1e4), -np.inf, 1e4
    teacher[1] = -np.inf
    values, grads = bench(loss, student, teacher, where=WHERE, **hyper)
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))


def test_more_places_than_items_is_listmle(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 5))
    full, _ = bench(losses.listmle, student, teacher, where=WHERE)
    values, _ = bench(losses.relaxed_ranking, student, teacher, where=WHERE, k=50)
    np.testing.assert_allclose(values, full, rtol=1e-12)


def test_mu_of_ranking_distillation_is_of_the_list(bench):
    """Of a list of every tenth item the lags are a tenth, so mu has to be ten times as much."""
    items, k = 1200, 3
    student, teacher = np.zeros((2, 1, items))
    teacher[0, :k] = [3, 2, 1]
    student[0, k:] = np.linspace(2, -2, items - k)
    student[0, :k] = student[0, [100, 300, 500]] + 1e-4
    whole, tenth = np.arange(items), np.r_[:k, k + 5 : items : 10]

    def weights(columns, mu):
        pair = student[:, columns], teacher[:, columns]
        _, grads = bench(losses.ranking_distillation, *pair, k=k, lam=1e6, mu=mu)
        return -grads[0, :k] * (1 + np.exp(student[0, :k]))

    np.testing.assert_allclose(weights(whole, 0.002).sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(weights(tenth, 0.02), weights(whole, 0.002), rtol=0.05)
    np.testing.assert_allclose(weights(whole, 0.02), 1 / 3, atol=0.02)  # all at tanh's end
    assert weights(tenth, 0.02)[0] < 0.15


@pytest.mark.parametrize("name", ["listmle", "relaxed_ranking"])
def test_ties_of_the_teacher_are_taken_in_the_order_of_the_list(name, bench):
    student, teacher = np.array([2.0, -1.0, 0.5]), np.array([0.0, 1.0, 1.0])
    loss = getattr(losses, name)
    listed = [[0, 1, 2], [0, 2, 1], [1, 2, 0], [2, 1, 0]]
    got, _ = bench(loss, student[listed], teacher[listed])
    first, second = likelihood([-1.0, 0.5, 2.0], [3, 2, 1]), likelihood([0.5, -1.0, 2.0], [3, 2, 1])
    assert abs(first - second) > 0.1
    np.testing.assert_allclose(got, [first, second, first, second], rtol=1e-9)


@pytest.mark.parametrize("wide", [True, False])
def test_items_that_the_student_excludes_are_alike_among_themselves(wide, bench):
    """Also in float32, where sums at -1e9 no longer tell how many there are."""
    student = np.array([[0.5, -np.inf, -np.inf, -np.inf, 7.0]], np.float64 if wide else np.float32)
    teacher = np.array([[9.0, 3, 2, 1, 9]], student.dtype)
    where = np.array([[True, True, True, True, False]])
    for loss, k in ((losses.listmle, 4), (losses.relaxed_ranking, 2)):
        hyper = {} if loss is losses.listmle else {"k": k}
        values, grads = bench(loss, student, teacher, where=where, wide=wide, **hyper)
        expected = math.log(6) if k == 4 else math.log(3)
        np.testing.assert_allclose(values, [expected], rtol=1e-6)
        assert np.all(np.isfinite(grads))


def test_k_below_one_is_refused():
    z = np.zeros((1, 3), np.float32)
    for loss in (losses.relaxed_ranking, losses.ranking_distillation):
        with pytest.raises(ValueError, match="at least 1"):
            loss(z, z, k=0)
