"""Everything a training run has to remember."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import struct

Params = Any
"""A tree of arrays, as Flax modules make them."""
Tree = TypeVar("Tree")


@struct.dataclass
class TrainState:
    """Student, the losses' own parameters, the optimiser's state, and the step.

    Attributes:
      step: int32 scalar, the number of finished updates.
      params: the student's parameters.
      loss_params: the parameters of the losses (projections); ``{}`` where there are none.
      opt_state: optax's state over ``{"student": params, "losses": loss_params}``.
      masks: which weights are left, and when the others go, see ``pruning``; ``{}`` where none is
        ever pruned.
      rows: of tables that are trained by rows, see ``by_rows``; ``{}`` where none is.
    """

    step: jax.Array
    params: Params
    loss_params: Params
    opt_state: optax.OptState
    masks: Params = struct.field(default_factory=dict)
    rows: Params = struct.field(default_factory=dict)

    @property
    def trained(self) -> dict[str, Params]:
        """All that the optimiser moves, as one tree."""
        return {"student": self.params, "losses": self.loss_params}


def init_state(
    params: Params, loss_params: Params, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step. The arrays are copied: a step donates its state."""
    params, loss_params = jax.tree.map(jnp.array, (params, loss_params))
    opt_state = optimizer.init(in_float32({"student": params, "losses": loss_params}))
    return TrainState(jnp.zeros((), jnp.int32), params, loss_params, opt_state)


def in_float32(tree: Tree) -> Tree:
    """The same numbers, half-precision leaves widened: sums over many of them need the digits."""
    half = (jnp.bfloat16, jnp.float16)
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype in half else x, tree)


def like(tree: Tree, values: Tree) -> Tree:
    """``values`` in the dtypes of ``tree``, leaf by leaf."""
    return jax.tree.map(lambda x, value: value.astype(x.dtype), tree, values)
