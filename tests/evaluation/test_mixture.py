"""Weights of several models by the labels that they make likeliest."""

import numpy as np
import pytest

from distill_jax.evaluation.mixture import mixture_weights


def loss(weights, logits_KNC, labels_N):
    p_KNC = np.exp(logits_KNC) / np.exp(logits_KNC).sum(axis=-1, keepdims=True)
    p_N = np.tensordot(weights, p_KNC, 1)[np.arange(len(labels_N)), labels_N]
    return -np.log(p_N).mean()


def test_no_other_weights_fit_better():
    rng = np.random.default_rng(0)
    labels_N = rng.integers(3, size=200)
    right_NC = 2 * np.eye(3)[labels_N]
    known_N1 = np.arange(200)[:, None] < 120  # each knows what the other does not
    logits_KNC = np.stack([right_NC * known_N1, right_NC * ~known_N1])
    logits_KNC += rng.normal(size=(2, 200, 3))
    weights = mixture_weights(logits_KNC, labels_N)
    assert sum(weights) == pytest.approx(1, abs=1e-3) and weights[0] > weights[1] > 0
    best = loss(weights, logits_KNC, labels_N)
    for other in np.linspace(0, 1, 101):
        assert best <= loss((other, 1 - other), logits_KNC, labels_N) + 1e-6


def test_one_that_knows_nothing_counts_next_to_nothing():
    labels_N = np.arange(50) % 2
    sure_NC, unsure_NC = 8 * np.eye(2)[labels_N], np.zeros((50, 2))
    assert mixture_weights(np.stack([unsure_NC, sure_NC]), labels_N) == (0.0, 1.0)
    assert mixture_weights(np.stack([sure_NC, sure_NC]), labels_N) == (0.5, 0.5)
