"""Functions that other software knows by name.

Each is compiled as a call, which XLA inlines; what exports a traced program finds the call, and can
say the whole of it in one word instead of ten.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

PREFIX = "distill_jax_"


def named(function: Any) -> Any:
    """A function that is compiled as a call of its own name, with ``PREFIX`` before it."""
    function.__name__ = PREFIX + function.__name__
    return jax.jit(function)


@named
def gelu(x: Array) -> Array:
    """Exact GELU, x Phi(x), by erf: ``jax.nn.gelu`` takes the slower erfc."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


@named
def gelu_tanh(x: Array) -> Array:
    """GELU by its approximation with tanh."""
    return jax.nn.gelu(x, approximate=True)


@named
def softmax(x: Array) -> Array:
    """Over the last axis."""
    return jax.nn.softmax(x)


@named
def layer_norm(x: Array, scale_D: Array, bias_D: Array, epsilon: float) -> Array:
    """Layer norm over the last axis (Ba et al. 2016), float32.

    The variance takes two passes: E[x^2] - E[x]^2 would lose digits.
    """
    vector = (1,) * (x.ndim - 1) + (-1,)
    x = x.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(variance + epsilon)
    scale, bias = (p.astype(jnp.float32).reshape(vector) for p in (scale_D, bias_D))
    return normal * scale + bias
