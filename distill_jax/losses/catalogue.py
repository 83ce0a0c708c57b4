"""Losses of recommenders over the catalogue: all items, or a sample of them.

The softmax over all items never holds all its logits: they are made, used and made again a few
rows at a time, so memory is that of ``rows`` x items instead of positions x items, and rows of
padding cost nothing.

Shape suffixes: N queries (positions), D width, I items, K negatives.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from distill_jax.losses.numeric import clip_logits, floats, mask_of, number, zero_masked

CHOSEN_ROWS = 512
"""Positions whose item vectors are gathered at a time: what fits a processor's cache."""


def catalogue_logsumexp(
    queries: Array, items: Array, bias: Array | None = None, *, where: Array, rows: int | None
) -> Array:
    """``log sum_i exp(queries . items[i] + bias[i])`` for each query, float32.

    Args:
      queries: [N, D].
      items: [I, D].
      bias: [I], or None for none.
      where: bool [N], False for queries that do not count.
      rows: logits of so many queries are held at a time, in the forward and in the backward pass;
        None for all at once, which is faster where memory allows it and the device is parallel.

    Returns:
      [N], 0 where masked.

    Example:
      >>> queries, items, where = jnp.ones((2, 1)), jnp.zeros((8, 1)), jnp.array([True, False])
      >>> catalogue_logsumexp(queries, items, where=where, rows=1)
      Array([2.079, 0.   ], dtype=float32)
    """
    queries, items = floats(queries, items)
    bias = jnp.zeros(items.shape[0], items.dtype) if bias is None else floats(bias)[0]
    queries = zero_masked(queries, where)
    if rows is None:
        values = jax.nn.logsumexp(_logits(queries, items, bias), axis=-1)
        return jnp.where(where, values, 0)
    order = jnp.argsort(~where, stable=True)  # the rows that count first
    missing = -queries.shape[0] % rows
    sorted_ND = jnp.pad(queries[order], ((0, missing), (0, 0)))
    values = _by_rows(rows, sorted_ND, items, bias, jnp.sum(where, dtype=jnp.int32))
    back = jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=order.dtype))
    return jnp.where(where, values[back], 0)


def _logits(queries: Array, items: Array, bias: Array) -> Array:
    return queries @ items.T + bias[None]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_rows(rows: int, queries: Array, items: Array, bias: Array, count: Array) -> Array:
    """The log-sum-exp of the first ``count`` queries, 0 of the others; [N], N = k * rows."""
    return _forward(rows, queries, items, bias, count)[0]


def _forward(rows: int, queries: Array, items: Array, bias: Array, count: Array) -> Any:
    def part(number_: Array, queries_RD: Array) -> tuple[Array, Array]:
        values_R = lax.cond(
            number_ * rows < count,
            lambda q_RD: jax.nn.logsumexp(_logits(q_RD, items, bias), axis=-1),
            lambda q_RD: jnp.zeros(rows, q_RD.dtype),
            queries_RD,
        )
        return number_ + jnp.int32(1), values_R

    parts = queries.reshape(-1, rows, queries.shape[-1])
    values = lax.scan(part, jnp.int32(0), parts)[1].reshape(-1)
    return values, (queries, items, bias, count, values)


def _backward(rows: int, kept: Any, back: Array) -> Any:
    queries, items, bias, count, values = kept

    def part(carry: Any, given: Any) -> Any:
        number_, items_back, bias_back = carry

        def work(queries_RD: Array, values_R: Array, back_R: Array) -> Any:
            logits_RI = _logits(queries_RD, items, bias)
            share_RI = jnp.exp(logits_RI - values_R[:, None]) * back_R[:, None]
            own = jnp.sum(share_RI, axis=0)
            return items_back + share_RI.T @ queries_RD, bias_back + own, share_RI @ items

        def rest(queries_RD: Array, values_R: Array, back_R: Array) -> Any:
            return items_back, bias_back, jnp.zeros_like(queries_RD)

        items_back, bias_back, queries_back = lax.cond(number_ * rows < count, work, rest, *given)
        return (number_ + jnp.int32(1), items_back, bias_back), queries_back

    first = jnp.int32(0), jnp.zeros_like(items), jnp.zeros_like(bias)
    counts = back * (jnp.arange(len(back)) < count).astype(back.dtype)
    parts = (
        queries.reshape(-1, rows, queries.shape[-1]),
        values.reshape(-1, rows),
        counts.reshape(-1, rows),
    )
    (_, items_back, bias_back), queries_back = lax.scan(part, first, parts)
    return queries_back.reshape(queries.shape), items_back, bias_back, None


_by_rows.defvjp(_forward, _backward)


def chosen_logits(
    queries: Array,
    items: Array,
    bias: Array | None,
    ids: Array,
    *,
    where: Array,
    rows: int = CHOSEN_ROWS,
) -> Array:
    """``queries[n] . items[ids[n, k]] + bias[ids[n, k]]``, float32 [N, K].

    The gathered vectors of ``rows`` positions are held at a time, in the forward and in the
    backward pass; positions that do not count come last and are left out.

    Args:
      queries: [N, D].
      items: [I, D].
      bias: [I], or None for none.
      ids: int32 [N, K], in range.
      where: bool [N].

    Returns:
      [N, K], 0 where masked.

    Example:
      >>> items, ids = jnp.array([[1.0], [2.0], [4.0]]), jnp.array([[2, 0]])
      >>> chosen_logits(jnp.array([[3.0]]), items, None, ids, where=jnp.array([True]))
      Array([[12.,  3.]], dtype=float32)
    """
    queries, items = floats(queries, items)
    bias = jnp.zeros(items.shape[0], items.dtype) if bias is None else floats(bias)[0]
    count, width = queries.shape
    rows = min(rows, count)
    ids, where = jnp.asarray(ids), jnp.asarray(where)
    order = jnp.argsort(~where, stable=True)
    missing = -count % rows
    sorted_ND = jnp.pad(zero_masked(queries, where)[order], ((0, missing), (0, 0)))
    sorted_NK = jnp.pad(ids[order], ((0, missing), (0, 0)))
    real = jnp.sum(where, dtype=jnp.int32)

    @jax.checkpoint
    def part(place: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        def work(part_RD: Array, ids_RK: Array) -> Array:
            vectors = items[ids_RK]
            logits = jnp.einsum("rd,rkd->rk", part_RD, vectors) + bias[ids_RK]
            return logits

        def rest(part_RD: Array, ids_RK: Array) -> Array:
            return jnp.zeros(ids_RK.shape, part_RD.dtype)

        values_RK = lax.cond(place * rows < real, work, rest, *given)
        return place + jnp.int32(1), values_RK

    parts = sorted_ND.reshape(-1, rows, width), sorted_NK.reshape(-1, rows, ids.shape[-1])
    values = lax.scan(part, jnp.int32(0), parts)[1].reshape(-1, ids.shape[-1])
    back = jnp.zeros_like(order).at[order].set(jnp.arange(count, dtype=order.dtype))
    return zero_masked(values[back], where)


def softmax_over_all(
    target: ArrayLike,
    log_partition: ArrayLike,
    mean: ArrayLike,
    *,
    where: ArrayLike | None = None,
    label_smoothing: ArrayLike = 0.0,
) -> Array:
    """Cross-entropy over all items, from what is known of their logits.

    ``log_partition - (1 - e) target - e mean`` with ``e = label_smoothing``, which is ``ce`` of all
    logits.

    Source: Klenitskiy and Vasilev 2023, "Turning Dross Into Gold Loss: is BERT4Rec really better
    than SASRec?", section 3; label smoothing from Szegedy et al. 2016, section 7.

    Args:
      target: [...], the target's logit.
      log_partition: [...], the log-sum-exp of all logits.
      mean: [...], the mean of all logits; read only with label smoothing.
      where: bool [...].
      label_smoothing: in [0, 1).

    Example:
      >>> logits = jnp.array([2.0, 1.0])
      >>> over_all = softmax_over_all(logits[0], jnp.logaddexp(*logits), logits.mean())
      >>> over_all, ce(logits, jnp.array(0))
      (Array(0.313, dtype=float32), Array(0.313, dtype=float32))
    """
    target, log_partition, mean = floats(target, log_partition, mean)
    smoothing = number(label_smoothing, target)
    values = log_partition - (1 - smoothing) * target - smoothing * mean
    return jnp.where(mask_of(where, target.shape), values, 0)


def sampled_softmax(
    target: ArrayLike,
    negatives: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Cross-entropy of the target among itself and sampled negatives, drawn uniformly.

    Source: Klenitskiy and Vasilev 2023, section 3 ("sampled cross-entropy"); Jean et al. 2015, "On
    Using Very Large Target Vocabulary for Neural Machine Translation". Uniform samples need no
    correction by their probability.

    Args:
      target: [...], the target's logit.
      negatives: [..., K], theirs.
      where: bool [...].

    Example:
      >>> sampled_softmax(jnp.array([0.0, 99.0]), jnp.array([[0.0], [0.0]]))
      Array([0.693, 0.   ], dtype=float32)
    """
    target, negatives, mask = _clipped(target, negatives, where)
    logits = jnp.concatenate([target[..., None], negatives], axis=-1)
    return jnp.where(mask, jax.nn.logsumexp(logits, axis=-1) - target, 0)


def sampled_bce(
    target: ArrayLike, negatives: ArrayLike, *, where: ArrayLike | None = None
) -> Array:
    """Binary cross-entropy: the target is a yes, each sampled negative a no.

    ``-log s(target) - sum_k log(1 - s(negative_k))`` with the logistic function s.

    Source: Kang and McAuley 2018, "Self-Attentive Sequential Recommendation", section III.E.

    Args:
      target: [...], the target's logit.
      negatives: [..., K], theirs.
      where: bool [...].

    Example:
      >>> sampled_bce(jnp.array([0.0, 99.0]), jnp.array([[0.0], [-99.0]]))
      Array([1.386, 0.   ], dtype=float32)
    """
    target, negatives, mask = _clipped(target, negatives, where)
    values = jax.nn.softplus(-target) + jnp.sum(jax.nn.softplus(negatives), axis=-1)
    return jnp.where(mask, values, 0)


def bpr(target: ArrayLike, negatives: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Bayesian personalised ranking: the target stands above each sampled negative.

    ``-mean_k log s(target - negative_k)`` with the logistic function s.

    Source: Rendle et al. 2009, "BPR: Bayesian Personalized Ranking from Implicit Feedback",
    section 4.1.

    Args:
      target: [...], the target's logit.
      negatives: [..., K], theirs.
      where: bool [...].

    Example:
      >>> bpr(jnp.array([0.0, 99.0]), jnp.array([[0.0], [0.0]]))
      Array([0.693, 0.   ], dtype=float32)
    """
    target, negatives, mask = _clipped(target, negatives, where)
    values = jnp.mean(jax.nn.softplus(negatives - target[..., None]), axis=-1)
    return jnp.where(mask, values, 0)


def _clipped(
    target: ArrayLike, negatives: ArrayLike, where: ArrayLike | None
) -> tuple[Array, Array, Array]:
    target, negatives = floats(target, negatives)
    if negatives.shape[:-1] != target.shape:
        raise ValueError(f"negatives have shape {negatives.shape}, the target {target.shape}")
    mask = mask_of(where, target.shape)
    return (
        clip_logits(zero_masked(target, mask)),
        clip_logits(zero_masked(negatives, mask)),
        mask,
    )
