"""Dropout with a mask hashed from element numbers: cheap to run, to compile and to shard.

``jax.random.bernoulli`` (threefry) is sound for anything, and costs for it: on a CPU, with
dropout at its nineteen places, it was several percent of a MiniLM training step and 1.9 of the
3.2 CPU seconds of compiling it (here 0.7), and every batch shape compiles anew. Masks need less.
Here element i is kept by a keyed integer hash of i, as in counter-based generators (Salmon et
al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): elementwise integer arithmetic that
fuses with what uses it, and is the same under ``jit``, ``vmap``, any sharding and any backend.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

_ROWS_B: ContextVar[Array | None] = ContextVar("rows of the whole batch", default=None)


@contextmanager
def rows_of_batch(rows_B: Array) -> Iterator[None]:
    """While a model is traced in here, row i of its arrays drops what row ``rows_B[i]`` drops.

    So a part of a batch (of a device under ``pmap``, or of a batch that is cut to save memory)
    has the masks that it has within the whole batch. Arrays must have rows as first axis.

    Args:
      rows_B: int32 [B], the place of each row in the whole batch.
    """
    token = _ROWS_B.set(rows_B)
    try:
        yield
    finally:
        _ROWS_B.reset(token)


@contextmanager
def rows_of_lists(count: int) -> Iterator[None]:
    """In ``rows_of_batch``: while arrays are traced that have ``count`` rows an example.

    Args:
      count: rows of each example, one after the other.
    """
    rows_B = _ROWS_B.get()
    if rows_B is None:  # the whole batch: its rows are numbered as they come
        yield
        return
    inner_N = jnp.arange(count, dtype=rows_B.dtype)
    with rows_of_batch((rows_B[:, None] * count + inner_N[None, :]).reshape(-1)):
        yield


def dropout(x: Array, rate: float, rng: Array) -> Array:
    """Zero elements of ``x`` with probability ``rate``, divide the others by ``1 - rate``.

    The mask is a pure function of the key and the shape; rows added at the end do not change
    the rows before them. See ``rows_of_batch`` for parts of a batch.

    Args:
      x: any shape, fewer than 2^32 elements.
      rate: in [0, 1); exact to 2^-32.
      rng: a jax random key of any implementation.
    """
    if rate == 0:
        return x
    drop_below = jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    keep = hash_bits(rng, x.shape) >= drop_below
    return jnp.where(keep, x * (1 / (1 - rate)), jnp.zeros_like(x))


def hash_bits(rng: Array, shape: tuple[int, ...]) -> Array:
    """uint32 of ``shape``, uniform: each element's number mixed with the key, word by word.

    For masks and augmentation; where numbers have to withstand more, use ``jax.random``.
    """
    bits = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    if (rows_B := _ROWS_B.get()) is not None:
        row = math.prod(shape[1:])
        first_B = rows_B.astype(jnp.uint32) * jnp.uint32(row)
        inside = lax.iota(jnp.uint32, row).reshape(1, *shape[1:])
        bits = first_B.reshape(-1, *(1,) * (len(shape) - 1)) + inside
    for word in jax.random.key_data(rng):  # two words with threefry, four with rbg
        bits = _mix(bits ^ word)
    return bits


def _mix(bits: Array) -> Array:
    """A bijection of 32 bits in which every input bit flips every output bit half the time.

    "lowbias32", Wellons 2018, https://github.com/skeeto/hash-prospector, found by search for the
    least avalanche bias, which is below that of murmur3's finaliser.
    """
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


class Dropout(nn.Module):
    """``dropout`` with the module's ``"dropout"`` rng stream; the identity unless ``train``."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        if not train or self.rate == 0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))
