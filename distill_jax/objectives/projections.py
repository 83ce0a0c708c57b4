"""Learned linear maps from a student's width to a teacher's, owned by the objective."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.losses.numeric import floats


def init_projection(rng: Array, width_in: int, width_out: int) -> dict[str, Array]:
    """A linear map whose outputs have its inputs' variance (LeCun normal), bias 0."""
    kernel = jax.random.normal(rng, (width_in, width_out), jnp.float32) / width_in**0.5
    return {"kernel": kernel, "bias": jnp.zeros((width_out,), jnp.float32)}


def project(params: dict[str, Array], features: Array) -> Array:
    """[..., width_in] -> [..., width_out], in the losses' working dtype."""
    features, kernel, bias = floats(features, params["kernel"], params["bias"])
    return features @ kernel + bias.reshape((1,) * (features.ndim - 1) + bias.shape)
