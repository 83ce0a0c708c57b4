"""Attention that knows how far apart tokens are: a bias for each head and bucket of distances.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning" (T5), section 2.1, with the buckets
of MPNet (Song et al. 2020, "MPNet: Masked and Permuted Pre-training").
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

MAX_DISTANCE = 128
"""From here on all distances are one bucket."""


class RelativeBias(nn.Module):
    """What is added to the attention scores, the same in every layer: float32 [1, H, T, T].

    Attributes:
      heads: H.
      buckets: of distances, half of them for tokens that come later.
      init_std: of the table at the start.
    """

    heads: int
    buckets: int
    init_std: float

    @nn.compact
    def __call__(self, length: int) -> Array:
        init = nn.initializers.normal(self.init_std)
        table = nn.Embed(self.buckets, self.heads, embedding_init=init, name="table")
        return jnp.transpose(table(bucket_of(length, self.buckets)), (2, 0, 1))[None]


def bucket_of(length: int, buckets: int) -> Array:
    """The bucket of each pair of places, int32 [T, T]: row, from where; column, what is looked at.

    Distances below a quarter of the buckets have one each, beyond that buckets grow by a factor.
    """
    half = buckets // 2
    exact = max(1, half // 2)
    place_T = jnp.arange(length, dtype=jnp.int32)
    ahead_TT = place_T[None, :] - place_T[:, None]
    far_TT = jnp.abs(ahead_TT)
    # A comparison with each bound says what floor(log) says, but for its rounding.
    bounds_K = jnp.asarray(_bounds(exact, half - exact), jnp.int32)
    beyond_TT = jnp.sum(far_TT[:, :, None] >= bounds_K[None, None, :], axis=-1, dtype=jnp.int32)
    own_TT = jnp.where(far_TT < exact, far_TT, jnp.int32(exact) + beyond_TT)
    return own_TT + jnp.where(ahead_TT > 0, jnp.int32(half), jnp.int32(0))


def _bounds(exact: int, count: int) -> list[int]:
    """The first distance of each bucket after the first of those that grow."""
    factor = MAX_DISTANCE / exact
    return [math.ceil(round(exact * factor ** (k / count), 6)) for k in range(1, count)]
