"""The ground that the losses stand on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.losses import numeric


def test_the_working_dtype_is_float32_unless_something_is_float64():
    half = jnp.zeros(2, jnp.bfloat16)
    assert [x.dtype for x in numeric.floats(half, np.zeros(2, np.float32))] == [jnp.float32] * 2
    with jax.enable_x64(True):
        wide = numeric.floats(half, np.zeros(2, np.float64))
        assert [x.dtype for x in wide] == [jnp.float64] * 2


def test_masked_softmax_ignores_masked_entries_whatever_they_hold(rng):
    scores = rng.normal(size=(3, 4)).astype(np.float32)
    where = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]], bool)
    for junk in (0.0, 1e30, -np.inf, np.inf):
        got = np.exp(numeric.masked_log_probs(jnp.where(where, scores, junk), where))
        np.testing.assert_array_equal(got[~where], 0)
        np.testing.assert_allclose(got[0, where[0]].sum(), 1, rtol=1e-6)
        np.testing.assert_allclose(got[1, 2], 1)


def test_masked_mean_of_nothing_is_zero():
    values = np.full((2, 3), np.inf, np.float32)
    where = np.array([[False] * 3, [True, False, False]])
    values[1, 0] = 4
    np.testing.assert_array_equal(numeric.masked_mean(jnp.asarray(values), where, -1), [0, 4])


@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e30])
def test_unit_vectors_at_every_size(size):
    vector = jnp.asarray([3.0, 4.0], jnp.float32) * size
    got, slope = jax.jacrev(numeric.l2_normalise)(vector), numeric.l2_normalise(vector)
    assert np.all(np.isfinite(got)) and np.all(np.isfinite(slope))
    np.testing.assert_allclose(slope, [0.6, 0.8] if size else [0, 0], rtol=1e-6)


def test_the_norm_has_gradient_zero_at_zero():
    np.testing.assert_array_equal(jax.grad(numeric.safe_norm)(jnp.zeros(3)), 0)
    np.testing.assert_allclose(jax.grad(numeric.safe_norm)(jnp.array([3.0, 4.0])), [0.6, 0.8])
