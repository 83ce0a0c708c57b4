"""Losses on hidden states ``[..., T, D]``, with ``where`` ``[..., T]``: one value per example.

Values are means over features and over the unmasked tokens of an example.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.numeric import constant_pair, masked_mean


def hidden_mse(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Mean squared difference of hidden states, over features and unmasked tokens.

    ``1/(|tokens| D) * sum_{t, d} (h_s[t, d] - h_t[t, d])^2``; in an objective the student's
    hidden states pass through a learned projection first where the widths differ.

    Source: Jiao et al. 2020, "TinyBERT", eq. 8.

    Args:
      student: [..., T, D], hidden states.
      teacher: [..., T, D], hidden states.
      where: bool [..., T], False for padding.

    Returns:
      [...], 0 for an example without tokens.

    Raises:
      ValueError: if the shapes do not fit.
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    return masked_mean(jnp.mean((student - teacher) ** 2, axis=-1), mask, axis=-1)
