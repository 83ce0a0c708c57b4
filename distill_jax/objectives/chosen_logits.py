"""Logits of a few chosen items at every position, a few rows at a time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from distill_jax.losses.numeric import floats, zero_masked

ROWS = 512
"""Positions whose item vectors are gathered at a time: what fits a processor's cache."""


def chosen_logits(
    queries: Array,
    items: Array,
    bias: Array | None,
    ids: Array,
    *,
    where: Array,
    rows: int = ROWS,
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
