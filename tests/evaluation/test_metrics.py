"""Metrics against numbers worked out by hand and formulas in plain Python."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distill_jax.core.errors import UserError
from distill_jax.evaluation import metrics

LOGITS = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0], [0.0, 4.0]])
LABELS = np.array([0, 1, 1, 1])

logits_matrices = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(2, 5)),
    elements=st.floats(-30, 30, width=32),
)


def test_accuracy_and_f1_by_hand():
    assert metrics.accuracy(LOGITS, LABELS) == 3 / 4
    # Class 0: precision 1/2, recall 1 -> 2/3. Class 1: precision 1, recall 2/3 -> 4/5.
    assert metrics.macro_f1(LOGITS, LABELS) == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_f1_counts_a_class_that_is_never_predicted_as_zero():
    always_zero = np.array([[1.0, 0.0]] * 4)
    # Class 0: precision 1/4, recall 1 -> 2/5. Class 1: 0.
    assert metrics.macro_f1(always_zero, LABELS) == pytest.approx(0.2)


def test_calibration_error_by_hand():
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.35, 0.65], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 0])
    # 5 bins. (0.6, 0.8]: confidences 0.8 (wrong), 0.65 (right): |1 - 1.45| / 4 = 0.1125.
    # (0.8, 1]: 0.9 (right): 0.1 / 4. (0.4, 0.6]: 0.6 (wrong): 0.6 / 4.
    expected = 0.1125 + 0.025 + 0.15
    assert metrics.expected_calibration_error(probs, labels, bins=5) == pytest.approx(expected)


def test_calibration_bins_are_closed_above():
    # Confidence 0.5 belongs to (0, 0.5] with two bins and must not cancel against 0.75.
    probs = np.array([[0.5, 0.5], [0.25, 0.75]])
    labels = np.array([0, 0])
    expected = (abs(1 - 0.5) + abs(0 - 0.75)) / 2
    assert metrics.expected_calibration_error(probs, labels, bins=2) == pytest.approx(expected)


@given(logits_matrices, st.integers(1, 20), st.randoms(use_true_random=False))
def test_calibration_error_is_the_definition_in_plain_python(logits, bins, random):
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    labels = np.array([random.randrange(logits.shape[1]) for _ in logits])
    total = 0.0
    for m in range(1, bins + 1):
        inside = [
            (max(p), int(np.argmax(p)) == y)
            for p, y in zip(probs.tolist(), labels.tolist(), strict=True)
            if (m - 1) < max(p) * bins <= m
        ]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(probs) * abs(accuracy - confidence)
    ece = metrics.expected_calibration_error(probs, labels, bins)
    assert ece == pytest.approx(total, abs=1e-9)
    assert 0 <= ece <= 1 + 1e-9


def test_calibration_error_refuses_logits():
    with pytest.raises(UserError, match="probabilities"):
        metrics.expected_calibration_error(LOGITS, LABELS)


@given(logits_matrices, st.floats(-50, 50))
def test_nll_is_the_formula_and_ignores_a_shift(logits, shift):
    labels = np.arange(len(logits)) % logits.shape[1]
    expected = sum(
        math.log(sum(math.exp(z) for z in row)) - row[y]
        for row, y in zip(logits.tolist(), labels.tolist(), strict=True)
    ) / len(logits)
    nll = metrics.negative_log_likelihood(logits, labels)
    assert nll == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert metrics.negative_log_likelihood(logits + shift, labels) == pytest.approx(nll, abs=1e-9)


def test_float32_logits_are_computed_in_float64():
    logits = np.full((100_000, 2), 0.1, np.float32)
    nll = metrics.negative_log_likelihood(logits, np.zeros(100_000, np.int32))
    assert nll == pytest.approx(math.log(2), abs=1e-14)


def test_unlabelled_examples_are_left_out():
    padded = np.concatenate([LOGITS, [[9.0, 0.0], [0.0, 9.0]]])
    labels = np.concatenate([LABELS, [-1, -1]])
    assert metrics.classification_metrics(padded, labels) == metrics.classification_metrics(
        LOGITS, LABELS
    )


def test_pearson_by_hand():
    # Deviations (-1, 0, 1) and (-4/3, -1/3, 5/3): r = 3 / sqrt(2 * 14/3).
    r = metrics.pearson(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0]))
    assert r == pytest.approx(3 / math.sqrt(2 * 14 / 3))
    with_gap = metrics.pearson([1.0, 99.0, 2.0, 3.0], [1.0, math.nan, 2.0, 4.0])
    assert with_gap == pytest.approx(r)


@pytest.mark.parametrize(
    ("score", "rating"),
    [
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]),
        ([1.0], [2.0]),
        ([math.nan, 1.0, 2.0], [1.0, 2.0, 3.0]),
        ([math.inf, 1.0, 2.0], [1.0, 2.0, 3.0]),
        ([1.0, 2.0], [math.nan, math.nan]),
    ],
)
def test_pearson_is_nan_where_it_is_undefined(score, rating):
    assert math.isnan(metrics.pearson(score, rating))


def test_fidelity_by_hand():
    teacher = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert metrics.agreement(LOGITS, teacher) == 3 / 4


def test_kl_by_hand_and_in_the_named_direction():
    teacher = np.log([[0.75, 0.25]])
    student = np.log([[0.5, 0.5]])
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    backward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert metrics.mean_kl(teacher, student) == pytest.approx(forward)
    assert metrics.mean_kl(student, teacher) == pytest.approx(backward)


def test_kl_where_the_teacher_gives_no_probability():
    never = np.array([[0.0, -np.inf]])
    assert metrics.mean_kl(never, np.log([[0.5, 0.5]])) == pytest.approx(math.log(2))
    assert metrics.mean_kl(never, never) == 0
    assert metrics.mean_kl(np.log([[0.5, 0.5]]), never) == math.inf


@given(logits_matrices, st.randoms(use_true_random=False))
def test_kl_laws(logits, random):
    other = logits[random.sample(range(len(logits)), len(logits))]
    assert metrics.mean_kl(logits, logits) == pytest.approx(0, abs=1e-12)
    assert metrics.mean_kl(logits, other) >= -1e-12


def test_positive_score_is_the_log_odds():
    odds = metrics.positive_score(np.log([[0.2, 0.8]]))
    np.testing.assert_allclose(odds, [math.log(4)])
    with pytest.raises(UserError, match="2 classes"):
        metrics.positive_score(np.zeros((3, 3)))


def nll_at(T, logits, labels):
    return metrics.negative_log_likelihood(np.asarray(logits) / T, labels)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 1.0, 4.0]), st.sampled_from([2, 5]))
def test_the_fitted_temperature_is_the_likeliest(seed, spread, classes):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(60, classes)) * spread
    labels = np.where(rng.random(60) < 0.6, logits.argmax(axis=-1), rng.integers(0, classes, 60))
    T = metrics.fit_temperature(logits, labels)
    likeliest = nll_at(T, logits, labels)
    assert likeliest <= nll_at(1.0, logits, labels) + 1e-12
    for other in (0.5 * T, 0.99 * T, 1.01 * T, 2 * T):
        if metrics.TEMPERATURES[0] <= other <= metrics.TEMPERATURES[1]:
            assert nll_at(other, logits, labels) >= likeliest - 1e-12
    if 0.1 < T < 10:  # logits three times as large want a temperature three times as high
        assert metrics.fit_temperature(3 * logits, labels) == pytest.approx(3 * T, rel=1e-6)


def test_the_fitted_temperature_by_hand():
    """Three of four right, all by two logits: log 3 is what they should be apart."""
    logits = np.array([[2.0, 0.0]] * 4)
    labels = np.array([0, 0, 0, 1])
    T = metrics.fit_temperature(logits, labels)
    assert math.isclose(T, 2 / math.log(3), rel_tol=1e-9)
    calibrated = metrics.classification_metrics(logits, labels, temperature=T)
    assert calibrated["ece_calibrated"] == pytest.approx(0, abs=1e-9)
    assert calibrated["ece"] == pytest.approx(1 / (1 + math.exp(-2)) - 0.75)
    assert metrics.fit_temperature(logits[:3], labels[:3]) == metrics.TEMPERATURES[0]
    assert metrics.fit_temperature(logits, 1 - labels) == metrics.TEMPERATURES[1]
    never = np.concatenate([logits, np.full((4, 1), -np.inf)], axis=-1)
    assert metrics.fit_temperature(never, labels) == pytest.approx(T)
    assert metrics.fit_temperature(never, np.array([0, 0, 0, 2])) == metrics.TEMPERATURES[1]
    assert math.isnan(metrics.fit_temperature(np.array([[np.nan, 0.0]]), [0]))
    assert math.isnan(metrics.fit_temperature(np.array([[np.inf, 0.0]]), [0]))


def test_keys_are_those_that_the_inputs_define():
    labels_only = {"accuracy", "macro_f1", "ece", "nll"}
    rated = metrics.classification_metrics(
        LOGITS, LABELS, ratings_N=np.arange(4.0), teacher_logits_NC=LOGITS
    )
    assert set(rated) == labels_only | {"pearson", "fidelity", "kl_to_teacher"}
    assert rated["fidelity"] == 1 and rated["kl_to_teacher"] == 0
    assert rated["pearson"] == metrics.pearson(LOGITS[:, 1] - LOGITS[:, 0], np.arange(4.0))
    assert set(metrics.classification_metrics(LOGITS, LABELS)) == labels_only
    unlabelled = metrics.classification_metrics(LOGITS, [-1] * 4, teacher_logits_NC=LOGITS)
    assert set(unlabelled) == {"fidelity", "kl_to_teacher"}
    three = np.eye(3)
    assert "pearson" not in metrics.classification_metrics(three, [0, 1, 2], ratings_N=[1, 2, 3])


def test_a_diverged_model_is_nan_in_every_metric_and_no_crash():
    diverged = LOGITS.copy()
    diverged[1, 0] = np.nan
    results = metrics.classification_metrics(
        diverged, LABELS, ratings_N=np.arange(4.0), teacher_logits_NC=LOGITS
    )
    assert len(results) == 7 and all(math.isnan(value) for value in results.values())


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "is the split empty"),
        (np.zeros(4), np.zeros(4, int), "shape"),
        (LOGITS, [0, 1], "do not fit"),
        (LOGITS, [0, 1, 2, 0], "from 0 to 2; allowed are"),
        (LOGITS, [0, 1, -2, 0], "from -2 to 1; allowed are"),
        (LOGITS, [0.0, 1.0, 1.0, 0.0], "integers"),
        (LOGITS, [-1] * 4, "nothing to measure"),
    ],
)
def test_bad_input_is_one_clear_line(logits, labels, message):
    with pytest.raises(UserError, match=message) as caught:
        metrics.classification_metrics(logits, labels)
    assert "\n" not in str(caught.value)


def test_student_and_teacher_must_have_the_same_shape():
    with pytest.raises(UserError, match="same examples and classes"):
        metrics.agreement(LOGITS, LOGITS[:3])
    with pytest.raises(UserError, match="one length"):
        metrics.pearson([1.0, 2.0], [1.0])
    with pytest.raises(UserError, match="empty"):
        metrics.pearson([], [])
