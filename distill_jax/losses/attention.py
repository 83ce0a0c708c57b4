"""Losses inside a layer: on attention scores and on queries, keys and values.

Attention losses take **scores** ``[..., H, T, T]`` (before mask and softmax) and apply the masked
softmax themselves; ``where`` is ``[..., T]`` over tokens. Values are means over heads and over the
unmasked queries of an example.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.numeric import (
    clip_logits,
    floats,
    kl_of_log_probs,
    log_mean_exp,
    mask_of,
    masked_log_probs,
    masked_mean,
)

Heads = Literal["auto", "each", "mean"]
"""``each``: head by head (counts must agree). ``mean``: the heads are averaged on both sides
first. ``auto``: ``each`` where the counts agree, else ``mean``."""


def scores_pair(
    student: ArrayLike, teacher: ArrayLike, where: ArrayLike | None, heads: Heads
) -> tuple[Array, Array, Array, bool]:
    """Scores with padding zeroed, the teacher constant, the mask and whether to average heads."""
    student, teacher = floats(student, teacher)
    shapes = student.shape, teacher.shape
    if student.ndim < 3 or shapes[0][:-3] + shapes[0][-2:] != shapes[1][:-3] + shapes[1][-2:]:
        raise ValueError(f"scores must be [..., H, T, T]: student {shapes[0]}, teacher {shapes[1]}")
    if heads not in ("auto", "each", "mean"):
        raise ValueError(f"heads must be 'auto', 'each' or 'mean', not {heads!r}")
    agree = student.shape[-3] == teacher.shape[-3]
    if heads == "each" and not agree:
        raise ValueError(
            f"student has {student.shape[-3]} heads, teacher {teacher.shape[-3]}: use heads='mean'"
        )
    mask = mask_of(where, student.shape[:-3] + student.shape[-1:])
    seen = (mask[..., :, None] & mask[..., None, :])[..., None, :, :]
    student = jnp.where(seen, clip_logits(student), 0)
    teacher = jnp.where(seen, clip_logits(jax.lax.stop_gradient(teacher)), 0)
    return student, teacher, mask, heads == "mean" or not agree


def _attention_log_probs(scores: Array, mask: Array, average: bool) -> Array:
    """Log of the attention probabilities, of each head or of their mean (one head)."""
    keys = mask[..., None, None, :]
    log_p = masked_log_probs(scores, keys)
    if not average:
        return log_p
    return log_mean_exp(log_p, axis=-3)


def attention_mse(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    heads: Heads = "auto",
) -> Array:
    """Mean squared difference of the attention scores, over heads and unmasked queries and keys.

    ``1/(H |tokens|^2) * sum_{h, q, k} (A_s[h, q, k] - A_t[h, q, k])^2``. With ``heads="mean"`` the
    scores are averaged over heads on both sides first.

    Source: Jiao et al. 2020, "TinyBERT", eq. 7 (scores before the softmax).

    Args:
      student: [..., H_s, T, T], attention scores before mask and softmax.
      teacher: [..., H_t, T, T], attention scores.
      where: bool [..., T], False for padding.
      heads: ``"auto"``, ``"each"`` (their numbers agree) or ``"mean"``.

    Example:
      >>> student, teacher = jnp.array([[[[1.0, 7.0], [7.0, 7.0]]], [[[3.0, 0.0], [0.0, 0.0]]]])
      >>> attention_mse(student, teacher, where=jnp.array([True, False]))
      Array(4., dtype=float32)
    """
    student, teacher, mask, average = scores_pair(student, teacher, where, heads)
    if average:
        student, teacher = (jnp.mean(x, axis=-3, keepdims=True) for x in (student, teacher))
    seen = (mask[..., :, None] & mask[..., None, :])[..., None, :, :]
    return masked_mean((student - teacher) ** 2, seen, axis=(-3, -2, -1))


def attention_kl(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    heads: Heads = "auto",
) -> Array:
    """KL(teacher || student) of the attention probabilities, over heads and unmasked queries.

    ``1/(H |tokens|) * sum_{h, q} KL(softmax(A_t[h, q]) || softmax(A_s[h, q]))`` with the softmax
    over unmasked keys. With ``heads="mean"`` the *probabilities* are averaged over heads on both
    sides first, which stays a distribution; ``"auto"`` does so only where the numbers of heads
    differ.

    Source: Wang et al. 2020, "MiniLM", section 3.1.

    Args:
      student: [..., H_s, T, T], attention scores before mask and softmax.
      teacher: [..., H_t, T, T], attention scores.
      where: bool [..., T], False for padding.
      heads: ``"auto"``, ``"each"`` (their numbers agree) or ``"mean"``.

    Example:
      >>> student, teacher = jnp.array([[[[2.0, 0.0], [0.0, 0.0]]], [[[0.0, 0.0], [5.0, 5.0]]]])
      >>> attention_kl(student, teacher), attention_kl(teacher, student)
      (Array(0.217, dtype=float32), Array(0.164, dtype=float32))
    """
    student, teacher, mask, average = scores_pair(student, teacher, where, heads)
    log_s = _attention_log_probs(student, mask, average)
    log_t = _attention_log_probs(teacher, mask, average)
    values = kl_of_log_probs(log_t, log_s)
    return masked_mean(values, mask[..., None, :], axis=(-2, -1))
