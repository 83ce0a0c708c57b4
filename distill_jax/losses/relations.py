"""Relations between the examples of a batch: ``[B, D]``, ``where`` ``[B]``, one value per anchor.

Student and teacher widths may differ (except in ``crd``). Relations to masked examples do not
exist, and means run over the others, so that padding a batch changes nothing.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.logits import Variant, check_variant
from distill_jax.losses.numeric import (
    constant_pair,
    cosine,
    floats,
    inner_products,
    l2_normalise,
    mask_of,
    masked_mean,
    number,
    safe_norm,
    with_value,
    zero_masked,
)

LEAST_CHANCE = 1e-12
"""``pkt`` reads smaller probabilities as this one, without a gradient."""

PKT_EPSILON = 1e-7
"""What the released code of ``pkt`` adds to norms and to probabilities."""

LEAST_SQUARE = 1e-12
"""The released code of ``rkd_distance`` reads smaller squared distances as this one."""

Negatives = Literal["sum", "mean"]


def _examples(
    student: ArrayLike, teacher: ArrayLike, where: ArrayLike | None
) -> tuple[Array, Array, Array]:
    """[B, D_s] and [B, D_t] with masked rows zeroed, the teacher constant, and the mask [B]."""
    student, teacher = floats(student, teacher)
    if student.ndim != 2 or teacher.ndim != 2 or student.shape[0] != teacher.shape[0]:
        raise ValueError(f"expected [B, D]: student {student.shape}, teacher {teacher.shape}")
    mask = mask_of(where, student.shape[:1])
    return zero_masked(student, mask), zero_masked(jax.lax.stop_gradient(teacher), mask), mask


def _similarities(left: Array, right: Array) -> Array:
    """Inner products of all pairs, [A, D] and [B, D] -> [A, B]."""
    return inner_products("ad,bd->ab", left, right)


def _others(mask: Array) -> Array:
    """bool [B, B]: both examples are unmasked and not the same one."""
    return mask[:, None] & mask[None, :] & ~jnp.eye(mask.shape[0], dtype=bool)


def _huber(difference: Array) -> Array:
    """Huber's loss with its corner at 1: a parabola inside, lines outside."""
    size = jnp.abs(difference)
    return jnp.where(size <= 1, difference**2 / 2, size - 0.5)


def _differences(features: Array) -> Array:
    """``x[j] - x[i]``: [B, D] -> [B, B, D]."""
    return features[None, :, :] - features[:, None, :]


def rkd_distance(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    variant: Variant = "paper",
) -> Array:
    """Relational distillation by distance: Huber's loss of distances in units of their mean.

    For anchor i ``1/(n - 1) * sum_{j != i} huber(d_t[i, j] / mean d_t - d_s[i, j] / mean d_s)``
    over the n unmasked examples, with Euclidean distances d and means over all pairs of different
    examples. ``variant="as_released"`` divides by n, and reads distances below 1e-6 as 1e-6, so
    that duplicates have no gradient.

    Source: Park et al. 2019, "Relational Knowledge Distillation", section 3.2.1.

    Args:
      student: [B, D_s], embeddings.
      teacher: [B, D_t], embeddings; the width may differ.
      where: bool [B], False for examples that do not count.
      variant: ``"paper"`` or ``"as_released"``.

    Returns:
      [B], 0 where masked and where there is no other example.

    Example:
      >>> points = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
      >>> rkd_distance(2 * points, points), rkd_distance(points[:, :1], points)
      (Array([0., 0., 0.], dtype=float32), Array([0.391, 0.156, 0.266], dtype=float32))
    """
    student, teacher, mask = _examples(student, teacher, where)
    released = check_variant(variant)
    others = _others(mask)

    def relative(features: Array) -> Array:
        distances = safe_norm(_differences(features))
        if released:
            distances = jnp.maximum(distances, number(math.sqrt(LEAST_SQUARE), distances))
        mean = masked_mean(distances, others, axis=(0, 1))
        return distances / jnp.where(mean > 0, mean, 1)

    values = jnp.where(others, _huber(relative(student) - relative(teacher)), 0)
    count = jnp.sum(mask, dtype=values.dtype) - (0 if released else 1)
    return jnp.sum(values, axis=1) / jnp.maximum(count, 1)


def rkd_angle(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    variant: Variant = "paper",
) -> Array:
    """Relational distillation by angle: Huber's loss of the cosines of angles in triplets.

    For anchor j, the angle's vertex, the mean over ordered pairs of different other examples i and
    k of ``huber(c_t[i, j, k] - c_s[i, j, k])``, ``c = cos(angle i j k)``; 0 for a side of length 0.
    ``variant="as_released"`` divides by n^2 instead of (n - 1)(n - 2), n the unmasked examples, and
    counts i = k, which differs where only one side has duplicates.

    Source: Park et al. 2019, "Relational Knowledge Distillation", section 3.2.2.

    Args:
      student: [B, D_s], embeddings.
      teacher: [B, D_t], embeddings; the width may differ.
      where: bool [B], False for examples that do not count.
      variant: ``"paper"`` or ``"as_released"``.

    Returns:
      [B], 0 where masked and where there are fewer than two other examples.

    Example:
      >>> points = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
      >>> rkd_angle(2 * points, points), rkd_angle(points[:, :1], points)
      (Array([0., 0., 0.], dtype=float32), Array([0.  , 0.08, 0.32], dtype=float32))
    """
    student, teacher, mask = _examples(student, teacher, where)
    released = check_variant(variant)
    others = _others(mask)

    def angles(features: Array) -> Array:
        sides = l2_normalise(_differences(features))
        return inner_products("jid,jkd->jik", sides, sides)

    triplets = others[:, :, None] & others[:, None, :]
    if not released:
        triplets = triplets & ~jnp.eye(mask.shape[0], dtype=bool)[None]
    values = jnp.where(triplets, _huber(angles(student) - angles(teacher)), 0)
    count = jnp.sum(mask, dtype=values.dtype)
    count = count**2 if released else (count - 1) * (count - 2)
    return jnp.sum(values, axis=(1, 2)) / jnp.maximum(count, 1)


def sp(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Similarity-preserving distillation: squared difference of normalised similarities.

    For anchor i ``1/n * sum_j (G_s[i, j] - G_t[i, j])^2`` over the n unmasked examples, where row i
    of ``G`` is row i of ``X X^T`` divided by its Euclidean norm.

    Source: Tung, Mori 2019, "Similarity-Preserving Knowledge Distillation", section 2.

    Args:
      student: [B, D_s], activations.
      teacher: [B, D_t], activations; the width may differ.
      where: bool [B], False for examples that do not count.

    Example:
      >>> points = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> sp(3 * points, points), sp(points[:, :1], points)
      (Array([0., 0.], dtype=float32), Array([0. , 0.5], dtype=float32))
    """
    student, teacher, mask = _examples(student, teacher, where)
    rows_s, rows_t = (l2_normalise(_similarities(x, x)) for x in (student, teacher))
    return masked_mean((rows_s - rows_t) ** 2, mask[:, None] & mask[None, :], axis=1)


def pkt(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    variant: Variant = "paper",
) -> Array:
    """Probabilistic knowledge transfer: KL of the chances to pick each other example.

    For anchor i ``sum_{j != i} p_t[j|i] log(p_t[j|i] / p_s[j|i])`` with
    ``p[j|i] = K[i, j] / sum_{k != i} K[i, k]`` and ``K = (cosine + 1) / 2``.
    ``variant="as_released"`` counts i = j too, divides by n, the unmasked examples, and adds 1e-7
    to the norms in the cosine and to both chances in the logarithm.

    Source: Passalis, Tefas 2018, "Learning Deep Representations with Probabilistic Knowledge
    Transfer", section 3.

    Args:
      student: [B, D_s], embeddings.
      teacher: [B, D_t], embeddings; the width may differ.
      where: bool [B], False for examples that do not count.
      variant: ``"paper"`` or ``"as_released"``.

    Returns:
      [B], 0 where masked and where there is no other example.

    Example:
      >>> points = jnp.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])
      >>> pkt(2 * points, points), pkt(points**2, points)
      (Array([0., 0., 0.], dtype=float32), Array([0.34 , 0.   , 0.277], dtype=float32))
    """
    student, teacher, mask = _examples(student, teacher, where)
    released = check_variant(variant)
    counted = mask[:, None] & mask[None, :] if released else _others(mask)

    epsilon = number(PKT_EPSILON, student)

    def chances(features: Array) -> Array:
        if released:
            unit = features / (safe_norm(features)[:, None] + epsilon)
        else:
            unit = l2_normalise(features)
        cosines = jnp.clip(_similarities(unit, unit), -1, 1)
        kernel = jnp.where(counted, (cosines + 1) / 2, 0)
        total = jnp.sum(kernel, axis=1, keepdims=True)
        return kernel / jnp.where(total > 0, total, 1)

    def log_chance(p: Array) -> Array:
        return jnp.log(p + epsilon if released else jnp.maximum(p, LEAST_CHANCE))

    p_s, p_t = chances(student), chances(teacher)
    ratio = log_chance(p_t) - log_chance(p_s)
    values = jnp.sum(jnp.where(counted, p_t * ratio, 0), axis=1)
    values = with_value(values, values)  # rounding goes below 0
    return values / jnp.maximum(jnp.sum(mask, dtype=values.dtype), 1) if released else values


def correlation(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    gamma: ArrayLike = 0.4,
    order: int = 2,
) -> Array:
    """Correlation congruence: squared difference of Gaussian similarities between examples.

    For anchor i ``1/n * sum_j (C_s[i, j] - C_t[i, j])^2`` over the n unmasked examples, with
    ``C[i, j] = sum_{p = 0..order} exp(-2 gamma) (2 gamma)^p / p! * cos(x_i, x_j)^p``, the Taylor
    series of ``exp(-gamma |x_i - x_j|^2)`` for embeddings of length 1. The code that its authors
    gave to RepDistiller is another loss: with ``d_i = |x_s[i] - x_t[i]|``, feature by feature, the
    mean over neighbours in the batch of ``<d_i, d_{i+1}>``.

    Source: Peng et al. 2019, "Correlation Congruence for Knowledge Distillation", section 3.3.

    Args:
      student: [B, D_s], embeddings.
      teacher: [B, D_t], embeddings; the width may differ.
      where: bool [B], False for examples that do not count.
      gamma: narrowness of the Gaussian, above 0.
      order: the last power of the series, at least 1.

    Example:
      >>> points = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> correlation(3 * points, points), correlation(jnp.ones((2, 1)), points)
      (Array([0., 0.], dtype=float32), Array([0.127, 0.127], dtype=float32))
    """
    student, teacher, mask = _examples(student, teacher, where)
    if order < 1:
        raise ValueError(f"order must be at least 1, not {order}")
    gamma = number(gamma, student)

    def similarities(features: Array) -> Array:
        unit = l2_normalise(features)
        cosines = _similarities(unit, unit)
        powers = [(2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(1, order + 1)]
        return jnp.exp(-2 * gamma) * (1 + sum(powers[1:], start=powers[0]))

    difference = similarities(student) - similarities(teacher)
    return masked_mean(difference**2, mask[:, None] & mask[None, :], axis=1)


def crd(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 0.07,
    negatives: Negatives = "sum",
) -> Array:
    """Contrastive representation distillation: tell the teacher's embedding from the others'.

    For anchor i ``-log h[i, i] - sum_{j in others} log(1 - h[i, j])`` with
    ``h[i, j] = e / (e + N/M)``, ``e = exp(<s_i, t_j> / T)`` for embeddings of length 1, N others
    and M = N + 1 candidates. The others are the unmasked examples of the batch, without a memory of
    earlier ones. Their sum grows with N, so its weight holds for one batch size;
    ``negatives="mean"`` divides it by N.

    The teacher is a constant, so a learned projection belongs on the student's side only; the paper
    learns one on each. RepDistiller's code adds the same loss with the teacher as the anchor, draws
    N negatives from all M examples of the training set, and divides e by a constant: its mean over
    the first batch, times M.

    Source: Tian, Krishnan, Isola 2020, "Contrastive Representation Distillation", section 3.

    Args:
      student, teacher: [B, D], embeddings.
      where: bool [B], False for examples that do not count.
      T: temperature, above 0.
      negatives: ``"sum"`` (the paper's) or ``"mean"``.

    Returns:
      [B], 0 where masked and where there is nobody else.

    Example:
      >>> student = jnp.array([[2.0, 0.0], [0.0, 1.0]])
      >>> crd(student, 5 * student, T=0.5), crd(student, student[::-1], T=0.5)
      (Array([1.164, 1.164], dtype=float32), Array([3.164, 3.164], dtype=float32))
    """
    if negatives not in ("sum", "mean"):
        raise ValueError(f"negatives must be 'sum' or 'mean', not {negatives!r}")
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    if student.ndim != 2:
        raise ValueError(f"expected [B, D], not {student.shape}")
    others = _others(mask)
    count = jnp.sum(others, axis=1, dtype=student.dtype)
    log_ratio = jnp.log(jnp.maximum(count, 1)) - jnp.log(count + 1)
    scores = _similarities(l2_normalise(student), l2_normalise(teacher)) / number(T, student)
    positive = jax.nn.log_sigmoid(cosine(student, teacher) / number(T, student) - log_ratio)
    negative = jax.nn.log_sigmoid(log_ratio[:, None] - scores)
    against = jnp.sum(jnp.where(others, negative, 0), axis=1)
    if negatives == "mean":
        against = against / jnp.maximum(count, 1)
    return jnp.where(mask & (count > 0), -positive - against, 0)
