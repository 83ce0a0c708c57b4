"""Losses on hidden states against formulas in plain loops."""

import math

import numpy as np
import pytest

from distill_jax import losses

WHERE = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(a):
    norm = math.sqrt(dot(a, a))
    return [x / norm for x in a] if norm > 0 else [0.0 for _ in a]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def over_examples(formula):
    """An oracle for a batch from a formula on an example's unmasked tokens (never none)."""

    def oracle(student, teacher, *, where, **hyper):
        values = np.zeros(len(where))
        for b in range(len(where)):
            tokens = [t for t in range(where.shape[1]) if where[b, t]]
            if tokens:
                rows = [[list(x[b, t]) for t in tokens] for x in (student, teacher)]
                values[b] = formula(*rows, **hyper)
        return values

    return oracle


def mse(s, t):
    return mean((a - b) ** 2 for x, y in zip(s, t, strict=True) for a, b in zip(x, y, strict=True))


def hidden_cosine(s, t):
    return mean(1 - dot(unit(x), unit(y)) for x, y in zip(s, t, strict=True))


def hidden_contrastive(s, t, T=0.1):
    values = []
    for i, x in enumerate(s):
        odds = [math.exp(dot(unit(x), unit(y)) / T) for y in t]
        values.append(-math.log(odds[i] / sum(odds)))
    return mean(values)


def nst(s, t):
    patterns = [[unit([row[d] for row in x]) for d in range(len(x[0]))] for x in (s, t)]
    total = 0.0
    for left, right, sign in ((0, 0, 1), (1, 1, 1), (0, 1, -2)):
        total += sign * mean(dot(a, b) ** 2 for a in patterns[left] for b in patterns[right])
    return total


def cka(s, t):
    if len(s) < 2:
        return 0.0
    grams = []
    for x in (s, t):
        centre = [mean(column) for column in zip(*x, strict=True)]
        rows = [[a - c for a, c in zip(row, centre, strict=True)] for row in x]
        grams.append([dot(a, b) for a in rows for b in rows])
    return 1 - dot(unit(grams[0]), unit(grams[1]))


def vid(s, t, alpha):
    total = []
    for x, y in zip(s, t, strict=True):
        for a, b, raw in zip(x, y, alpha, strict=True):
            variance = math.log(1 + math.exp(raw)) + 1e-5
            total.append((b - a) ** 2 / (2 * variance) + math.log(variance) / 2)
    return mean(total)


def pkd(student, teacher, *, where):
    values = np.zeros(len(where))
    for b in range(len(where)):
        if where[b, 0]:
            values[b] = mse([unit(student[b, 0])], [unit(teacher[b, 0])])
    return values


def fsp(student, teacher, *, where):
    values = np.zeros(len(where))
    for b in range(len(where)):
        tokens = [t for t in range(where.shape[1]) if where[b, t]]
        if tokens:
            flows = [
                [
                    mean(first[b, t, d] * second[b, t, e] for t in tokens)
                    for d in range(first.shape[-1])
                    for e in range(second.shape[-1])
                ]
                for first, second in (student, teacher)
            ]
            values[b] = mse([flows[0]], [flows[1]])
    return values


CASES = {
    "hidden_mse": (losses.hidden_mse, over_examples(mse), {}),
    "embedding_mse": (losses.embedding_mse, over_examples(mse), {}),
    "hint": (losses.hint, over_examples(lambda s, t: mse(s, t) / 2), {}),
    "hidden_cosine": (losses.hidden_cosine, over_examples(hidden_cosine), {}),
    "hidden_contrastive": (
        losses.hidden_contrastive,
        over_examples(hidden_contrastive),
        {"T": 0.5},
    ),
    "nst": (losses.nst, over_examples(nst), {}),
    "cka": (losses.cka, over_examples(cka), {}),
    "pkd": (losses.pkd, pkd, {}),
}
FREE_WIDTHS = ("nst", "cka")


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_formula(case, bench, rng):
    loss, oracle, hyper = CASES[case]
    student = rng.normal(size=(4, 4, 3))
    teacher = rng.normal(size=(4, 4, 5 if case in FREE_WIDTHS else 3))
    student[0, 1], teacher[0, 1] = student[0, 0], teacher[0, 0]  # duplicate tokens
    student[~WHERE], teacher[~WHERE] = np.nan, np.inf
    bench.check(loss, oracle, student, teacher, where=WHERE, entries=20, **hyper)


def test_fsp_is_the_formula(bench, rng):
    student, teacher = (tuple(rng.normal(size=(2, 4, 4, 3))) for _ in range(2))
    for array in (*student, *teacher):
        array[~WHERE] = np.nan
    bench.check(losses.fsp, fsp, student, teacher, where=WHERE, entries=20)


def test_vid_is_the_formula_and_its_variances_learn(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 4, 3))
    alpha = rng.normal(size=3)

    def as_loss(inputs, teacher, *, where):
        return losses.vid(inputs[0], teacher, where=where, alpha=inputs[1])

    def oracle(inputs, teacher, *, where):
        return over_examples(vid)(inputs[0], teacher, where=where, alpha=list(inputs[1]))

    student[~WHERE] = np.nan
    bench.check(as_loss, oracle, (student, alpha), teacher, where=WHERE, entries=20)


def test_vid_starts_with_a_variance_of_five(rng):
    student, teacher = rng.normal(size=(2, 2, 4, 3)).astype(np.float32)
    got = np.asarray(losses.vid(student, teacher))
    expected = ((teacher - student) ** 2 / 10 + math.log(5) / 2).mean(axis=(1, 2))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="alpha has shape"):
        losses.vid(student, teacher, alpha=np.zeros(2, np.float32))


@pytest.mark.parametrize("case", CASES)
def test_zero_and_constant_hidden_states_have_finite_gradients(case, bench):
    loss, _, hyper = CASES[case]
    width = 5 if case in FREE_WIDTHS else 3
    student, teacher = np.zeros((4, 4, 3)), np.ones((4, 4, width))
    student[1], student[2], teacher[3] = 1.0, 1e18, 0.0
    values, grads = bench(loss, student, teacher, where=WHERE, **hyper)
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))


def test_shapes_that_do_not_fit_are_refused():
    a, b = np.zeros((2, 4, 3), np.float32), np.zeros((2, 5, 3), np.float32)
    for loss in (losses.hidden_mse, losses.nst, losses.cka):
        with pytest.raises(ValueError, match="teacher"):
            loss(a, b)
