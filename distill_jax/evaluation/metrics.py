"""Metrics of a classifier on the host, in float64: task, calibration, fidelity.

Shapes: N examples, C classes. A label of -1 marks an example without a label: it is left out
of the metrics that need labels and kept in those that need only the teacher. NaN logits (a
run that diverged) make every metric that sees them NaN, so that a sweep can file the run.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats
from sklearn import metrics as sklearn_metrics

from distill_jax.core.errors import UserError

Floats = NDArray[np.float64]
TEMPERATURES = 0.01, 100.0
"""The lowest and the highest temperature that is fitted."""


def accuracy(logits_NC: ArrayLike, labels_N: ArrayLike) -> float:
    """Share of the labelled examples whose highest logit is the label's."""
    logits, labels = _labelled(logits_NC, labels_N)
    if np.isnan(logits).any():
        return float("nan")
    return float(np.mean(logits.argmax(axis=-1) == labels))


def macro_f1(logits_NC: ArrayLike, labels_N: ArrayLike) -> float:
    """Unweighted mean of the F1 of every class that occurs among labels or predictions.

    A class that is never predicted has F1 = 0 (scikit-learn's ``f1_score(average="macro")``).
    """
    logits, labels = _labelled(logits_NC, labels_N)
    if np.isnan(logits).any():
        return float("nan")
    predicted = logits.argmax(axis=-1)
    return float(sklearn_metrics.f1_score(labels, predicted, average="macro", zero_division=0))


def expected_calibration_error(probs_NC: ArrayLike, labels_N: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins of the confidence.

    ``ECE = sum_m |B_m| / N * |acc(B_m) - conf(B_m)|``, with the confidence ``max_c p_c`` and
    ``B_m`` the examples whose confidence lies in ``((m - 1) / bins, m / bins]``: Naeini et al.
    (AAAI 2015); Guo et al. (ICML 2017), eq. 3.

    Args:
      probs_NC: [N, C], probabilities; rows sum to 1.
      labels_N: [N], class or -1.
      bins: number of bins M.

    Raises:
      UserError: if a row is not a distribution (logits passed by mistake).
    """
    probs, labels = _labelled(probs_NC, labels_N)
    if bins < 1:
        raise UserError(f"expected_calibration_error needs at least 1 bin, not {bins}.")
    if np.isnan(probs).any():
        return float("nan")
    if (probs < 0).any() or not np.allclose(probs.sum(axis=-1), 1.0, atol=1e-3):
        raise UserError(
            "expected_calibration_error wants probabilities: every row non-negative, sum 1."
        )
    confidence = probs.max(axis=-1)
    correct = probs.argmax(axis=-1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    # |B_m| / N * |acc - conf| = |sum of (correct - confidence) over B_m| / N.
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def negative_log_likelihood(logits_NC: ArrayLike, labels_N: ArrayLike) -> float:
    """Mean of ``-log softmax(logits)[label]`` over the labelled examples, in nats."""
    logits, labels = _labelled(logits_NC, labels_N)
    log_probs = special.log_softmax(logits, axis=-1)
    return float(-np.mean(log_probs[np.arange(len(labels)), labels]))


def fit_temperature(logits_NC: ArrayLike, labels_N: ArrayLike) -> float:
    """The temperature at which the labelled examples are likeliest (temperature scaling).

    ``argmin_T`` of ``negative_log_likelihood(logits / T, labels)``: the root in ``1 / T`` of the
    likelihood's slope ``mean(E_p[z] - z[label])``, ``p = softmax(z / T)``, which rises with
    ``1 / T``. Fitted on validation it calibrates the test split; no prediction changes. Where
    colder is better without end (every example right) or hotter (no better than chance) it is the
    end of ``TEMPERATURES``.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.

    Args:
      logits_NC: [N, C].
      labels_N: [N], class or -1.

    Returns:
      T; NaN for logits that are NaN or have no finite largest one.
    """
    logits, labels = _labelled(logits_NC, labels_N)
    if np.isnan(logits).any() or np.isinf(logits.max(axis=-1)).any():
        return float("nan")
    logits = logits - logits.max(axis=-1, keepdims=True)  # the slope is of differences
    chosen = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        probs = special.softmax(inverse * logits, axis=-1)
        expected = (probs * np.where(probs > 0, logits, 0.0)).sum(axis=-1)
        return float(np.mean(expected - chosen))

    lowest, highest = TEMPERATURES
    if not slope(1 / highest) < 0:
        return highest
    if not slope(1 / lowest) > 0:
        return lowest
    return float(1 / optimize.brentq(slope, 1 / highest, 1 / lowest))


def pearson(score_N: ArrayLike, rating_N: ArrayLike) -> float:
    """Pearson's r of the model's score with a human rating; NaN where it is undefined.

    Examples without a rating (NaN) are left out. Undefined: fewer than two examples, a side
    that is constant, or a score that is not finite.
    """
    score, rating = np.asarray(score_N, np.float64), np.asarray(rating_N, np.float64)
    if score.ndim != 1 or score.shape != rating.shape:
        raise UserError(
            f"pearson wants two vectors of one length, not shapes {score.shape}, {rating.shape}."
        )
    if not len(score):
        raise UserError("pearson got no examples: is the split empty?")
    rated = ~np.isnan(rating)
    score, rating = score[rated], rating[rated]
    if len(score) < 2 or not np.isfinite(score).all() or not np.isfinite(rating).all():
        return float("nan")
    if np.ptp(score) == 0 or np.ptp(rating) == 0:
        return float("nan")
    return float(stats.pearsonr(score, rating).statistic)


def agreement(student_logits_NC: ArrayLike, teacher_logits_NC: ArrayLike) -> float:
    """Fidelity: share of examples on which student and teacher choose the same class.

    Average top-1 agreement of Stanton et al., "Does Knowledge Distillation Really Work?"
    (NeurIPS 2021), eq. 6.
    """
    student, teacher = _both(student_logits_NC, teacher_logits_NC)
    if np.isnan(student).any() or np.isnan(teacher).any():
        return float("nan")
    return float(np.mean(student.argmax(axis=-1) == teacher.argmax(axis=-1)))


def mean_kl(teacher_logits_NC: ArrayLike, student_logits_NC: ArrayLike) -> float:
    """Mean over examples of ``KL(teacher || student)`` at temperature 1, in nats.

    The second fidelity measure of Stanton et al. (2021), eq. 7.
    """
    teacher, student = _both(teacher_logits_NC, student_logits_NC)
    log_t = special.log_softmax(teacher, axis=-1)
    log_s = special.log_softmax(student, axis=-1)
    probs_t = np.exp(log_t)
    with np.errstate(invalid="ignore"):  # -inf - -inf where the teacher's probability is 0
        terms = np.where(probs_t == 0, 0.0, probs_t * (log_t - log_s))
    return float(terms.sum(axis=-1).mean())


def positive_score(logits_NC: ArrayLike) -> Floats:
    """Score of a binary classifier: the log-odds of class 1, ``z_1 - z_0``. Shape [N].

    Raises:
      UserError: where the task does not have two classes.
    """
    logits = _matrix(logits_NC, "logits")
    if logits.shape[1] != 2:
        raise UserError(f"a positive score needs 2 classes; these logits have {logits.shape[1]}.")
    return logits[:, 1] - logits[:, 0]


def classification_metrics(
    logits_NC: ArrayLike,
    labels_N: ArrayLike,
    *,
    ratings_N: ArrayLike | None = None,
    teacher_logits_NC: ArrayLike | None = None,
    temperature: float | None = None,
) -> dict[str, float]:
    """Every metric that the given arrays define.

    Args:
      logits_NC: [N, C], the student's logits.
      labels_N: [N], class or -1.
      ratings_N: [N], mean human rating, NaN where there is none.
      teacher_logits_NC: [N, C].
      temperature: by which the logits are divided for calibration, fitted elsewhere.

    Returns:
      ``accuracy``, ``macro_f1``, ``ece`` and ``nll`` if any example has a label, and
      ``ece_calibrated`` with a temperature; ``pearson`` (log-odds against rating) if there are
      ratings and two classes; ``fidelity`` and ``kl_to_teacher`` if there are teacher logits.

    Raises:
      UserError: without examples, if shapes do not fit, or if nothing can be measured.
    """
    logits = _matrix(logits_NC, "logits")
    labels = np.asarray(labels_N)
    results: dict[str, float] = {}
    if (labels >= 0).any():
        probs = special.softmax(logits, axis=-1)
        results["accuracy"] = accuracy(logits, labels)
        results["macro_f1"] = macro_f1(logits, labels)
        results["ece"] = expected_calibration_error(probs, labels)
        results["nll"] = negative_log_likelihood(logits, labels)
        if temperature is not None:
            probs = special.softmax(logits / temperature, axis=-1)
            results["ece_calibrated"] = expected_calibration_error(probs, labels)
    if ratings_N is not None and logits.shape[1] == 2:
        results["pearson"] = pearson(positive_score(logits), ratings_N)
    if teacher_logits_NC is not None:
        results["fidelity"] = agreement(logits, teacher_logits_NC)
        results["kl_to_teacher"] = mean_kl(teacher_logits_NC, logits)
    if not results:
        raise UserError("nothing to measure: no example has a label, a rating or a teacher.")
    return results


def _matrix(values_NC: ArrayLike, name: str) -> Floats:
    values = np.asarray(values_NC, np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise UserError(f"{name} must have shape [examples, classes], not {values.shape}.")
    if not len(values):
        raise UserError(f"{name} of 0 examples: is the split empty?")
    return values


def _labelled(values_NC: ArrayLike, labels_N: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """The rows that have a label, with their labels; checks shapes and ranges."""
    values = _matrix(values_NC, "logits or probabilities")
    labels = np.asarray(labels_N)
    if labels.shape != values.shape[:1]:
        raise UserError(f"labels of shape {labels.shape} do not fit {len(values)} examples.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels must be integers, not {labels.dtype}.")
    if labels.max() >= values.shape[1] or labels.min() < -1:
        raise UserError(
            f"labels run from {labels.min()} to {labels.max()}; allowed are -1 (none) and "
            f"0 to {values.shape[1] - 1}."
        )
    kept = labels >= 0
    if not kept.any():
        raise UserError("no example has a label: this metric needs at least one.")
    return values[kept], labels[kept].astype(np.int64)


def _both(first_NC: ArrayLike, second_NC: ArrayLike) -> tuple[Floats, Floats]:
    first, second = _matrix(first_NC, "logits"), _matrix(second_NC, "logits")
    if first.shape != second.shape:
        raise UserError(
            f"student and teacher must speak of the same examples and classes; their logits "
            f"have shapes {first.shape} and {second.shape}."
        )
    return first, second
