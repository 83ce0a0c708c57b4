"""Losses that match logits ``[..., C]`` without a softmax over them, or class by class.

With ``where`` ``[...]``: one value per example. Classes that either model puts at -inf are left
out where logits are compared as numbers.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.logits import Variant, check_variant
from distill_jax.losses.numeric import (
    FLOOR,
    centred,
    clip_logits,
    constant_pair,
    cosine_distance,
    floats,
    l2_normalise,
    log_probs,
    mask_of,
    masked_mean,
    number,
    pearson_distance,
    safe_norm,
    zero_masked,
)

DIST_EPSILON = 1e-8
STANDARD_EPSILON = 1e-7
"""What the released codes of ``dist`` and ``standardize_logits`` add to what they divide by."""


def _possible(student: Array, teacher: Array) -> tuple[Array, Array, Array]:
    """Logits with the classes at -inf zeroed, and a mask of the others, bool [..., C]."""
    possible = (student > -FLOOR) & (teacher > -FLOOR)
    student, teacher = (clip_logits(logits) for logits in (student, teacher))
    return jnp.where(possible, student, 0), jnp.where(possible, teacher, 0), possible


def mse_logits(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Mean squared difference of the logits, over classes.

    ``1/C * sum_c (z_s[c] - z_t[c])^2``. Classes that either model puts at -inf are left out of
    the mean.

    Source: Ba, Caruana 2014, "Do Deep Nets Really Need to be Deep?", section 2 (half the sum).

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.

    Example:
      >>> mse_logits(jnp.array([2.0, 0.0, 5.0]), jnp.array([1.0, 0.0, -jnp.inf]))
      Array(0.5, dtype=float32)
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    student, teacher, possible = _possible(student, teacher)
    return masked_mean((student - teacher) ** 2, possible & mask[..., None], axis=-1)


def kl_infinite_temperature(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """What ``T^2 KL`` tends to as T grows: half the mean squared difference of centred logits.

    ``1/(2 C) * sum_c ((z_s[c] - mean z_s) - (z_t[c] - mean z_t))^2``. Classes that either model
    puts at -inf are left out.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", eq. 4.

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.

    Example:
      >>> student, teacher = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> kl_infinite_temperature(student, teacher), kl(student, teacher, T=1000.0)
      (Array(0.778, dtype=float32), Array(0.778, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    student, teacher, possible = _possible(student, teacher)
    difference = student - teacher
    centred = difference - masked_mean(difference, possible, axis=-1)[..., None]
    return masked_mean(centred**2, possible & mask[..., None], axis=-1) / 2


def cosine_logits(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """One minus the cosine of the angle between the logits, from 0 to 2.

    ``1 - <z_s, z_t> / (|z_s| |z_t|)``; 1, with zero gradient, where one of them is zero. Classes
    that either model puts at -inf are left out.

    Source: Ham et al. 2023, "Cosine Similarity Knowledge Distillation for Individual Class
    Information Transfer" (there on probabilities).

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.

    Example:
      >>> cosine_logits(jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]]))
      Array([0., 1.], dtype=float32)
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    student, teacher, _ = _possible(student, teacher)
    return jnp.where(mask, cosine_distance(student, teacher), 0)


def dist(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 1.0,
    beta: ArrayLike = 1.0,
    gamma: ArrayLike = 1.0,
    variant: Variant = "paper",
) -> Array:
    """DIST: one minus Pearson's correlation of the probabilities, over classes and over examples.

    For example b ``beta (1 - r_c(p_s[b, c], p_t[b, c])) + gamma/C * sum_c (1 - r_b(p_s[b, c],
    p_t[b, c]))``, with correlations ``r`` along classes and along the unmasked examples; the second
    part is the same for all examples, and 0 where there are fewer than two. A side that is
    constant correlates with nothing (r = 0). With two classes the first correlation is +-1 and has
    no gradient. ``variant="as_released"`` multiplies by T^2, and adds 1e-8 to the product of norms
    that r divides by, so that classes which are nowhere likely count as uncorrelated.

    Source: Huang et al. 2022, "Knowledge Distillation from A Stronger Teacher", section 3.

    Args:
      student, teacher: [..., B, C], logits.
      where: bool [..., B], False for examples that do not count.
      T: temperature, above 0.
      beta: weight of the relation between classes.
      gamma: weight of the relation between examples.
      variant: ``"paper"`` or ``"as_released"``.

    Example:
      >>> teacher = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
      >>> dist(teacher, teacher), dist(teacher[::-1], teacher)
      (Array([0., 0.], dtype=float32), Array([3.336, 3.336], dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    if student.ndim < 2:
        raise ValueError(f"dist compares examples: logits must be [..., B, C], not {student.shape}")
    p_s, p_t = jnp.exp(log_probs(student, T)), jnp.exp(log_probs(teacher, T))
    across = jnp.broadcast_to(mask[..., None], p_s.shape)
    released = check_variant(variant)
    distance = _released_distance if released else pearson_distance
    inter = distance(p_s, p_t, jnp.ones_like(across), axis=-1)
    intra = jnp.mean(distance(p_s, p_t, across, axis=-2), axis=-1)
    several = jnp.sum(mask, axis=-1) > 1
    intra = jnp.where(several, intra, 0)[..., None]
    values = number(beta, inter) * inter + number(gamma, inter) * intra
    scale = number(T if released else 1, values) ** 2
    return jnp.where(mask, scale * values, 0)


def _released_distance(student: Array, teacher: Array, where: Array, axis: int) -> Array:
    """One minus Pearson's correlation along ``axis``, damped where both sides hardly vary."""
    student, teacher = centred(student, where, axis), centred(teacher, where, axis)
    norms = safe_norm(student, axis=axis) * safe_norm(teacher, axis=axis)
    return 1 - jnp.sum(student * teacher, axis=axis) / (norms + DIST_EPSILON)


def bce(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 1.0,
) -> Array:
    """Binary cross-entropy with the teacher's probabilities, class by class, scaled by T^2.

    ``-T^2 * sum_c (q_t[c] log q_s[c] + (1 - q_t[c]) log(1 - q_s[c]))`` with
    ``q = sigmoid(logits / T)``: for tasks whose labels do not exclude each other. A cross-entropy:
    not 0 where the two agree. Hard labels are teacher logits of +inf and -inf.

    Source: Yang et al. 2023, "Multi-Label Knowledge Distillation", section 3.2 (there as the
    divergence, which differs by the teacher's entropy).

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      T: temperature, above 0.

    Example:
      >>> logits, labels = jnp.array([1.0, -1.0]), jnp.array([jnp.inf, -jnp.inf])
      >>> bce(logits, logits), bce(logits, labels)
      (Array(1.164, dtype=float32), Array(0.627, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    z_s, z_t = (clip_logits(logits) / number(T, logits) for logits in (student, teacher))
    log_yes, log_no = jax.nn.log_sigmoid(z_s), jax.nn.log_sigmoid(-z_s)
    values = -jnp.sum(jax.nn.sigmoid(z_t) * log_yes + jax.nn.sigmoid(-z_t) * log_no, axis=-1)
    return jnp.where(mask, number(T, values) ** 2 * values, 0)


def mse_regression(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Mean squared difference of predicted numbers, over outputs.

    ``1/C * sum_c (y_s[c] - y_t[c])^2``, for models whose outputs are numbers and not logits.

    Source: Saputra et al. 2019, "Distilling Knowledge From a Deep Pose Regressor Network", the
    imitation loss of section 3.

    Args:
      student: [..., C], predictions; C is 1 for a single number.
      teacher: [..., C], predictions.
      where: bool [...], False for examples that do not count.

    Example:
      >>> mse_regression(jnp.array([[2.5], [1.0]]), jnp.array([[2.0], [1.0]]))
      Array([0.25, 0.  ], dtype=float32)
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    return jnp.where(mask, jnp.mean((student - teacher) ** 2, axis=-1), 0)


def standardize_logits(
    logits: ArrayLike, *, where: ArrayLike | None = None, variant: Variant = "paper"
) -> Array:
    """Logits with mean 0 and standard deviation 1 over classes: a transform before any loss.

    ``(z - mean z) / std z``; 0 with zero gradient where all logits are equal. Classes at -inf are
    left out and stay. ``variant="as_released"`` takes the standard deviation with C - 1 in the
    denominator, where the paper has C, and adds 1e-7 to it.

    Source: Sun et al. 2024, "Logit Standardization in Knowledge Distillation", algorithm 1.

    Args:
      logits: [..., C].
      where: bool [...], False for examples that do not count: 0 there.
      variant: ``"paper"`` or ``"as_released"``.

    Returns:
      [..., C]. Gradients flow; the losses stop the teacher's.

    Example:
      >>> standardize_logits(jnp.array([[3.0, 1.0], [30.0, 10.0]]))
      Array([[ 1., -1.],
             [ 1., -1.]], dtype=float32)
    """
    (logits,) = floats(logits)
    mask = mask_of(where, logits.shape[:-1])
    clipped = clip_logits(zero_masked(logits, mask))
    possible = clipped > -FLOOR
    centred = clipped - masked_mean(clipped, possible, axis=-1)[..., None]
    centred = jnp.where(possible, centred, 0)
    count = jnp.sum(possible, axis=-1, keepdims=True, dtype=logits.dtype)
    if check_variant(variant):
        deviation = safe_norm(centred)[..., None] / jnp.sqrt(jnp.maximum(count - 1, 1))
        standard = centred / (deviation + STANDARD_EPSILON)
    else:
        standard = l2_normalise(centred) * jnp.sqrt(count)
    return jnp.where(possible, standard, -FLOOR)
