"""Losses of recommenders over the catalogue: all items, or a sample of them.

The softmax over all items never holds all its logits: they are made, used and made again a tile
of so many positions and items at a time, so memory is that of a tile instead of positions x items,
and rows of padding cost nothing.

Shape suffixes: N queries (positions), D width, I items, K negatives,
R x C a tile.
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
    queries: Array,
    items: Array,
    bias: Array | None = None,
    *,
    where: Array,
    rows: int | None,
    block: int | None = None,
) -> Array:
    """``log sum_i exp(queries . items[i] + bias[i])`` for each query, float32.

    Logits are held a tile at a time, in the forward and in the backward pass, where they are made
    again; what is kept between tiles is two numbers a query.

    Source: Milakov, Gimelshein 2018, "Online normalizer calculation for softmax", algorithm 3;
    Wijmans et al. 2024, "Cut Your Losses in Large-Vocabulary Language Models", section 4.

    Args:
      queries: [N, D].
      items: [I, D].
      bias: [I], or None for none; -inf for items that do not compete.
      where: bool [N], False for queries that do not count.
      rows: queries of a tile; None for all logits at once, which is faster where memory allows it
        and the device is parallel.
      block: items of a tile; None for all.

    Returns:
      [N], 0 where masked.

    Example:
      >>> queries, items, where = jnp.ones((2, 1)), jnp.zeros((8, 1)), jnp.array([True, False])
      >>> catalogue_logsumexp(queries, items, where=where, rows=1, block=3)
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
    tile = rows, min(block or len(items), len(items))
    values = _by_tiles(tile, sorted_ND, items, bias, jnp.sum(where, dtype=jnp.int32))
    back = jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=order.dtype))
    return jnp.where(where, values[back], 0)


def _logits(queries: Array, items: Array, bias: Array) -> Array:
    return queries @ items.T + bias[None]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _by_tiles(
    tile: tuple[int, int], queries: Array, items: Array, bias: Array, count: Array
) -> Array:
    """The log-sum-exp of the first ``count`` queries, any number for others; [N], N = k * rows."""
    return _forward(tile, queries, items, bias, count)[0]


def _forward(
    tile: tuple[int, int], queries: Array, items: Array, bias: Array, count: Array
) -> tuple[Array, Any]:
    def of_block(number_: Array, sums: Any) -> Any:
        _, items_CD, bias_C = _block(number_, tile, items, bias)

        def of_rows(part: Array, sums: Any) -> Any:
            start = part * jnp.int32(tile[0])
            largest_R, total_R = (_cut(each, start, tile[0]) for each in sums)
            logits_RC = _logits(_cut(queries, start, tile[0]), items_CD, bias_C)
            now_R = jnp.maximum(largest_R, jnp.max(logits_RC, axis=1))
            level_R = jnp.where(now_R == -jnp.inf, 0, now_R)  # nothing has competed so far
            own_R = jnp.sum(jnp.exp(logits_RC - level_R[:, None]), axis=1)
            total_R = total_R * jnp.exp(largest_R - level_R) + own_R
            return tuple(map(partial(_put, start=start), sums, (now_R, total_R)))

        return lax.fori_loop(0, _parts(count, tile[0]), of_rows, sums)

    nothing = jnp.full(len(queries), -jnp.inf, queries.dtype), jnp.zeros_like(queries[:, 0])
    largest, total = lax.fori_loop(0, _parts(len(items), tile[1]), of_block, nothing)
    values = largest + jnp.log(total)
    return values, (queries, items, bias, count, values)


def _backward(tile: tuple[int, int], kept: Any, back: Array) -> Any:
    queries, items, bias, count, values = kept
    back = jnp.where(
        (jnp.arange(len(back), dtype=jnp.int32) < count) & (values > -jnp.inf), back, 0
    )
    level = jnp.where(values > -jnp.inf, values, 0)

    def of_block(number_: Array, backs: Any) -> Any:
        start_item, items_CD, bias_C = _block(number_, tile, items, bias)
        queries_back, items_back, bias_back = backs

        def of_rows(part: Array, backs: Any) -> Any:
            start = part * jnp.int32(tile[0])
            queries_RD, level_R, back_R, own_RD = (
                _cut(each, start, tile[0]) for each in (queries, level, back, backs[0])
            )
            logits_RC = _logits(queries_RD, items_CD, bias_C)
            share_RC = jnp.exp(logits_RC - level_R[:, None]) * back_R[:, None]
            queries_back = _put(backs[0], own_RD + share_RC @ items_CD, start=start)
            own = share_RC.T @ queries_RD, jnp.sum(share_RC, axis=0)
            return queries_back, backs[1] + own[0], backs[2] + own[1]

        parts = _parts(count, tile[0])
        zeros = queries_back, jnp.zeros_like(items_CD), jnp.zeros_like(bias_C)
        queries_back, *own = lax.fori_loop(0, parts, of_rows, zeros)
        held = (_cut(each, start_item, tile[1]) for each in (items_back, bias_back))
        sums = (old + new for old, new in zip(held, own, strict=True))
        put = partial(_put, start=start_item)
        return queries_back, *map(put, (items_back, bias_back), sums)

    zeros = jnp.zeros_like(queries), jnp.zeros_like(items), jnp.zeros_like(bias)
    return *lax.fori_loop(0, _parts(len(items), tile[1]), of_block, zeros), None


_by_tiles.defvjp(_forward, _backward)


def _parts(count: Any, size: int) -> Array:
    """How many parts of a size ``count`` things are."""
    return (jnp.asarray(count, jnp.int32) + jnp.int32(size - 1)) // jnp.int32(size)


def _block(
    number_: Array, tile: tuple[int, int], items: Array, bias: Array
) -> tuple[Array, Array, Array]:
    """The first item of a block, its vectors and their bias.

    The last block begins early enough to be whole; what the one before it had does not compete.
    """
    wanted = number_ * jnp.int32(tile[1])
    start = jnp.minimum(wanted, jnp.int32(len(items) - tile[1]))
    fresh_C = start + jnp.arange(tile[1], dtype=jnp.int32) >= wanted
    bias_C = jnp.where(fresh_C, _cut(bias, start, tile[1]), -jnp.inf)
    return start, _cut(items, start, tile[1]), bias_C


def _cut(array: Array, start: Array, size: int) -> Array:
    return lax.dynamic_slice_in_dim(array, start, size)


def _put(array: Array, part: Array, *, start: Array) -> Array:
    return lax.dynamic_update_slice_in_dim(array, part, start, 0)


def catalogue_top(
    queries: Array, items: Array, bias: Array | None, k: int, *, block: int
) -> tuple[Array, Array, Array]:
    """The ``k`` largest logits of each query over all items, made a block of items at a time.

    Args:
      queries: [N, D].
      items: [I, D].
      bias: [I], or None for none.
      k: below I.
      block: items whose logits are held at a time, at least k are.

    Returns:
      Their logits, float32 [N, k], falling; the items' numbers, int32 [N, k], of equal logits the
      lower first; the log-sum-exp [N] of all other items.

    Example:
      >>> items = jnp.array([[1.0], [3.0], [2.0], [0.0]])
      >>> catalogue_top(jnp.ones((1, 1)), items, None, 2, block=3)[:2]
      (Array([[3., 2.]], dtype=float32), Array([[1, 2]], dtype=int32))
    """
    queries, items = floats(queries, items)
    bias = jnp.zeros(items.shape[0], items.dtype) if bias is None else floats(bias)[0]
    size = min(max(block, k), len(items))

    def of_block(number_: Array) -> tuple[Array, Array, Array]:
        start, items_CD, bias_C = _block(number_, (len(queries), size), items, bias)
        best_NK, ids_NK, rest_N = _top_and_rest(_logits(queries, items_CD, bias_C), k)
        return best_NK, start + ids_NK, rest_N

    def merged(number_: Array, so_far: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        found = of_block(number_)
        both, ids = (
            jnp.concatenate(pair, axis=1) for pair in zip(so_far[:2], found[:2], strict=True)
        )
        best_NK, places_NK, rest_N = _top_and_rest(both, k)
        ids_NK = jnp.take_along_axis(ids, places_NK, axis=1)
        return best_NK, ids_NK, jnp.logaddexp(jnp.logaddexp(so_far[2], found[2]), rest_N)

    return lax.fori_loop(1, _parts(len(items), size), merged, of_block(jnp.int32(0)))


def _top_and_rest(logits: Array, k: int) -> tuple[Array, Array, Array]:
    """The k largest [N, k] and their places, and the log-sum-exp [N] of what they leave."""
    best, places = lax.top_k(logits, k)
    least = jnp.min(best, axis=1, keepdims=True)  # cutting the last off makes XLA sort it all
    below = jax.nn.logsumexp(jnp.where(logits < least, logits, -jnp.inf), axis=1)
    equal = jnp.sum(logits >= least, axis=1, dtype=logits.dtype) - k  # as large, but not named
    return best, places.astype(jnp.int32), jnp.logaddexp(below, least[:, 0] + jnp.log(equal))


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
