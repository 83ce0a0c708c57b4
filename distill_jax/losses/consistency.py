"""How far a model is from itself: both sides learn, none is a teacher."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.numeric import FLOOR, floats, mask_of, same_shape


def symmetric_kl(one: ArrayLike, other: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Mean of KL(p || q) and KL(q || p): ``sum_c (p[c] - q[c]) (log p[c] - log q[c]) / 2``.

    Gradients flow to both sides, unlike in ``jeffreys``, whose second side is a teacher.

    Source: Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", eq. 3.

    Args:
      one, other: [..., C], logits.
      where: bool [...], False for examples that do not count.

    Example:
      >>> one, other = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])
      >>> symmetric_kl(one, other), symmetric_kl(other, one)
      (Array([0.918], dtype=float32), Array([0.918], dtype=float32))
    """
    one, other = floats(one, other)
    same_shape(one, other)
    mask = mask_of(where, one.shape[:-1])
    log_p, log_q = (
        jax.nn.log_softmax(jnp.clip(jnp.where(mask[..., None], z, 0), -FLOOR, FLOOR))
        for z in (one, other)
    )
    return jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1) / 2
