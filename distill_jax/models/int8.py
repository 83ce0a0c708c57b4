"""Eight-bit integers: how weights and activations are rounded, and layers that compute with them.

One meaning for all: weights symmetric, a scale for each output channel; activations symmetric, a
scale for each token (each row of the flat matrix), so that what is said of an example depends
neither on who shares its batch nor on padding; products of integers summed exactly, then times
both scales, plus the float bias (Jacob et al. 2018, "Quantization and Training of Neural Networks",
section 2, with zero points of 0). Word embeddings have a scale for each row. Layer norms, softmax,
the products of attention and the head stay in float32.

``qwix`` is close, and not the same: its symmetric scale is ``max|x| / 127.5``, where ONNX Runtime's
and this one are ``max|x| / 127``; and it would round the products of attention, whose rows hold
padding, unless each is named in a rule.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.models.named import named

LEVELS = 127
"""The largest integer; -128 is not used."""
EXACT = 2**24 // LEVELS**2
"""Products of two such integers whose sum float32 holds exactly, whatever their order."""


def scales(x: Array, axis: int) -> Array:
    """``max|x| / 127`` over an axis, which stays as one of length 1; 1 where all are 0."""
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True)
    return jnp.where(largest > 0, largest / LEVELS, 1)


def rounded(x: Array, scale: Array) -> Array:
    """``x / scale`` as whole numbers from -127 to 127, in the dtype of x; half goes to even."""
    return jnp.clip(jnp.round(x / scale), -LEVELS, LEVELS)


@named
def int8_product(x_NK: Array, w_KF: Array) -> Array:
    """The product of matrices of such numbers, exact, as float32 [N, F].

    CPUs multiply floats far faster than XLA's integers there: as long as no sum can pass 2^24,
    float32 is as exact, so K is cut into parts.
    """
    if jax.default_backend() != "cpu":
        small = x_NK.astype(jnp.int8), w_KF.astype(jnp.int8)
        return _dot(*small, preferred_element_type=jnp.int32).astype(jnp.float32)
    x_NK, w_KF = x_NK.astype(jnp.float32), w_KF.astype(jnp.float32)
    width = x_NK.shape[1]
    parts = [
        _dot(x_NK[:, start : start + EXACT], w_KF[start : start + EXACT])
        for start in range(0, width, EXACT)
    ]
    if len(parts) == 1:
        return parts[0]
    total = sum((part.astype(jnp.int32) for part in parts[1:]), parts[0].astype(jnp.int32))
    return total.astype(jnp.float32)


_dot = partial(jax.lax.dot_general, dimension_numbers=(((1,), (0,)), ((), ())))


@jax.custom_vjp
def rounded_affine(x_NK: Array, kernel_KF: Array, bias_F: Array) -> Array:
    """``x @ kernel + bias`` as with 8-bit integers, of float32 weights: [N, F].

    The gradient takes the rounding for the identity (the straight-through estimator, Bengio et
    al. 2013): it is that of the product of the rounded factors.
    """
    return _rounded_forward(x_NK, kernel_KF, bias_F)[0]


def _rounded_forward(x_NK: Array, kernel_KF: Array, bias_F: Array) -> tuple[Array, Any]:
    scale_N1, scale_1F = scales(x_NK, 1), scales(kernel_KF, 0)
    whole_NK, whole_KF = rounded(x_NK, scale_N1), rounded(kernel_KF, scale_1F)
    y_NF = int8_product(whole_NK, whole_KF) * (scale_N1 * scale_1F) + bias_F[None]
    return y_NF, (whole_NK * scale_N1, whole_KF * scale_1F)


def _rounded_backward(kept: Any, grad_NF: Array) -> tuple[Array, Array, Array]:
    x_NK, kernel_KF = kept
    return grad_NF @ kernel_KF.T, x_NK.T @ grad_NF, jnp.sum(grad_NF, axis=0)


rounded_affine.defvjp(_rounded_forward, _rounded_backward)


class RoundedDense(nn.Module):
    """An affine map of float32 weights that computes as the one in integers will: for training."""

    features: int
    dtype: Any
    init_std: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        *lead, width = x.shape
        normal = nn.initializers.normal(self.init_std)
        kernel_DF = self.param("kernel", normal, (width, self.features), jnp.float32)
        bias_F = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x_ND, *rest = (a.astype(jnp.float32) for a in (x.reshape(-1, width), kernel_DF, bias_F))
        y_NF = rounded_affine(x_ND, *rest)
        return y_NF.reshape(*lead, self.features).astype(self.dtype)


class Int8Dense(nn.Module):
    """An affine map of the last axis with a kernel of 8-bit integers.

    Attributes:
      activations: ``token``: 8-bit, a scale for each row, found as it comes. ``static``: 8-bit, of
        one scale that was found beforehand. ``float``: float32.
    """

    features: int
    dtype: Any
    init_std: float
    activations: str = "token"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        *lead, width = x.shape
        kernel_DF = self.param("kernel", _int8_zeros, (width, self.features))
        scale_1F = self.param("scale", nn.initializers.ones, (self.features,), jnp.float32)[None]
        bias_F = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        x_ND = x.reshape(-1, width).astype(jnp.float32)
        if self.activations == "float":
            y_NF = x_ND @ (kernel_DF.astype(jnp.float32) * scale_1F)
        else:
            scale_N1 = scales(x_ND, 1)
            if self.activations == "static":
                one = self.param("input_scale", nn.initializers.ones, (1,), jnp.float32)
                scale_N1 = one[None]
            y_NF = int8_product(rounded(x_ND, scale_N1), kernel_DF) * (scale_N1 * scale_1F)
        return (y_NF + bias_F[None]).reshape(*lead, self.features).astype(self.dtype)


class RoundedEmbed(nn.Module):
    """Embeddings in float32, read as their 8-bit rows will be: for training."""

    num_embeddings: int
    features: int
    dtype: Any
    embedding_init: Any

    @nn.compact
    def __call__(self, ids_BT: Array) -> Array:
        shape = (self.num_embeddings, self.features)
        table_VD = self.param("embedding", self.embedding_init, shape, jnp.float32)
        rows_BTD = jnp.take(table_VD, ids_BT, axis=0).astype(jnp.float32)
        scale_BT1 = scales(rows_BTD, -1)
        near_BTD = rounded(rows_BTD, scale_BT1) * scale_BT1
        return (rows_BTD + jax.lax.stop_gradient(near_BTD - rows_BTD)).astype(self.dtype)


class Int8Embed(nn.Module):
    """Embeddings of 8-bit integers, a scale for each row."""

    num_embeddings: int
    features: int
    dtype: Any
    embedding_init: Any

    @nn.compact
    def __call__(self, ids_BT: Array) -> Array:
        table_VD = self.param("embedding", _int8_zeros, (self.num_embeddings, self.features))
        scale_V = self.param("scale", nn.initializers.ones, (self.num_embeddings,), jnp.float32)
        whole_BTD = jnp.take(table_VD, ids_BT, axis=0).astype(jnp.float32)
        return (whole_BTD * jnp.take(scale_V, ids_BT, axis=0)[..., None]).astype(self.dtype)


def _int8_zeros(rng: Array, shape: tuple[int, ...]) -> Array:
    return jnp.zeros(shape, jnp.int8)
