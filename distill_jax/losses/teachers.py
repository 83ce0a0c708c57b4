"""Several teachers as one, on logits ``[K, ..., C]``: two different choices, both named.

The mean of the teachers' probabilities is not the softmax of the mean of their logits.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.numeric import clip_logits, floats, log_probs, number


def _weights(weights: ArrayLike | None, logits: Array) -> Array:
    """Weights of sum 1, [K, 1, ..., 1]."""
    count = logits.shape[0]
    given = jnp.ones((count,), logits.dtype) if weights is None else number(weights, logits)
    if given.shape != (count,):
        raise ValueError(f"{count} teachers need {count} weights, not {given.shape}")
    return (given / jnp.sum(given)).reshape((count,) + (1,) * (logits.ndim - 1))


def mean_probabilities(
    logits: ArrayLike, *, weights: ArrayLike | None = None, T: ArrayLike = 1.0
) -> Array:
    """Logits of the teachers' mean probabilities at temperature T.

    ``T log(sum_k w_k softmax(z_k / T))``: divided by T, their softmax is the mean of probabilities.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 1
    (arithmetic mean of the predictive distributions).

    Args:
      logits: [K, ..., C], those of K teachers.
      weights: [K], not negative, of any sum above 0; None for equal ones.
      T: the temperature that the loss will use, above 0.

    Returns:
      [..., C], constant: no gradient flows to the teachers.

    Example:
      >>> jnp.exp(mean_probabilities(jnp.array([[0.0, 0.0], [4.0, 0.0]])))
      Array([0.741, 0.259], dtype=float32)
    """
    (logits,) = floats(jax.lax.stop_gradient(jnp.asarray(logits)))
    share = _weights(weights, logits)
    mean = jax.nn.logsumexp(log_probs(logits, T), axis=0, b=share)
    return jax.lax.stop_gradient(clip_logits(number(T, logits) * mean))


def mean_logits(logits: ArrayLike, *, weights: ArrayLike | None = None) -> Array:
    """Weighted mean of the teachers' logits, a geometric mean of their probabilities.

    ``sum_k w_k z_k``.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 5
    (geometric mean of the predictive distributions).

    Args:
      logits: [K, ..., C], those of K teachers.
      weights: [K], not negative, of any sum above 0; None for equal ones.

    Returns:
      [..., C], constant: no gradient flows to the teachers.

    Example:
      >>> mean_logits(jnp.array([[0.0, 0.0], [4.0, 0.0]]), weights=jnp.array([3.0, 1.0]))
      Array([1., 0.], dtype=float32)
    """
    (logits,) = floats(jax.lax.stop_gradient(jnp.asarray(logits)))
    return jnp.sum(clip_logits(logits) * _weights(weights, logits), axis=0)
