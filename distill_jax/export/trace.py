"""A classifier's logits as JAX traces them: of any number of rows and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jax import export

from distill_jax.core.types import as_batch
from distill_jax.models.build import build_model

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""In this order, [batch, length]; the tokeniser gives them."""
ROWS, LENGTH = "batch", "length"


def logits_of_tokens(config: Any) -> Callable[..., jax.Array]:
    """(parameters by path, input_ids, attention_mask, token_type_ids) -> logits, int32 inputs."""
    model = build_model(config)

    def logits(flat: Any, input_ids_BT: Any, attention_mask_BT: Any, types_BT: Any) -> jax.Array:
        params = unflatten_dict(flat, sep="/")
        batch = as_batch(input_ids_BT, attention_mask_BT != 0, types_BT)
        output: Any = model.apply({"params": params}, batch, train=False)
        return output.logits_BC

    return logits


def symbolic_tokens(config: Any) -> jax.ShapeDtypeStruct:
    """Token ids of any number of rows and tokens that the model takes."""
    most = config.token_range.positions
    shape = export.symbolic_shape(
        f"{ROWS}, {LENGTH}", constraints=[f"{LENGTH} <= {most}", f"{ROWS} >= 1", f"{LENGTH} >= 1"]
    )
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def trace(config: Any, flat: Any) -> Any:
    """The closed jaxpr of a model's logits, of parameters by path and three arrays of tokens."""
    tokens = symbolic_tokens(config)
    spec = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flat.items()}
    return jax.jit(logits_of_tokens(config)).trace(spec, *(tokens,) * 3).jaxpr
