"""Products of bfloat16 factors: the plain product of the rounded factors is the oracle."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.models.products import affine

HALF = jnp.bfloat16
CPUINFO = Path("/proc/cpuinfo")
HAS_BF16 = CPUINFO.is_file() and "avx512_bf16" in CPUINFO.read_text()


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def rounded(x):
    return np.asarray(x.astype(HALF), np.float64)


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_sums_are_those_of_float32(rows, width, features):
    x, kernel, bias = drawn(rows, width), drawn(width, features, seed=1), drawn(features, seed=2)
    got = affine(x, kernel, bias, HALF)
    assert got.dtype == HALF
    expected = rounded(x) @ rounded(kernel) + np.asarray(bias, np.float64)
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=2**-8, atol=1e-6)


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_gradients_are_products_of_rounded_factors(rows, width, features):
    """Of an odd number of rows too, which the transposed copy does not take."""
    x, kernel, bias = drawn(rows, width), drawn(width, features, seed=1), drawn(features, seed=2)
    weight = drawn(rows, features, seed=3)

    def total(x, kernel, bias):
        return jnp.sum(affine(x, kernel, bias, HALF).astype(jnp.float32) * weight)

    by_x, by_kernel, by_bias = jax.grad(total, argnums=(0, 1, 2))(x, kernel, bias)
    assert {each.dtype for each in (by_x, by_kernel, by_bias)} == {jnp.dtype(jnp.float32)}
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(by_x, rounded(weight) @ rounded(kernel).T, **close)
    np.testing.assert_allclose(by_kernel, rounded(x).T @ rounded(weight), **close)
    np.testing.assert_allclose(by_bias, rounded(weight).sum(axis=0), **close)


@pytest.mark.parametrize("dtype", [HALF, jnp.float32])
def test_kernels_keep_their_dtype(dtype):
    kernel = drawn(3, 2).astype(dtype)
    by_kernel = jax.grad(
        lambda k: affine(drawn(4, 3), k, jnp.zeros(2), HALF).astype(jnp.float32).sum()
    )(kernel)
    assert by_kernel.dtype == dtype


def test_float32_is_the_plain_product():
    x, kernel, bias = drawn(4, 3), drawn(3, 2), drawn(2)
    np.testing.assert_array_equal(
        jax.jit(affine, static_argnums=3)(x, kernel, bias, jnp.float32), x @ kernel + bias[None]
    )


def test_members_of_a_population():
    x, kernel, bias = drawn(3, 4, 6), drawn(3, 6, 2), drawn(3, 2)

    def total(x, kernel, bias):
        return jnp.sum(affine(x, kernel, bias, HALF).astype(jnp.float32) ** 2)

    gradient = jax.grad(total, argnums=1)
    together = jax.jit(jax.vmap(gradient))(x, kernel, bias)
    alone = jnp.stack([gradient(*each) for each in zip(x, kernel, bias, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not HAS_BF16, reason="this processor has no products of bfloat16")
def test_no_factor_is_widened():
    """Where the factors of the kernel's gradient lie as it reads them, XLA multiplies bfloat16;
    written down plainly, it makes a copy of them in float32."""
    rows, width = 64, 32
    x, kernel = drawn(rows, width).astype(HALF), drawn(width, 16)
    wide = f"f32[{rows},{width}]", f"f32[{width},{rows}]"

    def compiled(product):
        total = lambda kernel: jnp.sum(product(kernel).astype(jnp.float32) ** 2)  # noqa: E731
        return jax.jit(jax.grad(total)).lower(kernel).compile().as_text()

    ours = compiled(lambda kernel: affine(x, kernel, jnp.zeros(16), HALF))
    plain = compiled(lambda kernel: x @ kernel.astype(HALF))
    assert not any(shape in ours for shape in wide)
    assert any(shape in plain for shape in wide)
