"""Metrics of several labels, against scikit-learn, and the threshold against every other."""

import numpy as np
import pytest
from scipy import special
from sklearn.metrics import average_precision_score, f1_score

from distill_jax.evaluation.mistakes import label_mistakes
from distill_jax.evaluation.numbers import number_metrics, spearman
from distill_jax.evaluation.several import best_threshold, counted, label_metrics, macro_f1

RNG = np.random.default_rng(1)
LABELS = RNG.random((60, 5)) < [0.5, 0.3, 0.2, 0.1, 0.0]
LOGITS = RNG.normal(size=(60, 5)) + 2 * LABELS - 1


def test_they_are_scikit_learns():
    given = special.expit(LOGITS) >= 0.4
    found = label_metrics(LOGITS, LABELS, 0.4)
    assert found["micro_f1"] == pytest.approx(f1_score(LABELS, given, average="micro"))
    expected = f1_score(LABELS, given, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)
    there = LABELS[:, :4]
    assert found["map"] == pytest.approx(average_precision_score(there, LOGITS[:, :4]))
    assert found["exact"] == (given == LABELS).all(axis=1).mean()
    probs = special.expit(LOGITS)
    bce = -(np.where(LABELS, np.log(probs), np.log(1 - probs))).sum(axis=1).mean()
    assert found["bce"] == pytest.approx(bce)


def test_a_label_that_is_not_there_and_not_given_counts_0_in_macro_f1():
    counts = counted(np.full((3, 2), -9.0), np.array([[1, 0]] * 3), 0.5)
    assert macro_f1(counts).mean() == 0.0


def test_the_threshold_is_the_best_of_all():
    best = best_threshold(LOGITS, LABELS)
    probs = np.unique(special.expit(LOGITS))
    every = [label_metrics(LOGITS, LABELS, p)["micro_f1"] for p in probs]
    assert label_metrics(LOGITS, LABELS, best)["micro_f1"] == pytest.approx(max(every))
    assert best != 0.5


def test_no_threshold_lies_between_equals():
    logits = np.array([[0.0, 0.0], [0.0, -3.0]])
    labels = np.array([[1, 0], [1, 0]])
    best = best_threshold(logits, labels)
    assert special.expit(-3.0) < best < 0.5


def test_without_labels_or_with_nan_there_is_none():
    assert best_threshold(LOGITS, np.zeros_like(LABELS)) == 0.5
    lost = np.full_like(LOGITS, np.nan)
    assert best_threshold(lost, LABELS) == 0.5
    assert all(np.isnan(value) for value in label_metrics(lost, LABELS, 0.5).values())


def test_numbers():
    right, said = np.array([1.0, 2.0, 3.0, 10.0]), np.array([1.0, 3.0, 4.0, 5.0])
    found = number_metrics(said, right)
    assert found["mse"] == pytest.approx((0 + 1 + 1 + 25) / 4)
    assert found["spearman"] == pytest.approx(1.0) and 0.8 < found["pearson"] < 0.9
    assert np.isnan(spearman([np.nan, 1.0], [1.0, 2.0]))
    same = number_metrics([3.0, 3.0], [1.0, 2.0])
    assert (same["pearson"], same["spearman"]) == (0.0, 0.0)
    assert all(np.isnan(value) for value in number_metrics([np.nan, 3.0], [1.0, 2.0]).values())


def test_mistakes_label_by_label():
    probs = np.array([[0.9, 0.2], [0.4, 0.8]])
    labels = np.array([[1, 1], [0, 1]])
    found = label_mistakes(probs, labels, 0.5, ("joy", "anger"), ("a", "b"), {"a": ("text",)})
    assert "confusion" not in found
    joy, anger = found["classes"]
    assert (joy["precision"], joy["recall"]) == (1.0, 1.0)
    assert (anger["examples"], anger["predicted"], anger["recall"]) == (2, 1, 0.5)
    (worst,) = found["worst"]
    assert worst == {
        "id": "a", "texts": ["text"], "label": "joy, anger", "given": "joy", "probability": 0.8,
    }  # fmt: skip
