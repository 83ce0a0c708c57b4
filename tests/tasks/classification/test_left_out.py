"""Classes that students never see: what is left out, and the bias that makes up for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.tasks.classification.cells import DataConfig, TeacherConfig, TrainingConfig
from distill_jax.tasks.classification.image_checks import check_jitter, check_left_out
from distill_jax.tasks.classification.left_out import best_bias, scores_of_left_out, with_bias
from distill_jax.tasks.classification.splits import prepare_images

WITHOUT_3 = DataConfig("digits", label_fraction=0.5, left_out=("3",))


def test_students_see_none_of_it_and_all_else_stays():
    whole = prepare_images(DataConfig("digits", label_fraction=0.5))
    without = prepare_images(WITHOUT_3)
    gone = set(whole.everything.ids) - set(without.everything.ids)
    truth = prepare_images(DataConfig("digits", label_fraction=1.0)).everything
    label_of = dict(zip(truth.ids, truth.labels_N.tolist(), strict=True))
    assert {label_of[each] for each in gone} == {3}
    assert 3 not in {label_of[each] for each in without.everything.ids}  # labelled or not
    assert without.labelled.digest == whole.labelled.digest
    assert without.labels_digest == whole.labels_digest  # the teacher is the same
    assert without.digest != whole.digest
    for split in ("validation", "test"):
        assert getattr(without, split).digest == getattr(whole, split).digest


def test_what_cannot_be_left_out_is_refused():
    with pytest.raises(UserError, match=r"unknown class 'three' of data 'digits'"):
        prepare_images(DataConfig("digits", left_out=("three",)))
    with pytest.raises(UserError, match="all classes are left out"):
        prepare_images(DataConfig("digits", left_out=tuple("0123456789")))
    with pytest.raises(UserError, match=r"'ce' listens to no teacher: .*\(3\)"):
        check_left_out(WITHOUT_3, "ce", False)
    check_left_out(WITHOUT_3, "kl", True)
    check_left_out(DataConfig("digits"), "ce", False)


def right(logits, labels, out, bias):
    return int((with_bias(logits, out, bias).argmax(axis=1) == labels).sum())


@given(st.integers(0, 500), st.integers(1, 30), st.sampled_from([(0,), (1, 3), (0, 1, 2)]))
def test_no_bias_is_better_than_the_best(seed, count, left):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 4)).astype(np.float32)
    labels = rng.integers(0, 4, count)
    out = np.isin(np.arange(4), left)
    found = best_bias(logits, labels, out)
    tried = np.linspace(-12, 12, 4001)
    assert right(logits, labels, out, found) >= max(right(logits, labels, out, b) for b in tried)


def test_of_equal_biases_the_smallest_is_taken():
    logits = np.array([[5.0, 0.0], [0.0, 5.0]], np.float32)
    assert best_bias(logits, np.array([0, 1]), np.array([True, False])) == 0.0
    # class 0 is always 2 too low
    shifted = logits - np.array([6.0, 0.0], np.float32)
    assert 1 < best_bias(shifted, np.array([0, 1]), np.array([True, False])) < 11


def test_its_scores_are_counts_of_the_test_examples():
    splits = prepare_images(WITHOUT_3)
    validation, test = (
        np.eye(10, dtype=np.float32)[table.labels_N] - np.eye(10, dtype=np.float32)[3] * 2
        for table in (splits.validation, splits.test)
    )
    metrics, evidence = scores_of_left_out(splits, validation, test)
    threes = int((splits.test.labels_N == 3).sum())
    assert metrics["test/errors_left_out"] == threes > 0
    assert metrics["test/errors_left_out_biased"] == metrics["test/errors_biased"] == 0
    assert 1 < metrics["left_out/bias"] < 3
    assert metrics["test/gain_by_bias"] == pytest.approx(threes / len(splits.test))
    assert list(evidence) == ["gain_by_bias"]
    assert scores_of_left_out(splits, validation, np.full_like(test, np.nan)) == ({}, {})


def test_jitter_is_refused_where_it_would_go_wrong():
    images = prepare_images(DataConfig("digits")).everything
    two = TrainingConfig(jitter=2)
    check_jitter(two, images)
    check_jitter(two, images, (TeacherConfig("cnn-4-8", outputs="live"),))
    with pytest.raises(UserError, match="asked live"):
        check_jitter(two, images, (TeacherConfig("cnn-4-8"),))
    with pytest.raises(UserError, match="8 x 8 out of sight"):
        check_jitter(TrainingConfig(jitter=8), images)


def test_jitter_of_texts_is_refused(toy_table):
    with pytest.raises(UserError, match="these examples are texts"):
        check_jitter(TrainingConfig(jitter=1), toy_table)
    check_jitter(TrainingConfig(), toy_table)
