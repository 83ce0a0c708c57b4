"""Several teachers as one."""

import math

import numpy as np
import pytest

from distill_jax import losses
from distill_jax.losses.teachers import CONFIDENCES, confidence, trust


def softmax(logits, T=1.0):
    top = max(logits)
    odds = [math.exp((z - top) / T) for z in logits]
    return [o / sum(odds) for o in odds]


@pytest.mark.parametrize("weights", [None, (1.0, 3.0, 0.0)])
def test_mean_probabilities_are_what_they_say_at_every_temperature(weights, rng):
    logits = rng.normal(size=(3, 4, 5)).astype(np.float32) * 3
    logits[1, 0] = [-np.inf, 1e4, -1e4, 0, 1]
    share = np.array(weights or (1, 1, 1)) / sum(weights or (1, 1, 1))
    for T in (0.5, 1.0, 4.0):
        got = losses.mean_probabilities(
            logits, weights=None if weights is None else np.float32(weights), T=np.float32(T)
        )
        for b in range(4):
            parts = [softmax(list(logits[k, b].astype(np.float64)), T) for k in range(3)]
            mean = [sum(w * p[c] for w, p in zip(share, parts, strict=True)) for c in range(5)]
            np.testing.assert_allclose(softmax(list(got[b]), T), mean, rtol=1e-4, atol=1e-7)


def test_mean_logits_are_the_weighted_mean(rng):
    logits = rng.normal(size=(2, 4, 5)).astype(np.float32)
    got = losses.mean_logits(logits, weights=np.float32([1, 3]))
    np.testing.assert_allclose(got, 0.25 * logits[0] + 0.75 * logits[1], rtol=1e-5, atol=1e-6)


def test_weights_that_do_not_fit_are_refused(rng):
    logits = rng.normal(size=(2, 4, 5)).astype(np.float32)
    for combine in (losses.mean_logits, losses.mean_probabilities):
        with pytest.raises(ValueError, match="2 teachers need 2 weights"):
            combine(logits, weights=np.float32([1, 1, 1]))


@pytest.mark.parametrize("combine", [losses.mean_probabilities, losses.mean_logits])
def test_weights_may_differ_from_example_to_example(combine, rng):
    logits = rng.normal(size=(3, 4, 5)).astype(np.float32)
    weights = rng.uniform(0.1, 1, size=(3, 4)).astype(np.float32)
    got = np.asarray(combine(logits, weights=weights))
    for b in range(4):
        np.testing.assert_allclose(got[b], combine(logits[:, b], weights=weights[:, b]), rtol=1e-5)
    with pytest.raises(ValueError, match="3 teachers need 3 weights"):
        combine(logits, weights=weights[:2])


def test_trust_is_confidence_or_how_right_a_teacher_is(rng):
    logits = rng.normal(size=(6, 5)).astype(np.float32)
    p = np.array([softmax(list(row.astype(np.float64))) for row in logits])
    labels, known = np.array([0, 1, 2, -1, 3, 4], np.int32), np.arange(6) != 3
    expected = [p[b, labels[b]] if known[b] else p[b].max() for b in range(6)]
    given = {"labels": labels, "known": known}
    np.testing.assert_allclose(trust(logits, by="label", **given), expected, rtol=1e-5)
    for by in CONFIDENCES:
        np.testing.assert_array_equal(trust(logits, by=by, **given), confidence(logits, by=by))
