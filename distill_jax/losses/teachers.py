"""Several teachers as one, on logits ``[K, ..., C]``: two different choices, both named; and how
sure a teacher is of an example, by which it may count more or less there.

The mean of the teachers' probabilities is not the softmax of the mean of their logits.
"""

import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.numeric import clip_logits, floats, log_probs, number

Confidence = Literal["confidence", "certainty"]
CONFIDENCES: tuple[str, ...] = get_args(Confidence)
TRUSTS = (*CONFIDENCES, "label")


def _weights(weights: ArrayLike | None, logits: Array) -> Array:
    """Weights of sum 1 over the teachers, [K, 1, ..., 1] or [K, ..., 1]."""
    count = logits.shape[0]
    given = jnp.ones((count,), logits.dtype) if weights is None else number(weights, logits)
    if given.shape not in ((count,), logits.shape[:-1]):
        raise ValueError(
            f"{count} teachers need {count} weights, or as many for each example, not {given.shape}"
        )
    given = given.reshape(given.shape + (1,) * (logits.ndim - given.ndim))
    return given / jnp.sum(given, axis=0, keepdims=True)


def mean_probabilities(
    logits: ArrayLike, *, weights: ArrayLike | None = None, T: ArrayLike = 1.0
) -> Array:
    """Logits of the teachers' mean probabilities at temperature T.

    ``T log(sum_k w_k softmax(z_k / T))``: divided by T, their softmax is the mean of probabilities.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 1
    (arithmetic mean of the predictive distributions).

    Args:
      logits: [K, ..., C], those of K teachers.
      weights: [K], or [K, ...] for each example; not negative, of any sum above 0; None for equal
        ones.
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
      weights: [K], or [K, ...] for each example; not negative, of any sum above 0; None for equal
        ones.

    Returns:
      [..., C], constant: no gradient flows to the teachers.

    Example:
      >>> mean_logits(jnp.array([[0.0, 0.0], [4.0, 0.0]]), weights=jnp.array([3.0, 1.0]))
      Array([1., 0.], dtype=float32)
    """
    (logits,) = floats(jax.lax.stop_gradient(jnp.asarray(logits)))
    return jnp.sum(clip_logits(logits) * _weights(weights, logits), axis=0)


def confidence(logits: ArrayLike, *, by: Confidence = "confidence") -> Array:
    """How sure a teacher is of each example, in (0, 1].

    ``confidence``: the probability of its likeliest class, at least 1/C; ``certainty``: one less
    the entropy over log C, 0 where all classes are as likely.

    Args:
      logits: [..., C], C at least 2.

    Returns:
      [...], constant: no gradient flows to the teacher.

    Example:
      >>> logits = jnp.array([[0.0, 0.0], [4.0, 0.0]])
      >>> confidence(logits), confidence(logits, by="certainty")
      (Array([0.5  , 0.982], dtype=float32), Array([0.  , 0.87], dtype=float32))
    """
    (logits,) = floats(jax.lax.stop_gradient(jnp.asarray(logits)))
    log_p = log_probs(logits, 1.0)
    if by == "confidence":
        return jnp.exp(jnp.max(log_p, axis=-1))
    entropy = -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    return jnp.clip(1 - entropy / math.log(logits.shape[-1]), 0, 1)


def trust(logits: ArrayLike, *, by: str, labels: ArrayLike, known: ArrayLike) -> Array:
    """How much a teacher's word on an example is worth beside that of others, in [0, 1].

    As ``confidence``; or ``label``: the probability of the right class where that is known, else of
    the likeliest one.

    Source: ours; ``label`` after Zhang, Chen, Wang 2022, "Confidence-Aware Multi-Teacher Knowledge
    Distillation", section 2.2, where teachers weigh by their cross-entropy on the label.

    Args:
      logits: [..., C], C at least 2.
      by: one of ``TRUSTS``.
      labels: int [...]; any class where not ``known``.
      known: bool [...].

    Returns:
      [...], constant.

    Example:
      >>> logits, labels = jnp.array([[0.0, 0.0], [4.0, 0.0]]), jnp.array([0, 1])
      >>> trust(logits, by="label", labels=labels, known=jnp.array([True, True]))
      Array([0.5  , 0.018], dtype=float32)
    """
    if by != "label":
        return confidence(logits, by="certainty" if by == "certainty" else "confidence")
    (logits,) = floats(jax.lax.stop_gradient(jnp.asarray(logits)))
    where = jnp.asarray(known)
    chosen = jnp.where(where, jnp.asarray(labels), 0)
    of_label = jnp.take_along_axis(log_probs(logits), chosen[..., None], axis=-1)[..., 0]
    return jnp.where(where, jnp.exp(of_label), confidence(logits))
