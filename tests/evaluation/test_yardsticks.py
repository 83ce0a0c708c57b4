"""The majority class and logistic regression, on data whose answers are known."""

import numpy as np
import pytest
from scipy.special import softmax

from distill_jax.evaluation.yardsticks import Regression, majority, regression, text_features

RECIPE = Regression()


def columns_of(texts):
    return [list(texts)]


def test_the_majority_says_how_frequent_each_class_is():
    fitted = majority(np.array([2, 2, 0, 2], np.int32), 4, 3, 5)
    assert fitted.validation_NC.shape == (3, 4) and fitted.test_NC.shape == (5, 4)
    np.testing.assert_allclose(softmax(fitted.test_NC, axis=-1), [[0.25, 0, 0.75, 0]] * 5)
    assert set(fitted.test_NC.argmax(axis=-1)) == {2}


def test_words_that_tell_the_class_are_found_and_the_test_split_has_no_say():
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 3, 90)
    words = np.array(["alpha", "beta", "gamma"])
    texts = [f"the film was {words[label]} {n}" for n, label in enumerate(labels_N)]
    train, validation, test = (columns_of(texts[i::3]) for i in range(3))
    features = text_features(RECIPE, train, [validation, test], 3)
    fitted = regression(RECIPE, labels_N[::3], features, 3, lambda logits_NC: 0.0)
    np.testing.assert_array_equal(fitted.test_NC.argmax(axis=-1), labels_N[2::3])
    np.testing.assert_array_equal(fitted.validation_NC.argmax(axis=-1), labels_N[1::3])
    assert fitted.chosen == RECIPE.candidates[0]  # of equals the strongest penalty
    vocabulary = text_features(RECIPE, train, [columns_of(["delta delta"])], 3)[1]
    assert vocabulary.nnz == 0  # what only others say has no feature


def test_the_penalty_is_the_best_of_three_on_validation():
    rng = np.random.default_rng(1)
    features = [rng.normal(size=(30, 4)) for _ in range(3)]
    labels_N = (features[0][:, 0] > 0).astype(np.int32)
    asked = []

    def score(logits_NC):
        asked.append(np.abs(logits_NC).max())
        return [0.2, 0.9, 0.5][len(asked) - 1]

    fitted = regression(RECIPE, labels_N, features, 2, score)
    assert fitted.chosen == RECIPE.candidates[1]
    assert asked == sorted(asked) and len(asked) == 3  # weaker penalties, surer answers
    assert np.abs(fitted.validation_NC).max() == asked[1]


def test_writing_without_spaces_is_cut_into_characters():
    good, bad = "这个东西很好我喜欢", "这个东西很差我讨厌"
    train = columns_of([good + "一", bad + "二", good + "三", bad + "四"])
    other = columns_of(["真的很好喜欢", "真的很差讨厌"])
    features = text_features(RECIPE, train, [other, other], 2)
    fitted = regression(RECIPE, np.array([1, 0, 1, 0]), features, 2, lambda logits_NC: 0.0)
    assert list(fitted.test_NC.argmax(axis=-1)) == [1, 0]


def test_both_texts_of_a_pair_are_features_of_their_own():
    one, other = ["a b", "c d", "a b", "c d"], ["x y", "x y", "z w", "z w"]
    [pair] = text_features(RECIPE, [one, other], [], 2)
    [first], [second] = (text_features(RECIPE, [column], [], 2) for column in (one, other))
    np.testing.assert_array_equal(pair.toarray(), np.hstack([first.toarray(), second.toarray()]))


def test_features_and_examples_are_bounded():
    texts = [" ".join(f"w{n * 7 + k}" for k in range(9)) for n in range(40)]
    recipe = Regression(most_features=30, most_weights=60)
    assert text_features(recipe, [texts], [], 2)[0].shape == (40, 30)
    assert text_features(recipe, [texts], [], 10)[0].shape == (40, 6)
    assert text_features(recipe, [texts, texts], [], 10)[0].shape == (40, 6)
    assert Regression().share(1000, 2) == 1
    assert Regression(most_examples=100).share(1000, 2) == 0.1
    assert Regression(most_scores=1000).share(1000, 10) == 0.1


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 2, 2]])
def test_classes_without_a_label_are_never_given(labels):
    features = [np.eye(3)] * 3
    fitted = regression(RECIPE, np.array(labels), features, 4, lambda logits_NC: 0.0)
    absent = np.setdiff1d(np.arange(4), labels)
    assert np.all(np.isneginf(fitted.test_NC[:, absent]))
    assert np.all(np.isfinite(fitted.test_NC[:, np.unique(labels)]))
