"""Learned linear maps from a student's width to a teacher's, owned by the objective."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.losses.numeric import floats


def init_projection(rng: Array, width_in: int, width_out: int) -> dict[str, Array]:
    """A linear map whose outputs have its inputs' variance (LeCun normal), bias 0."""
    kernel = jax.random.normal(rng, (width_in, width_out), jnp.float32) / width_in**0.5
    return {"kernel": kernel, "bias": jnp.zeros((width_out,), jnp.float32)}


def project(params: dict[str, Array], features: Array) -> Array:
    """[..., width_in] -> [..., width_out], in the losses' working dtype."""
    features, kernel, bias = floats(features, params["kernel"], params["bias"])
    return features @ kernel + bias.reshape((1,) * (features.ndim - 1) + bias.shape)


def projects(wanted: bool | str, widths: tuple[int, int]) -> bool:
    """Whether a student's features need a projection to be compared with a teacher's.

    Args:
      wanted: True or ``always``, ``auto`` for where widths differ, False, or ``never`` for losses
        that take any widths.
      widths: the student's and the teacher's.

    Raises:
      UserError: for False where widths differ.
    """
    if wanted is False and widths[0] != widths[1]:
        raise UserError(
            f"projection=False needs equal widths: the student has {widths[0]}, the teacher "
            f"{widths[1]}."
        )
    return widths[0] != widths[1] if wanted == "auto" else wanted in (True, "always")
