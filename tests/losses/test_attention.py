"""Losses on attention scores against formulas in plain loops."""

import math

import numpy as np
import pytest

from distill_jax import losses

WHERE = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)


def softmax(scores):
    top = max(scores)
    odds = [math.exp(z - top) for z in scores]
    return [o / sum(odds) for o in odds]


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def average(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def attention_kl(student, teacher, *, where, heads="auto"):
    counts = student.shape[-3], teacher.shape[-3]
    joined = heads == "mean" or counts[0] != counts[1]
    values = np.zeros(len(where))
    for b in range(len(where)):
        tokens = [t for t in range(where.shape[1]) if where[b, t]]
        for q in tokens:
            rows_s, rows_t = (
                [softmax([x[b, h, q, k] for k in tokens]) for h in range(x.shape[1])]
                for x in (student, teacher)
            )
            if joined:
                rows_s, rows_t = [average(rows_s)], [average(rows_t)]
            for p, s in zip(rows_t, rows_s, strict=True):
                values[b] += divergence(p, s) / len(rows_t) / len(tokens)
    return values


def attention_mse(student, teacher, *, where, heads="auto"):
    counts = student.shape[-3], teacher.shape[-3]
    if heads == "mean" or counts[0] != counts[1]:
        student, teacher = (
            np.array([[average(example)] for example in x.reshape(*x.shape[:2], -1)])
            for x in (student, teacher)
        )
        student, teacher = (
            x.reshape(len(where), 1, *WHERE.shape[1:] * 2) for x in (student, teacher)
        )
    values = np.zeros(len(where))
    for b in range(len(where)):
        tokens = [t for t in range(where.shape[1]) if where[b, t]]
        heads_count = student.shape[1]
        for h in range(heads_count):
            for q in tokens:
                for k in tokens:
                    square = (student[b, h, q, k] - teacher[b, h, q, k]) ** 2
                    values[b] += square / heads_count / len(tokens) ** 2
    return values


PAIRS = {"attention_kl": attention_kl, "attention_mse": attention_mse}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("teacher_heads", "heads"), [(2, "each"), (2, "mean"), (3, "auto")])
def test_values_and_gradients_are_those_of_the_formula(name, teacher_heads, heads, bench, rng):
    student = rng.normal(size=(4, 2, 4, 4)) * 2
    teacher = rng.normal(size=(4, teacher_heads, 4, 4)) * 2
    masked = ~(WHERE[:, None, :, None] & WHERE[:, None, None, :])
    student[np.broadcast_to(masked, student.shape)] = np.nan
    teacher[np.broadcast_to(masked, teacher.shape)] = -np.inf
    loss = getattr(losses, name)
    bench.check(loss, PAIRS[name], student, teacher, where=WHERE, entries=24, heads=heads)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("spread", [1e-3, 30.0])
def test_values_are_those_of_the_formula_at_other_spreads(name, spread, bench, rng):
    student, teacher = rng.normal(size=(2, 4, 2, 4, 4)) * spread
    loss = getattr(losses, name)
    bench.check(loss, PAIRS[name], student, teacher, where=WHERE, entries=0, heads="each")


@pytest.mark.parametrize("name", PAIRS)
def test_extreme_scores_have_finite_gradients(name, bench):
    student, teacher = np.zeros((2, 4, 2, 4, 4))
    student[0, :, 0, :2], teacher[0, :, 0, :2] = 1e4, -1e4
    student[1, :, 0, 0] = -np.inf
    values, grads = bench(getattr(losses, name), student, teacher, where=WHERE, heads="each")
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))


def test_heads_that_do_not_fit_are_refused():
    a, b = np.zeros((1, 2, 3, 3), np.float32), np.zeros((1, 4, 3, 3), np.float32)
    with pytest.raises(ValueError, match="heads='mean'"):
        losses.attention_kl(a, b, heads="each")
    with pytest.raises(ValueError, match="heads must be"):
        losses.attention_mse(a, b, heads="men")
    with pytest.raises(ValueError, match="scores must be"):
        losses.attention_kl(a, b[:, :, :2, :2])
