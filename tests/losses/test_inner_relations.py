"""Losses on queries, keys and values against formulas in plain loops."""

import math

import numpy as np
import pytest

from distill_jax import losses
from distill_jax.losses.inner_relations import default_relation_heads, split_relation_heads

WHERE = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)


def softmax(scores):
    top = max(scores)
    odds = [math.exp(z - top) for z in scores]
    return [o / sum(odds) for o in odds]


def divergence(p, q):
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def relations(vectors, tokens):
    """Rows of softmax(v v^T / sqrt(d)) over ``tokens``, from {token: vector}."""
    rows = {}
    for q in tokens:
        width = len(vectors[q])
        rows[q] = softmax(
            [
                sum(a * b for a, b in zip(vectors[q], vectors[k], strict=True)) / math.sqrt(width)
                for k in tokens
            ]
        )
    return rows


def relation_kl(student, teacher, where, heads):
    """Mean divergence of relations; ``heads`` cuts the joined vector of a token into pieces."""
    values = np.zeros(len(where))
    for b in range(len(where)):
        tokens = [t for t in range(where.shape[1]) if where[b, t]]
        for r in range(heads):
            rows = []
            for x in (student, teacher):
                joined = {t: list(x[b, t].reshape(-1)) for t in tokens}
                size = x.shape[-1] * x.shape[-2] // heads
                pieces = {t: v[r * size : (r + 1) * size] for t, v in joined.items()}
                rows.append(relations(pieces, tokens))
            for q in tokens:
                values[b] += divergence(rows[1][q], rows[0][q]) / heads / len(tokens)
    return values


def attention_kl(student, teacher, where):
    values = np.zeros(len(where))
    for b in range(len(where)):
        tokens = [t for t in range(where.shape[1]) if where[b, t]]
        for h in range(student.shape[1]):
            for q in tokens:
                p, s = (softmax([x[b, h, q, k] for k in tokens]) for x in (teacher, student))
                values[b] += divergence(p, s) / student.shape[1] / len(tokens)
    return values


def value_kl(student, teacher, *, where, heads="auto"):
    return relation_kl(student, teacher, where, student.shape[-2])


def minilm(student, teacher, *, where, heads="auto"):
    attention = attention_kl(student[0], teacher[0], where)
    return attention + value_kl(student[1], teacher[1], where=where)


def minilm_v2(student, teacher, *, where, relation_heads):
    return sum(
        relation_kl(s, t, where, relation_heads) for s, t in zip(student, teacher, strict=True)
    )


def vectors(rng, heads, width):
    array = rng.normal(size=(4, 4, heads, width)) * 1.5
    array[~WHERE] = np.nan
    return array


def test_value_kl_is_the_formula(bench, rng):
    student, teacher = vectors(rng, 2, 3), vectors(rng, 2, 5)
    bench.check(losses.value_kl, value_kl, student, teacher, where=WHERE, entries=24)


def test_minilm_is_the_formula(bench, rng):
    student = (rng.normal(size=(4, 2, 4, 4)), vectors(rng, 2, 3))
    teacher = (rng.normal(size=(4, 2, 4, 4)), vectors(rng, 2, 5))
    bench.check(losses.minilm, minilm, student, teacher, where=WHERE, entries=24)


def test_minilm_v2_is_the_formula_with_free_widths_and_heads(bench, rng):
    student = tuple(vectors(rng, 2, 3) for _ in range(3))
    teacher = tuple(vectors(rng, 3, 4) for _ in range(3))
    bench.check(
        losses.minilm_v2, minilm_v2, student, teacher, where=WHERE, entries=16, relation_heads=6
    )


def test_relation_heads_are_chosen_to_divide_both_widths():
    assert default_relation_heads(128, 384, 12) == 8
    assert default_relation_heads(384, 384, 12) == 12
    assert default_relation_heads(7, 384, 12) == 1


def test_relation_heads_that_do_not_divide_are_refused(rng):
    array = rng.normal(size=(1, 4, 2, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="width of 6"):
        split_relation_heads(array, 4)
    with pytest.raises(ValueError, match="expected"):
        losses.value_kl(array, array[:, :3])
