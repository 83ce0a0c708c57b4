"""Divergences between the distributions of logits ``[..., C]``: one value per example.

With ``where`` ``[...]``. All are sums over classes; those with a temperature are scaled by
``T**2``. A logit of -inf is a class of probability 0 (see ``numeric.FLOOR``).
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.numeric import (
    FLOOR,
    constant_pair,
    kl_of_log_probs,
    kl_of_logits,
    log_probs,
    masked_logsumexp,
    number,
    tempered,
)

Variant = Literal["paper", "as_released"]


def check_variant(variant: str) -> bool:
    """Whether the released code is to be followed. Raises ``ValueError`` for other words."""
    if variant not in ("paper", "as_released"):
        raise ValueError(f"variant must be 'paper' or 'as_released', not {variant!r}")
    return variant == "as_released"


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
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      T: temperature, above 0.

    Example:
      >>> student, teacher = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> kl(student, teacher, T=2.0), kl(teacher, student, T=2.0)
      (Array(0.836, dtype=float32), Array(0.852, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    values = kl_of_logits(tempered(teacher, T), tempered(student, T))
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
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      T: temperature, above 0.

    Example:
      >>> student, teacher = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> reverse_kl(student, teacher), kl(teacher, student)
      (Array(0.779, dtype=float32), Array(0.779, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    values = kl_of_logits(tempered(student, T), tempered(teacher, T))
    return jnp.where(mask, number(T, values) ** 2 * values, 0)


def soft_ce(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 1.0,
    variant: Variant = "paper",
) -> Array:
    """Cross-entropy with the teacher's soft labels, scaled by T^2.

    ``-T^2 * sum_c p_t[c] log p_s[c]``: ``kl`` plus ``T^2`` times the teacher's entropy, so it is
    not 0 where the two agree, and its gradient is that of ``kl``. ``variant="as_released"`` is
    TinyBERT's code, which takes the mean over classes where the papers sum, and has no T^2.

    Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", section 2;
    Jiao et al. 2020, "TinyBERT", eq. 10.

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      T: temperature, above 0.
      variant: ``"paper"`` or ``"as_released"``.

    Example:
      >>> logits = jnp.array([[0.0, 0.0], [2.0, 0.0]])
      >>> soft_ce(logits, logits), kl(logits, logits)
      (Array([0.693, 0.365], dtype=float32), Array([0., 0.], dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    released = check_variant(variant)
    log_s, log_t = log_probs(student, T), log_probs(teacher, T)
    values = -jnp.sum(jnp.exp(log_t) * log_s, axis=-1)
    scale = number(1 / student.shape[-1], values) if released else number(T, values) ** 2
    return jnp.where(mask, scale * values, 0)


def jeffreys(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 1.0,
) -> Array:
    """Jeffreys divergence, KL(teacher || student) + KL(student || teacher), scaled by T^2.

    ``T^2 * sum_c (p_t[c] - p_s[c]) (log p_t[c] - log p_s[c])``.

    Source: Jeffreys 1946, "An invariant form for the prior probability in estimation problems".

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      T: temperature, above 0.

    Example:
      >>> student, teacher = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> jeffreys(student, teacher), kl(student, teacher) + kl(teacher, student)
      (Array(1.62, dtype=float32), Array(1.62, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    log_s, log_t = log_probs(student, T), log_probs(teacher, T)
    values = jnp.sum((jnp.exp(log_t) - jnp.exp(log_s)) * (log_t - log_s), axis=-1)
    return jnp.where(mask, number(T, values) ** 2 * values, 0)


def _log_mix(log_p: Array, log_q: Array, share: Array) -> Array:
    """Log of ``share * p + (1 - share) * q``; share in [0, 1]."""
    return jnp.logaddexp(log_p + jnp.log(share), log_q + jnp.log1p(-share))


def generalized_jsd(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    beta: ArrayLike = 0.5,
    T: ArrayLike = 1.0,
    variant: Variant = "paper",
) -> Array:
    """Generalised Jensen-Shannon divergence, scaled by T^2.

    ``T^2 (beta * KL(p_t || m) + (1 - beta) * KL(p_s || m))`` with
    ``m = beta * p_t + (1 - beta) * p_s``. Divided by beta it tends to ``kl`` as beta tends to 0,
    divided by 1 - beta to ``reverse_kl`` as beta tends to 1. ``variant="as_released"`` is the GKD
    trainer of TRL 0.11.3 to 0.15.2, with beta on the other side of the mixture, ``m = (1 - beta) *
    p_t + beta * p_s``, and without T^2, which no release had. Before (0.11.0 to 0.11.2) m was the
    product ``p_s^beta p_t^(1 - beta)``, of no sum 1; from 0.16.0 on it is that of the paper.

    Source: Agarwal et al. 2024, "On-Policy Distillation of Language Models: Learning from
    Self-Generated Mistakes", eq. 1.

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      beta: weight of the teacher, above 0 and below 1.
      T: temperature, above 0.
      variant: ``"paper"`` or ``"as_released"``.

    Example:
      >>> student, teacher = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> generalized_jsd(student, teacher, beta=1e-3) / 1e-3, kl(student, teacher)
      (Array(0.839, dtype=float32), Array(0.84, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    log_s, log_t = log_probs(student, T), log_probs(teacher, T)
    beta = number(beta, student)
    released = check_variant(variant)
    log_m = _log_mix(log_t, log_s, 1 - beta if released else beta)
    values = beta * kl_of_log_probs(log_t, log_m) + (1 - beta) * kl_of_log_probs(log_s, log_m)
    scale = number(1 if released else T, values) ** 2
    return jnp.where(mask, scale * values, 0)


def js(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 1.0,
) -> Array:
    """Jensen-Shannon divergence, scaled by T^2; at most ``T^2 log 2``.

    ``T^2 (KL(p_t || m) + KL(p_s || m)) / 2`` with ``m = (p_t + p_s) / 2``.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", section 4.

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      T: temperature, above 0.

    Example:
      >>> js(jnp.array([99.0, 0.0]), jnp.array([0.0, 99.0]))
      Array(0.693, dtype=float32)
    """
    return generalized_jsd(student, teacher, where=where, beta=0.5, T=T)


def skew_kl(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    alpha: ArrayLike = 0.1,
    T: ArrayLike = 1.0,
) -> Array:
    """Skew KL, KL(teacher || alpha * teacher + (1 - alpha) * student), scaled by T^2.

    ``T^2 * sum_c p_t[c] (log p_t[c] - log(alpha p_t[c] + (1 - alpha) p_s[c]))``; bounded by
    ``-T^2 log alpha``, and ``kl`` at alpha = 0.

    Source: Ko et al. 2024, "DistiLLM: Towards Streamlined Distillation for Large Language Models",
    section 3.1, after Lee 2001.

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      alpha: share of the teacher in the mixture, at least 0 and below 1.
      T: temperature, above 0.

    Example:
      >>> student, teacher = jnp.array([[99.0, 0.0], [0.0, 99.0]])
      >>> skew_kl(student, teacher, alpha=0.1), kl(student, teacher)
      (Array(2.303, dtype=float32), Array(99., dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    log_s, log_t = log_probs(student, T), log_probs(teacher, T)
    values = kl_of_log_probs(log_t, _log_mix(log_t, log_s, number(alpha, student)))
    return jnp.where(mask, number(T, values) ** 2 * values, 0)


def skew_reverse_kl(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    alpha: ArrayLike = 0.1,
    T: ArrayLike = 1.0,
) -> Array:
    """Skew reverse KL, KL(student || (1 - alpha) * teacher + alpha * student), scaled by T^2.

    ``T^2 * sum_c p_s[c] (log p_s[c] - log((1 - alpha) p_t[c] + alpha p_s[c]))``; bounded by
    ``-T^2 log alpha``, and ``reverse_kl`` at alpha = 0.

    Source: Ko et al. 2024, "DistiLLM: Towards Streamlined Distillation for Large Language Models",
    section 3.1.

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      alpha: share of the student in the mixture, at least 0 and below 1.
      T: temperature, above 0.

    Example:
      >>> student, teacher = jnp.array([[99.0, 0.0], [0.0, 99.0]])
      >>> skew_reverse_kl(student, teacher, alpha=0.1), reverse_kl(student, teacher)
      (Array(2.303, dtype=float32), Array(99., dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    log_s, log_t = log_probs(student, T), log_probs(teacher, T)
    values = kl_of_log_probs(log_s, _log_mix(log_s, log_t, number(alpha, student)))
    return jnp.where(mask, number(T, values) ** 2 * values, 0)


def tvd(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Total variation distance, between 0 and 1.

    ``1/2 * sum_c |p_t[c] - p_s[c]|``. Its gradient is 0 where the two agree in a class.

    Source: Wen et al. 2023, "f-Divergence Minimization for Sequence-Level Knowledge Distillation",
    section 3.3.

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.

    Example:
      >>> tvd(jnp.array([[0.0, 1.0], [99.0, 0.0]]), jnp.array([[0.0, 1.0], [0.0, 99.0]]))
      Array([0., 1.], dtype=float32)
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    difference = jnp.exp(log_probs(teacher)) - jnp.exp(log_probs(student))
    return jnp.where(mask, jnp.sum(jnp.abs(difference), axis=-1) / 2, 0)


def topk_kl(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    k: int = 10,
    T: ArrayLike = 1.0,
) -> Array:
    """KL(teacher || student) over the teacher's k likeliest classes, the rest as one bucket.

    ``T^2 (sum_{c in top k} p_t[c] log(p_t[c] / p_s[c]) + r_t log(r_t / r_s))`` with ``r`` the
    probability of all other classes; ``kl`` where ``k >= C - 1``, and never above it.

    Source: Anshumann et al. 2025, "Sparse Logit Sampling: Accelerating Knowledge Distillation in
    LLMs" (the tail as one "ghost" class).

    Args:
      student, teacher: [..., C], logits.
      where: bool [...], False for examples that do not count.
      k: how many classes are kept apart, at least 1.
      T: temperature, above 0.

    Example:
      >>> student, teacher = jnp.array([[2.0, 0.0, 0.0, 0.0], [3.0, 2.0, 1.0, 0.0]])
      >>> topk_kl(student, teacher, k=3), kl(student, teacher)
      (Array(0.105, dtype=float32), Array(0.105, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    _, top = jax.lax.top_k(teacher, min(k, teacher.shape[-1]))
    kept = jnp.any(jax.nn.one_hot(top, teacher.shape[-1], dtype=jnp.bool_), axis=-2)

    def with_tail(log_p: Array) -> Array:
        rest = masked_logsumexp(log_p, ~kept)[..., None]
        return jnp.concatenate([jnp.where(kept, log_p, -FLOOR), rest], axis=-1)

    log_s, log_t = with_tail(log_probs(student, T)), with_tail(log_probs(teacher, T))
    values = kl_of_log_probs(log_t, log_s)
    return jnp.where(mask, number(T, values) ** 2 * values, 0)
