"""Dropout from eight random bits an element: on CPUs the bits are what dropout costs."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

_LEVELS = 256
_PACK = 4  # bytes in a 32-bit word


def dropout(x: Array, rate: float, rng: Array) -> Array:
    """Zero elements of ``x`` at ``rate`` and scale the others so that the mean is kept.

    Four elements share one 32-bit draw. The rate is therefore rounded to a multiple of 1/256
    (0.1 becomes 26/256; a rate above 0 to no less than 1/256, one below 1 to no more than
    255/256), and the scale uses the rounded rate, so the expectation is exactly ``x``. The
    mask is a pure function of the key and the shape.

    Args:
      x: [..., N].
      rate: in [0, 1).
      rng: a jax random key of any implementation.
    """
    if rate == 0:
        return x
    drop_below = min(max(round(rate * _LEVELS), 1), _LEVELS - 1)
    *lead, last = x.shape
    words = jax.random.bits(rng, (*lead, -(-last // _PACK)), jnp.uint32)
    bytes_ = lax.bitcast_convert_type(words, jnp.uint8).reshape(*lead, -1)[..., :last]
    scale = _LEVELS / (_LEVELS - drop_below)
    return jnp.where(bytes_ >= drop_below, x * scale, jnp.zeros_like(x))


class Dropout(nn.Module):
    """``dropout`` with the module's ``"dropout"`` rng stream; the identity unless ``train``."""

    rate: float

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        if not train or self.rate == 0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))
