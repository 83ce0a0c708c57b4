"""Where a model is wrong: against scikit-learn, and by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from distill_jax.evaluation.mistakes import class_scores, confusion_matrix, mistakes


@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 1000))
def test_matrix_and_class_scores_are_scikit_learns(classes, examples, seed):
    rng = np.random.default_rng(seed)
    logits_NC = rng.normal(size=(examples, classes))
    labels_N = rng.integers(-1, classes, examples)
    known = labels_N >= 0
    if not known.any():
        return
    given_N, wanted_N = logits_NC[known].argmax(1), labels_N[known]
    confusion_CC = confusion_matrix(logits_NC, labels_N)
    order = list(range(classes))
    np.testing.assert_array_equal(
        confusion_CC, metrics.confusion_matrix(wanted_N, given_N, labels=order)
    )
    expected = metrics.precision_recall_fscore_support(
        wanted_N, given_N, labels=order, zero_division=np.nan
    )
    found = class_scores(confusion_CC, [str(c) for c in order])
    for name, values in zip(("precision", "recall", "f1", "examples"), expected, strict=True):
        np.testing.assert_allclose([getattr(each, name) for each in found], values)


def test_the_surest_errors_come_first_with_their_texts():
    logits_NC = np.array([[3.0, 0], [1.0, 0], [0, 2.0], [0, 9.0], [5.0, 0]])
    labels_N = np.array([1, 1, 1, 0, -1])
    ids, texts = ("a", "b", "c", "d", "e"), {"a": ("one", "two"), "d": ("three",)}
    found = mistakes(logits_NC, labels_N, ("no", "yes"), ids, texts, temperature=2.0)
    assert found["confusion"] == [[0, 1], [2, 1]]
    assert [each["id"] for each in found["worst"]] == ["d", "a", "b"]  # e has no label
    assert found["worst"][0]["probability"] == pytest.approx(1 / (1 + np.exp(-4.5)))
    assert found["worst"][1] | {"probability": 0} == {
        **{"id": "a", "texts": ["one", "two"], "label": "yes", "given": "no", "probability": 0}
    }
    assert found["classes"][0] == {
        **{"name": "no", "examples": 1, "predicted": 2, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    }


def test_a_class_that_is_never_given_has_no_precision():
    found = mistakes(np.array([[1.0, 0]]), np.array([0]), ("no", "yes"), ("a",), {})
    assert found["classes"][1]["precision"] is None and found["classes"][1]["recall"] is None
    json.dumps(found, allow_nan=False)
