"""What all losses share: working dtypes, masks, softmax, means.

Every loss works in float32 (float64 where float64 comes in), zeroes masked entries *before* it
computes with them, so that neither a value nor a gradient of padding can leak, and treats the
teacher as a constant.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

MANY = 256
"""From so many classes on a divergence has a derivative of its own, see ``kl_of_logits``."""

FLOOR = 1e9
"""Logits are read within [-FLOOR, FLOOR]: a class at -inf has probability 0, and losses that
would be infinite are large and finite, with finite gradients."""

NOTHING = -1e30
"""What stands for a masked logit before an exponential: so far below -FLOOR, at any temperature,
that it has no share even where all others are at -inf."""


def floats(*arrays: ArrayLike) -> list[Array]:
    """The arrays in the working dtype: float64 if one of them is, else float32."""
    wide = any(jnp.asarray(array).dtype == jnp.float64 for array in arrays)
    return [jnp.asarray(array).astype(jnp.float64 if wide else jnp.float32) for array in arrays]


def number(value: ArrayLike, like: Array) -> Array:
    """A hyperparameter (a Python number or a traced array) in the dtype of ``like``."""
    return jnp.asarray(value).astype(like.dtype)


def mask_of(where: ArrayLike | None, shape: tuple[int, ...]) -> Array:
    """``where`` as a bool array of exactly ``shape``; all True when it is None."""
    if where is None:
        return jnp.ones(shape, bool)
    mask = jnp.asarray(where)
    if mask.dtype != jnp.bool_:
        raise ValueError(f"where must be bool, not {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"where has shape {mask.shape}, expected {shape}")
    return mask


def same_shape(student: Array, teacher: Array) -> None:
    """Raise ``ValueError`` unless student and teacher agree in shape."""
    if student.shape != teacher.shape:
        raise ValueError(f"student has shape {student.shape}, teacher {teacher.shape}")


def append_axes(array: Array, count: int) -> Array:
    """``array`` with ``count`` new axes of length 1 at its end."""
    return array.reshape(array.shape + (1,) * count)


def zero_masked(array: Array, where: Array) -> Array:
    """Zeros where ``where`` (a prefix of the array's shape) is False, whatever was there."""
    return jnp.where(append_axes(where, array.ndim - where.ndim), array, 0)


def constant_pair(
    student: ArrayLike, teacher: ArrayLike, where: ArrayLike | None, *, inner: int
) -> tuple[Array, Array, Array]:
    """Student, teacher and mask, ready to compute with.

    Args:
      student: [*outer, *inner].
      teacher: the same shape.
      where: bool [*outer] or None.
      inner: how many trailing axes ``where`` does not have.

    Returns:
      Both in the working dtype with masked entries zeroed, the teacher under
      ``stop_gradient``, and the mask.
    """
    student, teacher = floats(student, teacher)
    same_shape(student, teacher)
    mask = mask_of(where, student.shape[: student.ndim - inner])
    return zero_masked(student, mask), zero_masked(jax.lax.stop_gradient(teacher), mask), mask


def clip_logits(logits: Array) -> Array:
    """Logits within ``[-FLOOR, FLOOR]``; what is clipped has no gradient."""
    return jnp.clip(logits, -FLOOR, FLOOR)


def tempered(logits: Array, T: ArrayLike) -> Array:
    """``logits / T``, finite everywhere."""
    return clip_logits(logits) / number(T, logits)


def log_probs(logits: Array, T: ArrayLike = 1.0) -> Array:
    """``log softmax(logits / T)`` over the last axis, finite everywhere."""
    return jax.nn.log_softmax(tempered(logits, T), axis=-1)


def masked_log_probs(scores: Array, where: Array) -> Array:
    """``log softmax`` over the unmasked entries of the last axis; ``-FLOOR`` at the others.

    Args:
      scores: [..., K].
      where: bool, broadcastable to ``scores``. A row without any True gives ``-FLOOR``.
    """
    masked = jnp.where(where, clip_logits(scores), NOTHING)
    return jnp.where(where, jax.nn.log_softmax(masked, axis=-1), -FLOOR)


def masked_logsumexp(logits: Array, where: Array) -> Array:
    """``log sum exp`` over the unmasked entries of the last axis; about ``NOTHING`` without any."""
    return jax.nn.logsumexp(jnp.where(where, logits, NOTHING), axis=-1)


def with_value(plain: Array, value: Array) -> Array:
    """``value``, at least 0, with the gradient of ``plain``: the same thing, computed better."""
    return plain + jax.lax.stop_gradient(jnp.maximum(value, 0) - plain)


def kl_of_log_probs(log_p: Array, log_q: Array) -> Array:
    """``KL(p || q)`` over the last axis from finite log-probabilities; 0 log 0 is 0.

    The sum of ``p (log p - log q)`` cancels where p and q are alike. The value is that of
    ``q - p + p (log p - log q)``, which has the same sum and no entry below 0, with ``q - p`` as
    ``(p + q) tanh(log(q/p) / 2)``, which does not cancel.
    """
    p, gap = jnp.exp(log_p), log_q - log_p
    value = jnp.sum((p + jnp.exp(log_q)) * jnp.tanh(gap / 2) - p * gap, axis=-1)
    return with_value(-jnp.sum(p * gap, axis=-1), value)


def kl_of_logits(p: Array, q: Array) -> Array:
    """``KL(softmax(p) || softmax(q))`` over the last axis of finite logits.

    Over ``MANY`` classes each pass and each array counts: the gradients, ``p (log p - log q - KL)``
    and ``q - p``, are then made from the logits and a few numbers a row, in one pass. Fewer cost
    the same either way, and go through ``kl_of_log_probs``.
    """
    if p.shape[-1] < MANY:
        return kl_of_log_probs(jax.nn.log_softmax(p, axis=-1), jax.nn.log_softmax(q, axis=-1))
    return _kl_of_many(p, q)


@jax.custom_vjp
def _kl_of_many(p: Array, q: Array) -> Array:
    return _kl_forward(p, q)[0]


def _kl_forward(p: Array, q: Array) -> tuple[Array, Any]:
    sums = _sums(p), _sums(q)
    log_p, log_q = _log_share(p, *sums[0]), _log_share(q, *sums[1])
    p_, gap = jnp.exp(log_p), log_q - log_p
    value = jnp.sum((p_ + jnp.exp(log_q)) * jnp.tanh(gap / 2) - p_ * gap, axis=-1)
    value = jnp.maximum(value, 0)
    return value, (p, q, sums, value)


def _kl_backward(kept: Any, back: Array) -> tuple[Array, Array]:
    # Made anew: what is left of the forward pass would have to be held until now.
    p, q, sums, value = jax.lax.optimization_barrier(kept)
    gap = _log_share(p, *sums[0]) - _log_share(q, *sums[1])
    p, q = _share(p, *sums[0]), _share(q, *sums[1])
    return back[..., None] * p * (gap - value[..., None]), back[..., None] * (q - p)


def _sums(logits: Array) -> tuple[Array, Array]:
    """The largest logit of each row, and the sum of the exponentials of those less it."""
    largest = jnp.max(logits, axis=-1, keepdims=True)
    return largest, jnp.sum(jnp.exp(logits - largest), axis=-1, keepdims=True)


def _log_share(logits: Array, largest: Array, total: Array) -> Array:
    return (logits - largest) - jnp.log(total)


def _share(logits: Array, largest: Array, total: Array) -> Array:
    return jnp.exp(logits - largest) * (1 / total)


_kl_of_many.defvjp(_kl_forward, _kl_backward)


def masked_mean(values: Array, where: Array, axis: int | tuple[int, ...]) -> Array:
    """Mean of the unmasked ``values`` along ``axis``; 0 where nothing is unmasked."""
    where = jnp.broadcast_to(where, values.shape)
    count = jnp.sum(where, axis=axis, dtype=values.dtype)
    return jnp.sum(jnp.where(where, values, 0), axis=axis) / jnp.maximum(count, 1)


def inner_products(spec: str, left: Array, right: Array) -> Array:
    """``jnp.einsum`` in full float32: by default TPUs and GPUs round its inputs to fewer bits."""
    return jnp.einsum(spec, left, right, precision=jax.lax.Precision.HIGHEST)


def l2_normalise(vectors: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """Vectors of length 1; the zero vector stays zero, with zero gradient.

    Scaled by their largest entry first, so that neither large nor small entries leave the range.
    """
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=axis, keepdims=True))
    scaled = vectors / jnp.where(scale > 0, scale, 1)
    square = jnp.sum(scaled**2, axis=axis, keepdims=True)
    return jnp.where(square > 0, scaled * jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)


def safe_norm(vectors: Array, axis: int = -1) -> Array:
    """Euclidean norm; at the zero vector 0 with zero gradient."""
    square = jnp.sum(vectors**2, axis=axis)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def cosine(student: Array, teacher: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """Cosine of the angle between vectors; 0 where one of them is zero."""
    return jnp.sum(l2_normalise(student, axis) * l2_normalise(teacher, axis), axis=axis)


def cosine_distance(student: Array, teacher: Array, axis: int | tuple[int, ...] = -1) -> Array:
    """One minus the cosine of the angle between vectors; 1 where one of them is zero.

    The value is half the squared distance of the vectors of length 1, which does not cancel.
    """
    one, other = l2_normalise(student, axis), l2_normalise(teacher, axis)
    both = jnp.any(one != 0, axis=axis) & jnp.any(other != 0, axis=axis)
    value = jnp.where(both, jnp.sum((one - other) ** 2, axis=axis) / 2, 1)
    return with_value(1 - jnp.sum(one * other, axis=axis), value)


def pearson_distance(student: Array, teacher: Array, where: Array, axis: int) -> Array:
    """One minus Pearson's correlation along ``axis`` over unmasked entries.

    1 where one side is constant.
    """
    student, teacher = centred(student, where, axis), centred(teacher, where, axis)
    return cosine_distance(student, teacher, axis=axis)


def centred(values: Array, where: Array, axis: int) -> Array:
    """Values minus the mean of the unmasked ones along ``axis``; 0 where masked."""
    mean = jnp.expand_dims(masked_mean(values, where, axis), axis)
    return jnp.where(where, values - mean, 0)


def log_mean_exp(log_p: Array, axis: int) -> Array:
    """Log of the mean of ``exp(log_p)`` along ``axis``, which is kept with length 1."""
    log_count = jnp.log(number(log_p.shape[axis], log_p))
    return jax.nn.logsumexp(log_p, axis=axis, keepdims=True) - log_count
