"""Losses on logits ``[..., C]`` that read the hard labels ``[...]``: one value per example."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.logit_matching import bce, mse_regression
from distill_jax.losses.numeric import (
    FLOOR,
    constant_pair,
    floats,
    kl_of_log_probs,
    log_probs,
    mask_of,
    masked_log_probs,
    masked_logsumexp,
    number,
    zero_masked,
)


def _known_labels(labels: ArrayLike, where: Array) -> Array:
    """int32 labels, 0 where masked."""
    return jnp.where(where, jnp.asarray(labels).astype(jnp.int32), 0)


def pick_label(values: Array, labels: ArrayLike, where: Array) -> Array:
    """``values[..., label]``; NaN where an unmasked label is not in ``0..C-1``."""
    labels = _known_labels(labels, where)
    known = (labels >= 0) & (labels < values.shape[-1])
    index = jnp.where(known, labels, 0)[..., None]
    picked = jnp.take_along_axis(values, index, axis=-1)[..., 0]
    return jnp.where(known, picked, jnp.nan)


def _check_labels(labels: ArrayLike, mask: Array) -> None:
    if jnp.shape(labels) != mask.shape:
        raise ValueError(f"labels have shape {jnp.shape(labels)}, expected {mask.shape}")


def ce(
    student: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
    class_weights: tuple[float, ...] = (),
) -> Array:
    """Cross-entropy with hard labels, optionally smoothed or weighted by class.

    ``w[y] * (-(1 - e) log p_s[y] - e / C * sum_c log p_s[c])`` with ``e = label_smoothing`` and
    ``w = class_weights``. Weights scale each example's value; a mean over examples is not divided
    by their sum.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.

    Args:
      student: [..., C], logits.
      labels: int [...], the class; the value is NaN unless it is in ``0..C-1`` or masked.
      where: bool [...], False for examples that do not count.
      label_smoothing: in [0, 1).
      class_weights: C numbers, 0 or more; () for 1 everywhere.

    Example:
      >>> logits, labels = jnp.array([[0.0, 0.0], [2.0, 0.0]]), jnp.array([1, -1])
      >>> ce(logits, labels, where=labels >= 0)
      Array([0.693, 0.   ], dtype=float32)
    """
    (student,) = floats(student)
    mask = mask_of(where, student.shape[:-1])
    _check_labels(labels, mask)
    log_s = log_probs(zero_masked(student, mask))
    smoothing = number(label_smoothing, student)
    hard = pick_label(log_s, labels, mask)
    values = -(1 - smoothing) * hard - smoothing * jnp.mean(log_s, axis=-1)
    return jnp.where(mask, _weighted(values, labels, mask, class_weights, student.shape[-1]), 0)


def _weighted(
    values: Array, labels: ArrayLike, mask: Array, weights: tuple[float, ...], classes: int
) -> Array:
    """Values times the weights of their labels' classes; () weighs nothing."""
    if not weights:
        return values
    if len(weights) != classes:
        raise ValueError(f"{len(weights)} weights for {classes} classes")
    return values * jnp.asarray(weights, values.dtype)[_known_labels(labels, mask)]


def focal(
    student: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
    class_weights: tuple[float, ...] = (),
) -> Array:
    """Focal loss: cross-entropy with hard labels, less of it the surer the student is of them.

    ``-w[y] (1 - p_s[y])^gamma log p_s[y]`` with ``w = class_weights``, the paper's alpha. With
    ``gamma = 0`` it is ``ce``. Weights scale each example's value, as those of ``ce`` do.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", eq. 4 and 5 (there of a
    logistic function for each class; here of the softmax).

    Args:
      student: [..., C], logits.
      labels: int [...], the class; the value is NaN unless it is in ``0..C-1`` or masked.
      where: bool [...], False for examples that do not count.
      gamma: 0 or more.
      class_weights: C numbers, 0 or more; () for 1 everywhere.

    Example:
      >>> logits, labels = jnp.array([[0.0, 0.0], [2.0, 0.0]]), jnp.array([0, 0])
      >>> focal(logits, labels), ce(logits, labels)
      (Array([0.173, 0.002], dtype=float32), Array([0.693, 0.127], dtype=float32))
    """
    (student,) = floats(student)
    mask = mask_of(where, student.shape[:-1])
    _check_labels(labels, mask)
    log_s = log_probs(zero_masked(student, mask))
    # 1 - p by its logarithm, over the other classes: 1 - p cancels, its power has no slope at 0.
    log_rest = masked_logsumexp(log_s, _others(labels, mask, student.shape[-1]))
    unsure = jnp.exp(number(gamma, student) * log_rest)
    values = -unsure * pick_label(log_s, labels, mask)
    return jnp.where(mask, _weighted(values, labels, mask, class_weights, student.shape[-1]), 0)


def _others(labels: ArrayLike, mask: Array, classes: int) -> Array:
    """bool [..., C]: the classes beside the label's."""
    classes_C = jnp.arange(classes, dtype=jnp.int32).reshape((1,) * mask.ndim + (-1,))
    return classes_C != _known_labels(labels, mask)[..., None]


def dkd(
    student: ArrayLike,
    teacher: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 1.0,
    alpha: ArrayLike = 1.0,
    beta: ArrayLike = 8.0,
) -> Array:
    """Decoupled distillation: KL on "target or not" plus KL among the other classes, times T^2.

    ``T^2 (alpha * KL(b_t || b_s) + beta * KL(q_t || q_s))`` with ``b = (p[y], 1 - p[y])`` and ``q``
    the softmax over the classes other than ``y``. With two classes the second part is 0. With
    ``alpha = 1`` and ``beta = 1 - p_t[y]`` it is ``kl``. The other classes are selected by a mask,
    not by the ``-1000 * mask`` of the released code, which large logits outweigh.

    Source: Zhao et al. 2022, "Decoupled Knowledge Distillation", eq. 7.

    Args:
      student, teacher: [..., C], logits.
      labels: int [...], the class; the value is NaN unless it is in ``0..C-1`` or masked.
      where: bool [...], False for examples that do not count.
      T: temperature, above 0.
      alpha: weight of the target part.
      beta: weight of the other part.

    Example:
      >>> student, teacher = jnp.array([[5.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
      >>> label = jnp.array(0)
      >>> dkd(student, teacher, label, alpha=0.0), dkd(student, teacher, label, beta=0.0)
      (Array(0., dtype=float32), Array(0.621, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    _check_labels(labels, mask)
    others = _others(labels, mask, student.shape[-1])

    def parts(logits: Array) -> tuple[Array, Array]:
        log_p = log_probs(logits, T)
        log_rest = masked_logsumexp(log_p, others)
        binary = jnp.stack([pick_label(log_p, labels, mask), log_rest], axis=-1)
        return binary, masked_log_probs(logits / number(T, logits), others)

    (binary_s, among_s), (binary_t, among_t) = parts(student), parts(teacher)
    target, rest = kl_of_log_probs(binary_t, binary_s), kl_of_log_probs(among_t, among_s)
    values = number(alpha, target) * target + number(beta, target) * rest
    return jnp.where(mask, number(T, values) ** 2 * values, 0)


def mmi(
    student: ArrayLike,
    teacher: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Maximal mutual information of teacher and student on the label.

    ``-(log p_s[y] + log p_t[y])``. The teacher is a constant here, so the student's gradient is
    that of ``ce``; the value also tells how sure the teacher is of the labels.

    Source: Bahl et al. 1986, "Maximum mutual information estimation of hidden Markov model
    parameters for speech recognition" (the criterion, there for one model).

    Args:
      student, teacher: [..., C], logits.
      labels: int [...], the class; the value is NaN unless it is in ``0..C-1`` or masked.
      where: bool [...], False for examples that do not count.

    Example:
      >>> student, teacher, label = jnp.array([0.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array(0)
      >>> mmi(student, teacher, label), ce(student, label) + ce(teacher, label)
      (Array(0.82, dtype=float32), Array(0.82, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    _check_labels(labels, mask)
    log_joint = log_probs(student) + log_probs(teacher)
    return jnp.where(mask, -pick_label(log_joint, labels, mask), 0)


def pseudo_ce(
    student: ArrayLike,
    teacher: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Cross-entropy with the hard label where there is one, elsewhere with the teacher's class.

    ``-log p_s[y]``, with ``y`` the label, or ``argmax_c teacher[c]`` where the label is -1. Every
    example weighs the same. Of the classes that share the teacher's largest logit the first counts.

    Source: Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for
    Deep Neural Networks" (there the student labels for itself, and the two kinds of examples are
    averaged apart, with a weight).

    Args:
      student: [..., C], logits.
      teacher: [..., C], logits; read where there is no label.
      labels: int [...], the class, or -1 for none; any value where ``where`` is False.
      where: bool [...], False for examples that do not count.

    Returns:
      [...], 0 where masked, NaN where an unmasked label is not in ``-1..C-1``, or where the
      teacher is asked and says NaN.

    Example:
      >>> student, teacher = jnp.array([[[2.0, 0.0]] * 2, [[9.0, 0.0]] * 2])
      >>> pseudo_ce(student, teacher, jnp.array([1, -1]))
      Array([2.127, 0.127], dtype=float32)
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    _check_labels(labels, mask)
    lost = jnp.any(jnp.isnan(teacher), axis=-1)  # argmax would take the NaN for the largest
    said = jnp.where(lost, -1, jnp.argmax(teacher, axis=-1).astype(jnp.int32))
    given = _known_labels(labels, mask)
    hard = pick_label(log_probs(student), jnp.where(given == -1, said, given), mask)
    return jnp.where(mask, -hard, 0)


def output_labels(
    student: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    binary: bool,
) -> Array:
    """The label of a single output: cross-entropy of a yes or no, squared error of a number.

    ``-y log q - (1 - y) log(1 - q)`` with ``q = sigmoid(student)`` where ``binary``, else
    ``(student - y)^2``.

    Source: Ma et al. 2018, "Entire Space Multi-Task Model: An Effective Approach for Estimating
    Post-Click Conversion Rate", eq. 3 (of the binary ones).

    Args:
      student: [..., 1], a logit or the number itself.
      labels: [..., 1], 0 or 1, or a number; any value where ``where`` is False.
      where: bool [...], False for examples that do not count.
      binary: whether the output is a logit.

    Example:
      >>> output_labels(jnp.array([[0.0], [9.0]]), jnp.array([[1.0], [0.0]]), binary=True)
      Array([0.693, 9.   ], dtype=float32)
    """
    if not binary:
        return mse_regression(student, labels, where=where)
    # As logits: FLOOR is as good as infinity, see bce.
    return bce(student, jnp.where(jnp.asarray(labels) > 0.5, FLOOR, -FLOOR), where=where)
