"""Learned linear maps between widths."""

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.objectives.projections import init_projection, project


def test_a_new_projection_keeps_the_variance_and_has_no_bias():
    params = init_projection(jax.random.key(0), 128, 384)
    assert params["kernel"].shape == (128, 384) and params["kernel"].dtype == jnp.float32
    np.testing.assert_array_equal(params["bias"], 0)
    features = np.random.default_rng(0).normal(size=(4, 5, 128)).astype(np.float32)
    assert 0.9 < np.std(project(params, features)) < 1.1


def test_it_is_the_affine_map_in_float32_whatever_comes_in():
    params = init_projection(jax.random.key(0), 3, 2) | {"bias": jnp.array([1.0, -1.0])}
    features = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)), jnp.bfloat16)
    got = project(params, features)
    assert got.dtype == jnp.float32
    expected = np.asarray(features, np.float32) @ np.asarray(params["kernel"]) + [1.0, -1.0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
