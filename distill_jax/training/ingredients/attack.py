"""Shifting the embeddings of a batch's tokens, in whatever model, and towards where it hurts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from distill_jax.core.errors import UserError

TINY = 1e-30


@contextmanager
def shifted(path: tuple[str, ...], shift_BTD: jax.Array | None) -> Iterator[None]:
    """While a model is applied in here, its embeddings of tokens are shifted.

    Args:
      path: to the table of embeddings in the model's parameters.
      shift_BTD: is added to what is looked up; None to shift nothing.

    Raises:
      ValueError: the model looked nothing up there.
    """
    if shift_BTD is None:
        yield
        return
    seen = []

    def intercept(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        said = call(*args, **kwargs)
        if context.module.path != path[:-1] or context.method_name != "__call__":
            return said
        seen.append(said.shape)
        return said + shift_BTD.astype(said.dtype)

    with nn.intercept_methods(intercept):
        yield
    if not seen:
        raise ValueError(f"the model has no embeddings of tokens at {'/'.join(path)}")


def along(gradient_BTD: jax.Array, where_BT: jax.Array) -> jax.Array:
    """Each example's gradient at length 1 over its real tokens; 0 where it is 0."""
    real_BTD = jnp.where(where_BT[:, :, None], gradient_BTD, 0)
    largest_B11 = jnp.max(jnp.abs(real_BTD), axis=(1, 2), keepdims=True)
    scaled_BTD = real_BTD / jnp.maximum(largest_B11, TINY)  # squares of small ones would be 0
    return scaled_BTD / jnp.maximum(length(scaled_BTD), TINY)


def length(shift_BTD: jax.Array) -> jax.Array:
    """Of each example's shift, over tokens and width: [B, 1, 1]."""
    return jnp.sqrt(jnp.sum(jnp.square(shift_BTD), axis=(1, 2), keepdims=True))


def check_embeddings(kind: str, embeddings: tuple[str, ...]) -> None:
    """Raises ``UserError`` for a student without embeddings of tokens."""
    if not embeddings:
        raise UserError(f"{kind} shifts embeddings of tokens, and this student has none")
