"""Logits of chosen items: the plain product, whatever the rows held at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.losses.catalogue import chosen_logits


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_values_and_gradients_are_those_of_the_whole_product(rng, rows):
    queries, items = (np.float32(rng.normal(size=s)) for s in ((7, 4), (9, 4)))
    bias, weights = np.float32(rng.normal(size=9)), np.float32(rng.normal(size=(7, 5)))
    ids = rng.integers(0, 9, size=(7, 5)).astype(np.int32)
    where = np.array([1, 0, 1, 1, 0, 0, 1], bool)

    def few(queries, items, bias):
        values = chosen_logits(queries, items, bias, ids, where=where, rows=rows)
        return jnp.sum(weights * values), values

    def whole(queries, items, bias):
        logits = queries @ items.T + bias[None]
        values = jnp.where(where[:, None], jnp.take_along_axis(logits, ids, axis=1), 0)
        return jnp.sum(weights * values), values

    for function in (few, whole):
        function.result = jax.jit(jax.value_and_grad(function, (0, 1, 2), has_aux=True))(
            queries, items, bias
        )
    (_, values), grads = few.result
    (_, expected), expected_grads = whole.result
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    for grad, other in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(grad, other, rtol=1e-4, atol=1e-5)


def test_what_is_masked_may_be_anything(rng):
    queries = np.full((3, 2), np.nan, np.float32)
    queries[0] = 1
    ids = np.zeros((3, 2), np.int32)
    where = np.array([True, False, False])

    def total(queries, items):
        return jnp.sum(chosen_logits(queries, items, None, ids, where=where))

    value, grads = jax.value_and_grad(total, (0, 1))(queries, np.ones((4, 2), np.float32))
    assert value == 4 and all(np.isfinite(g).all() for g in grads)
