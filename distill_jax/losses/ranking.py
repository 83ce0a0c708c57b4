"""Losses on the scores of the items of a list: ``[..., N]``, ``where`` ``[..., N]``.

One value per list. Masked items do not exist; a list without items has the value 0. "The
teacher's order" is by falling score, ties in the order of the list.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.numeric import (
    FLOOR,
    NOTHING,
    clip_logits,
    constant_pair,
    masked_log_probs,
    masked_mean,
    number,
)


def _lists(
    student: ArrayLike, teacher: ArrayLike, where: ArrayLike | None
) -> tuple[Array, Array, Array]:
    """Scores with masked items zeroed, the teacher constant, and the mask, all [..., N]."""
    student, teacher, mask = constant_pair(student, teacher, where, inner=0)
    if student.ndim < 1:
        raise ValueError("expected [..., N] scores")
    return clip_logits(student), clip_logits(teacher), mask


def _by_teacher(teacher: Array, mask: Array) -> Array:
    """Items in the teacher's order, masked ones last: int [..., N]."""
    return jnp.argsort(jnp.where(mask, -teacher, jnp.inf), axis=-1, stable=True)


def _ranks(order: Array) -> Array:
    """The place of each item in an order, 0 for the first: the inverse permutation."""
    return jnp.argsort(order, axis=-1)


def listnet(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """ListNet: cross-entropy of the chances to be ranked first.

    ``-sum_i p_t[i] log p_s[i]`` with softmaxes over the unmasked items; not 0 where they agree.

    Source: Cao et al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach",
    section 4, with top-one probabilities.

    Args:
      student, teacher: [..., N], scores.
      where: bool [..., N], False for items that are not there.

    Example:
      >>> scores, where = jnp.array([2.0, 0.0, 9.0]), jnp.array([True, True, False])
      >>> listnet(scores, scores, where=where), listnet(scores[:2], scores[:2])
      (Array(0.365, dtype=float32), Array(0.365, dtype=float32))
    """
    student, teacher, mask = _lists(student, teacher, where)
    log_s, log_t = masked_log_probs(student, mask), masked_log_probs(teacher, mask)
    return -jnp.sum(jnp.where(mask, jnp.exp(log_t) * log_s, 0), axis=-1)


def _plackett_luce(student: Array, teacher: Array, mask: Array, k: int) -> Array:
    """Negative log-likelihood of the first ``k`` places of the teacher's order."""
    order = _by_teacher(teacher, mask)
    scores = jnp.take_along_axis(jnp.where(mask, student, NOTHING), order, axis=-1)
    there = jnp.take_along_axis(mask, order, axis=-1)
    # Largest first: each sum over "this place and all below" is relative to its own maximum.
    rest = jax.lax.cumlogsumexp(scores, axis=scores.ndim - 1, reverse=True)
    # Among excluded items alone each is as likely; at -FLOOR the sums have lost their number.
    best = jax.lax.cummax(scores, axis=scores.ndim - 1, reverse=True)
    left = jnp.flip(jnp.cumsum(jnp.flip(there, -1), axis=-1, dtype=scores.dtype), -1)
    costs = jnp.where(best <= -FLOOR, jnp.log(jnp.maximum(left, 1)), rest - scores)
    counted = there & (jnp.arange(scores.shape[-1]) < k).reshape((1,) * (scores.ndim - 1) + (-1,))
    return jnp.sum(jnp.where(counted, costs, 0), axis=-1)


def listmle(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """ListMLE: negative log-likelihood of the teacher's order.

    ``-sum_i log(exp(s[o_i]) / sum_{j >= i} exp(s[o_j]))`` for the teacher's order o. Items that
    the teacher scores alike are taken in the order of the list: listed the other way round they
    give another value. A list in random order averages over the ties.

    Source: Xia et al. 2008, "Listwise Approach to Learning to Rank: Theory and Algorithm",
    section 4.

    Args:
      student, teacher: [..., N], scores.
      where: bool [..., N], False for items that are not there.

    Example:
      >>> student, teacher = jnp.array([[9.0, 5.0, 1.0], [3.0, 2.0, 1.0]])
      >>> listmle(student, teacher), listmle(-student, teacher)
      (Array(0.037, dtype=float32), Array(12.037, dtype=float32))
    """
    student, teacher, mask = _lists(student, teacher, where)
    return _plackett_luce(student, teacher, mask, student.shape[-1])


def relaxed_ranking(
    student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None, k: int = 10
) -> Array:
    """Relaxed ranking: the likelihood of the teacher's first k places, the rest in any order.

    ``-sum_{i <= k} log(exp(s[o_i]) / sum_{j >= i} exp(s[o_j]))`` for the teacher's order o: below
    place k only that the items come later counts, not how. The rest are all other items, where the
    paper draws a sample of them. Ties among the first k are taken in the order of the list, as in
    ``listmle``.

    Source: Kang et al. 2020, "DE-RRD: A Knowledge Distillation Framework for Recommender System",
    section 4.2.

    Args:
      student, teacher: [..., N], scores.
      where: bool [..., N], False for items that are not there.
      k: how many places are ordered, at least 1.

    Example:
      >>> student, teacher = jnp.array([[9.0, 1.0, 5.0], [3.0, 2.0, 1.0]])
      >>> relaxed_ranking(student, teacher, k=1), listmle(student, teacher)
      (Array(0.018, dtype=float32), Array(4.037, dtype=float32))
    """
    student, teacher, mask = _lists(student, teacher, where)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return _plackett_luce(student, teacher, mask, k)


def ranking_distillation(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    k: int = 10,
    lam: ArrayLike = 10.0,
    mu: ArrayLike = 0.1,
) -> Array:
    """Ranking distillation: the teacher's first k items as positives, weighted by place and lag.

    ``-sum_{r = 1..k} w_r log sigmoid(s[o_r])`` for the teacher's order o, with ``w_r`` proportional
    to ``exp(-r / lam) * tanh(max(mu (q_r - r), 0))``, of sum 1, where ``q_r`` is the place of item
    ``o_r`` in the student's own order. Weights are constants; 0 where the student ranks none of the
    k too low. Places are places in the list: in the paper that is the whole catalogue, where lags
    are larger, so its mu is ours divided by about the catalogue's length over the list's.

    Source: Tang, Wang 2018, "Ranking Distillation: Learning Compact Ranking Models With High
    Performance for Recommender System", section 3.

    Args:
      student, teacher: [..., N], scores.
      where: bool [..., N], False for items that are not there.
      k: how many of the teacher's items are positives, at least 1.
      lam: how slowly the weight falls with the place (lambda in the paper), above 0.
      mu: how fast the weight rises with the lag in the list, above 0.

    Example:
      >>> student, teacher = jnp.array([[3.0, 0.0, 1.0], [2.0, 1.0, 0.0]])
      >>> ranking_distillation(student, teacher, k=1), ranking_distillation(student, teacher, k=2)
      (Array(0., dtype=float32), Array(0.693, dtype=float32))
    """
    student, teacher, mask = _lists(student, teacher, where)
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    order = _by_teacher(teacher, mask)[..., :k]
    fixed = jax.lax.stop_gradient(student)
    place_s = jnp.take_along_axis(_ranks(_by_teacher(fixed, mask)), order, axis=-1)
    place_t = jnp.arange(order.shape[-1]).reshape((1,) * (order.ndim - 1) + (-1,))
    lag = (place_s - place_t).astype(student.dtype)
    importance = jnp.exp(-(place_t.astype(student.dtype) + 1) / number(lam, student))
    there = jnp.take_along_axis(mask, order, axis=-1)
    weights = importance * jnp.tanh(jnp.maximum(number(mu, student) * lag, 0))
    weights = jax.lax.stop_gradient(jnp.where(there, weights, 0))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights / jnp.where(total > 0, total, 1)
    log_relevant = jax.nn.log_sigmoid(jnp.take_along_axis(student, order, axis=-1))
    return -jnp.sum(weights * log_relevant, axis=-1)


def margin_mse(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Margin-MSE: squared difference of the margins between the first item and each other.

    ``mean_{i > 0} ((s[0] - s[i]) - (t[0] - t[i]))^2`` over unmasked items; item 0 is the relevant
    one.

    Source: Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with
    Cross-Architecture Knowledge Distillation", section 4.

    Args:
      student: [..., N], scores, the relevant item first.
      teacher: [..., N], scores, likewise.
      where: bool [..., N], False for items that are not there.

    Returns:
      [...], 0 where the first item or all others are masked.

    Example:
      >>> student, teacher = jnp.array([[5.0, 2.0, 9.0], [1.0, 0.0, -9.0]])
      >>> margin_mse(student, teacher, where=jnp.array([True, True, False]))
      Array(4., dtype=float32)
    """
    student, teacher, mask = _lists(student, teacher, where)
    difference = (student[..., :1] - student[..., 1:]) - (teacher[..., :1] - teacher[..., 1:])
    return masked_mean(difference**2, mask[..., :1] & mask[..., 1:], axis=-1)


def pairwise_logistic(
    student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    """RankNet: logistic loss of each pair that the teacher orders.

    The mean over pairs with ``t[i] > t[j]`` of ``log(1 + exp(-(s[i] - s[j])))``; pairs that the
    teacher scores alike do not count.

    Source: Burges et al. 2005, "Learning to Rank using Gradient Descent", eq. 3.

    Args:
      student, teacher: [..., N], scores.
      where: bool [..., N], False for items that are not there.

    Returns:
      [...], 0 where no pair is ordered.

    Example:
      >>> student, teacher = jnp.array([[99.0, 0.0], [2.0, 1.0]])
      >>> pairwise_logistic(student, teacher), pairwise_logistic(-student, teacher)
      (Array(0., dtype=float32), Array(99., dtype=float32))
    """
    student, teacher, mask = _lists(student, teacher, where)
    ordered = teacher[..., :, None] > teacher[..., None, :]
    pairs = ordered & mask[..., :, None] & mask[..., None, :]
    margin = student[..., :, None] - student[..., None, :]
    return masked_mean(jax.nn.softplus(-margin), pairs, axis=(-2, -1))
