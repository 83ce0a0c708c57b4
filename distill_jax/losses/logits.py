"""Losses on logits ``[..., C]``, with ``where`` ``[...]``: one value per example.

``kl`` and its kin are sums over classes times ``T**2``; losses on raw logits are means over
classes. A logit of -inf is a class of probability 0 (see ``numeric.FLOOR``).
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.numeric import (
    FLOOR,
    clip_logits,
    constant_pair,
    floats,
    kl_of_log_probs,
    log_probs,
    mask_of,
    masked_mean,
    number,
    zero_masked,
)


def pick_label(values: Array, labels: ArrayLike, where: Array) -> Array:
    """``values[..., label]``; NaN where an unmasked label is not in ``0..C-1``."""
    labels = jnp.where(where, jnp.asarray(labels), 0)
    known = (labels >= 0) & (labels < values.shape[-1])
    index = jnp.where(known, labels, 0)[..., None]
    picked = jnp.take_along_axis(values, index, axis=-1)[..., 0]
    return jnp.where(known, picked, jnp.nan)


def ce(
    student: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
) -> Array:
    """Cross-entropy with hard labels, optionally smoothed.

    ``-(1 - e) log p_s[y] - e / C * sum_c log p_s[c]`` with ``e = label_smoothing``.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7.

    Args:
      student: [..., C], logits.
      labels: int [...], the class; any value where ``where`` is False.
      where: bool [...], False for examples that do not count.
      label_smoothing: in [0, 1).

    Returns:
      [...], 0 where masked, NaN where an unmasked label is not in ``0..C-1``.

    Raises:
      ValueError: if the shapes do not fit.
    """
    (student,) = floats(student)
    mask = mask_of(where, student.shape[:-1])
    if jnp.shape(labels) != mask.shape:
        raise ValueError(f"labels have shape {jnp.shape(labels)}, expected {mask.shape}")
    log_s = log_probs(zero_masked(student, mask))
    smoothing = number(label_smoothing, student)
    hard = pick_label(log_s, labels, mask)
    values = -(1 - smoothing) * hard - smoothing * jnp.mean(log_s, axis=-1)
    return jnp.where(mask, values, 0)


def kl(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 1.0,
) -> Array:
    """Forward Kullback-Leibler divergence, KL(teacher || student), scaled by T^2.

    ``T^2 * sum_c p_t[c] (log p_t[c] - log p_s[c])`` with ``p = softmax(logits / T)``.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network",
    section 2 (there as a cross-entropy, which differs by the teacher's entropy).

    Args:
      student: [..., C], logits.
      teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      T: temperature, above 0.

    Returns:
      [...], 0 where masked.

    Raises:
      ValueError: if the shapes do not fit.
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    values = kl_of_log_probs(log_probs(teacher, T), log_probs(student, T))
    return jnp.where(mask, number(T, values) ** 2 * values, 0)


def reverse_kl(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 1.0,
) -> Array:
    """Reverse Kullback-Leibler divergence, KL(student || teacher), scaled by T^2.

    ``T^2 * sum_c p_s[c] (log p_s[c] - log p_t[c])``: seeks a mode of the teacher where ``kl``
    covers them all.

    Source: Gu et al. 2024, "MiniLLM: Knowledge Distillation of Large Language Models", eq. 1
    (there over sequences).

    Args:
      student: [..., C], logits.
      teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      T: temperature, above 0.

    Returns:
      [...], 0 where masked.

    Raises:
      ValueError: if the shapes do not fit.
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    values = kl_of_log_probs(log_probs(student, T), log_probs(teacher, T))
    return jnp.where(mask, number(T, values) ** 2 * values, 0)


def mse_logits(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Mean squared difference of the logits, over classes.

    ``1/C * sum_c (z_s[c] - z_t[c])^2``. Classes that either model puts at -inf are left out of
    the mean.

    Source: Ba, Caruana 2014, "Do Deep Nets Really Need to be Deep?", eq. 1 (there 1/2 the sum).

    Args:
      student: [..., C], logits.
      teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.

    Returns:
      [...], 0 where masked.

    Raises:
      ValueError: if the shapes do not fit.
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    possible = (student > -FLOOR) & (teacher > -FLOOR)
    difference = jnp.where(possible, clip_logits(student) - clip_logits(teacher), 0)
    return jnp.where(mask, masked_mean(difference**2, possible, axis=-1), 0)
