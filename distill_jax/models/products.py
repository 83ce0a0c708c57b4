"""Matrix products of bfloat16 factors that are fast on CPUs too.

Accelerators multiply bfloat16 and sum in float32 whatever is asked. XLA on a CPU does so, with the
processor's own instructions, where the result is float32 and both factors lie as the product reads
them; any other product of bfloat16 is carried out in float32, no faster. Here the result is
float32 first, and the gradient of the kernel, whose factor would have to be read by columns, gets a
copy of it that is transposed.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

HALF = jnp.bfloat16


def affine(x_NK: Array, kernel_KF: Array, bias_F: Array, dtype: Any) -> Array:
    """``x @ kernel + bias`` of factors in ``dtype``, which is the result's too: [N, F]."""
    if dtype == HALF and jax.default_backend() == "cpu":
        return (_summed_in_float32(x_NK, kernel_KF) + bias_F.astype(jnp.float32)[None]).astype(
            dtype
        )
    return x_NK.astype(dtype) @ kernel_KF.astype(dtype) + bias_F.astype(dtype)[None]


@jax.custom_vjp
def _summed_in_float32(x_NK: Array, kernel_KF: Array) -> Array:
    return _dot(x_NK.astype(HALF), kernel_KF.astype(HALF))


def _forward(x_NK: Array, kernel_KF: Array) -> tuple[Array, Any]:
    factors = x_NK.astype(HALF), kernel_KF.astype(HALF)
    like = jnp.zeros((), x_NK.dtype), jnp.zeros((), kernel_KF.dtype)
    return _dot(*factors), (factors, like)


def _backward(kept: Any, grad_NF: Array) -> tuple[Array, Array]:
    (x_NK, kernel_KF), (x_like, kernel_like) = kept
    grad_NF = grad_NF.astype(HALF)
    x_grad_NK = _dot(grad_NF, kernel_KF, (1, 1))
    kernel_grad_KF = _dot(transposed(x_NK), grad_NF)
    return x_grad_NK.astype(x_like.dtype), kernel_grad_KF.astype(kernel_like.dtype)


_summed_in_float32.defvjp(_forward, _backward)


def _dot(left: Array, right: Array, over: tuple[int, int] = (1, 0)) -> Array:
    """Product over these axes, summed in float32."""
    axes = (((over[0],), (over[1],)), ((), ()))
    return jax.lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)


def transposed(x_NK: Array) -> Array:
    """[K, N], in an order of memory of its own: a plain transpose would be folded into the product,
    which then reads by columns. This one moves pairs of rows, and XLA folds no reshape."""
    rows, width = x_NK.shape
    if rows % 2:
        return x_NK.T
    return x_NK.reshape(rows // 2, 2, width).transpose(2, 0, 1).reshape(width, rows)
