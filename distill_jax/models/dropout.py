"""Dropout that draws a fraction of the random bits (on CPUs they are what dropout costs)."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

_BITS = 16


def dropout(x: Array, rate: float, rng: Array) -> Array:
    """Zero elements of ``x`` with probability ``rate`` and scale the others to keep the mean.

    Each element reads 16 bits, so two share one 32-bit draw. The rate is rounded to a multiple
    of 2^-16 (0.1 becomes 0.100006) and the scale uses the rounded rate: the expectation is
    exactly ``x``. The mask is a pure function of the key and the shape; rows added at the end
    do not change the rows before them.

    Args:
      x: [..., N].
      rate: in [0, 1).
      rng: a jax random key of any implementation.
    """
    levels = 2**_BITS
    drop_below = round(rate * levels)
    if drop_below == 0:
        return x
    *rest, last = x.shape
    pack = 32 // _BITS
    words = jax.random.bits(rng, (*rest, -(-last // pack)), jnp.uint32)
    bits = lax.bitcast_convert_type(words, jnp.uint16).reshape(*rest, -1)[..., :last]
    keep_probability = 1 - drop_below / levels
    return jnp.where(bits >= drop_below, x / keep_probability, jnp.zeros_like(x))


class Dropout(nn.Module):
    """``dropout`` with the module's ``"dropout"`` rng stream; the identity unless ``train``."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        if not train or self.rate == 0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))
