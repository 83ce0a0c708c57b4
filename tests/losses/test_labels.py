"""Losses that read labels, against formulas in plain loops."""

import math
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import log_loss

from distill_jax import losses


def softmax(logits, T=1.0):
    """Probabilities by the definition, the largest logit taken off first."""
    top = max(logits)
    odds = [math.exp((z - top) / T) for z in logits]
    return [o / sum(odds) for o in odds]


def divergence(p, q):
    """KL(p || q), with 0 log 0 = 0."""
    return sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True) if a > 0)


def ce(student, labels, *, where, label_smoothing=0.0):
    values = np.zeros(where.shape)
    for b in range(len(where)):
        if where[b]:
            p, count = softmax(student[b]), student.shape[-1]
            for c in range(count):
                target = (1 - label_smoothing) * (c == labels[b]) + label_smoothing / count
                values[b] -= target * math.log(p[c])
    return values


def focal(student, labels, *, where, gamma=2.0, class_weights=()):
    values = np.zeros(where.shape)
    for b in range(len(where)):
        if where[b]:
            p, y = softmax(student[b]), labels[b]
            weight = class_weights[y] if class_weights else 1.0
            others = math.fsum(p[c] for c in range(len(p)) if c != y)
            values[b] = -weight * others**gamma * math.log(p[y])
    return values


def dkd(student, teacher, labels, *, where, T=1.0, alpha=1.0, beta=8.0):
    values = np.zeros(where.shape)
    for b in range(len(where)):
        if not where[b]:
            continue
        p, q, y = softmax(teacher[b], T), softmax(student[b], T), labels[b]
        target = divergence([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        rest = [c for c in range(len(p)) if c != y]
        among = divergence(
            softmax([teacher[b][c] for c in rest], T), softmax([student[b][c] for c in rest], T)
        )
        values[b] = T**2 * (alpha * target + beta * among)
    return values


def mmi(student, teacher, labels, *, where):
    values = np.zeros(where.shape)
    for b in range(len(where)):
        if where[b]:
            values[b] = -math.log(softmax(student[b])[labels[b]])
            values[b] -= math.log(softmax(teacher[b])[labels[b]])
    return values


def pseudo_ce(student, teacher, labels, *, where):
    values = np.zeros(where.shape)
    for b in range(len(where)):
        if where[b]:
            y = labels[b] if labels[b] >= 0 else list(teacher[b]).index(max(teacher[b]))
            values[b] = -math.log(softmax(student[b])[y])
    return values


@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_values_and_gradients_are_those_of_the_formula(classes, bench, rng):
    student, teacher = rng.normal(size=(2, 4, classes)) * 2
    student[3] = np.nan
    labels = np.array([1, 0, classes - 1, -7], np.int32)
    where = np.array([True, True, True, False])
    bench.check(losses.ce, ce, student, labels, where=where, entries=6, label_smoothing=0.1)
    bench.check(losses.ce, ce, student, labels, where=where, entries=6, label_smoothing=0.0)
    for gamma in (0.0, 0.5, 2.0):
        bench.check(losses.focal, focal, student, labels, where=where, entries=6, gamma=gamma)
    bench.check(losses.mmi, mmi, student, teacher, labels, where=where, entries=6)
    some = np.array([1, -1, -1, -7], np.int32)
    bench.check(losses.pseudo_ce, pseudo_ce, student, teacher, some, where=where, entries=6)
    hyper = {"T": 2.0, "alpha": 0.7, "beta": 3.0}
    bench.check(losses.dkd, dkd, student, teacher, labels, where=where, entries=6, **hyper)


@pytest.mark.parametrize("spread", [1e-3, 10.0])
def test_values_are_those_of_the_formula_at_other_spreads(spread, bench, rng):
    student, teacher = rng.normal(size=(2, 4, 5)) * spread
    where, labels = np.ones(4, bool), np.array([1, 0, 4, 2], np.int32)
    bench.check(losses.ce, ce, student, labels, where=where, entries=0, label_smoothing=0.1)
    bench.check(losses.focal, focal, student, labels, where=where, entries=0)
    bench.check(losses.mmi, mmi, student, teacher, labels, where=where, entries=0)
    hyper = {"T": 2.0, "alpha": 0.7, "beta": 3.0}
    bench.check(losses.dkd, dkd, student, teacher, labels, where=where, entries=0, **hyper)


def test_dkd_with_the_right_weights_is_kl(bench, rng):
    student, teacher = rng.normal(size=(2, 4, 5))
    labels = np.array([0, 1, 2, 3], np.int32)
    kl, kl_slope = bench(losses.kl, student, teacher, T=2.0)
    for b in range(4):
        beta = 1 - softmax(teacher[b], 2.0)[labels[b]]
        got, slope = bench(losses.dkd, student, teacher, labels, T=2.0, alpha=1.0, beta=beta)
        np.testing.assert_allclose(got[b], kl[b], rtol=1e-9)
        np.testing.assert_allclose(slope[b], kl_slope[b], rtol=1e-9, atol=1e-12)


def test_labels_out_of_range_are_loud(bench):
    student = np.zeros((4, 3))
    labels = np.array([0, 3, -1, 2], np.int32)
    for loss, args in (
        (losses.ce, ()),
        (losses.focal, ()),
        (losses.mmi, (student,)),
        (losses.dkd, (student,)),
    ):
        values, _ = bench(loss, student, *args, labels, where=np.ones(4, bool))
        np.testing.assert_array_equal(np.isnan(values), [False, True, True, False])


def test_pseudo_labels_out_of_range_are_loud_and_a_lost_teacher_is_too(bench):
    student = np.zeros((5, 3))
    teacher = np.array([[0, 1, 2.0], [0, np.nan, 1], [0, np.nan, 1], [1, 1, 0], [-np.inf, 0, -1]])
    labels = np.array([3, 0, -1, -1, -2], np.int32)
    values, _ = bench(losses.pseudo_ce, student, teacher, labels, where=np.ones(5, bool))
    np.testing.assert_array_equal(np.isnan(values), [True, False, True, False, True])
    one_hot = np.eye(3)[[0]] * 9.0  # of two largest logits the first counts
    values, _ = bench(losses.pseudo_ce, one_hot, np.array([[1, 1, 0.0]]), np.array([-1], np.int32))
    np.testing.assert_allclose(values, math.log(1 + 2 * math.exp(-9)))


@pytest.mark.parametrize("labelled", [0.0, 0.5, 1.0])
def test_pseudo_labels_are_labels_once_they_are_given(labelled, bench, rng):
    """With every label it is ``ce``; without any it is ``ce`` on the teacher's classes."""
    student, teacher = rng.normal(size=(2, 40, 4))
    truth = rng.integers(0, 4, size=40).astype(np.int32)
    known = rng.random(40) < labelled
    got = bench(losses.pseudo_ce, student, teacher, np.where(known, truth, -1).astype(np.int32))
    hard = np.where(known, truth, teacher.argmax(axis=-1)).astype(np.int32)
    for one, other in zip(got, bench(losses.ce, student, hard), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_extreme_logits_have_finite_gradients(bench):
    student = np.array([[-np.inf, 1e4, 0.0], [1e4, -1e4, 0], [-np.inf] * 3])
    teacher = np.array([[1e4, -1e4, -np.inf], [-1e4, -np.inf, 0], [0.0, 0, 0]])
    labels = np.array([0, 1, 2], np.int32)
    for loss, args in (
        (losses.ce, ()),
        (losses.focal, ()),
        (losses.mmi, (teacher,)),
        (losses.dkd, (teacher,)),
    ):
        values, grads = bench(loss, student, *args, labels, where=np.ones(3, bool))
        assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))


def test_labels_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="labels have shape"):
        losses.ce(np.zeros((2, 3), np.float32), np.zeros((2, 1), np.int32))


def test_ce_weighs_classes_as_scikit_learns_log_loss_weighs_examples():
    rng = np.random.default_rng(0)
    logits_NC, labels_N = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    weights_C = (0.5, 1.0, 4.0)
    values_N = losses.ce(logits_NC, labels_N, class_weights=weights_C)
    probs_NC = np.exp(logits_NC) / np.exp(logits_NC).sum(axis=1, keepdims=True)
    weights_N = np.array(weights_C)[labels_N]
    expected = log_loss(labels_N, probs_NC, sample_weight=weights_N, normalize=False)
    np.testing.assert_allclose(np.sum(values_N), expected, rtol=1e-5)
    np.testing.assert_array_equal(
        losses.ce(logits_NC, labels_N, class_weights=(1.0, 1.0, 1.0)),
        losses.ce(logits_NC, labels_N),
    )
    with pytest.raises(ValueError, match="2 weights for 3 classes"):
        losses.ce(logits_NC, labels_N, class_weights=(1.0, 2.0))


def test_focal_without_its_power_is_ce_and_its_weights_are_those_of_ce(bench, rng):
    student, labels = rng.normal(size=(20, 4)) * 3, rng.integers(0, 4, 20).astype(np.int32)
    for weights in ((), (0.5, 1.0, 4.0, 0.0)):
        got = bench(partial(losses.focal, class_weights=weights), student, labels, gamma=0.0)
        expected = bench(partial(losses.ce, class_weights=weights), student, labels)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)
    weighed, _ = bench(partial(losses.focal, class_weights=(2.0,) * 4), student, labels)
    plain, _ = bench(losses.focal, student, labels)
    np.testing.assert_allclose(weighed, 2 * plain, rtol=1e-12)
    with pytest.raises(ValueError, match="2 weights for 4 classes"):
        losses.focal(student, labels, class_weights=(1.0, 2.0))


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
def test_focal_of_a_student_that_is_sure_has_a_finite_slope(gamma, bench):
    """``(1 - p)^gamma`` has an infinite slope at 0 for powers below 1."""
    student = np.array([[40.0, 0.0, 0.0], [1e4, 0.0, 0.0], [0.0, 1e4, 0.0]])
    labels = np.array([0, 0, 0], np.int32)
    values, grads = bench(losses.focal, student, labels, gamma=gamma)
    assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))
    np.testing.assert_allclose(values[2], 1e4)  # sure and wrong: all of the cross-entropy
