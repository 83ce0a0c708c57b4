"""LoRA: beside frozen kernels, products of two thin matrices learn; merged, they are the model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.training.ingredients.base import Ingredient, register
from distill_jax.training.ingredients.bitfit import HEAD, frozen_but
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.rates import check_pattern, nearest_paths
from distill_jax.training.state import Params, in_float32

KEY, DOWN, UP, KERNEL = "lora", "down", "up", "kernel"


@register
@dataclass(frozen=True)
class Lora(Ingredient):
    """``W + alpha / rank * down @ up`` for each kernel ``W`` [in, out] that is chosen.

    Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1: ``down``
    starts as a Gaussian, here of variance 1 / in, ``up`` as 0, so that the model starts as it was.
    Trained are these and the head. The student is saved with the products added to its kernels.

    Attributes:
      kernels: a regular expression found in the paths of the kernels that are adapted; by default
        queries and values, as the paper's section 4.2 does.
    """

    kind: ClassVar[str] = "lora"
    place: ClassVar[str] = "parameters"

    rank: int = 8
    alpha: float = 16.0
    kernels: str = "attention/(query|value)/"

    def __post_init__(self) -> None:
        check_fields(self)
        check_pattern(self.kernels)
        if not 1 <= self.rank <= 2**16:
            raise UserError(f"the rank of lora must be from 1 to {2**16}, not {self.rank}")
        if not 0 < self.alpha < math.inf:
            raise UserError(f"alpha of lora must be positive, not {self.alpha}")

    @property
    def adapter(self) -> Lora:
        return self

    def optimizer(self, config: OptimizerConfig) -> OptimizerConfig:
        return frozen_but(config, rf"{KEY}/|({HEAD})/")

    def start(self, params: Params, seed: int) -> Params:
        """The parameters with those of the products beside them, under ``lora``.

        Raises:
          UserError: no kernel is chosen.
        """
        chosen = self._chosen(params)
        key, added = jax.random.key(seed), {}
        for number, (path, kernel_IO) in enumerate(chosen.items()):
            inputs, outputs = kernel_IO.shape
            drawn = jax.random.normal(jax.random.fold_in(key, number), (inputs, self.rank))
            added[*path[:-1], DOWN] = drawn.astype(jnp.float32) / math.sqrt(inputs)
            added[*path[:-1], UP] = jnp.zeros((self.rank, outputs), jnp.float32)
        return {**params, KEY: unflatten_dict(added)}

    def merged(self, params: Params) -> Params:
        """The model's parameters, the products added."""
        flat = flatten_dict({name: own for name, own in params.items() if name != KEY})
        products = flatten_dict(params[KEY])
        for path in (path for path in products if path[-1] == DOWN):
            down_IR, up_RO = (in_float32(products[*path[:-1], name]) for name in (DOWN, UP))
            added_IO = jnp.matmul(down_IR, up_RO, precision="highest") * (self.alpha / self.rank)
            place = *path[:-1], KERNEL
            flat[place] = in_float32(flat[place]) + added_IO  # in the dtype in which it is saved
        return unflatten_dict(flat)

    def _chosen(self, params: Params) -> dict[tuple[str, ...], Any]:
        kernels = {
            path: leaf
            for path, leaf in flatten_dict(params).items()
            if path[-1] == KERNEL and np.ndim(leaf) == 2 and not re.match(HEAD, path[0])
        }
        chosen = {p: leaf for p, leaf in kernels.items() if re.search(self.kernels, "/".join(p))}
        if not chosen:
            paths = ["/".join(path) for path in kernels]
            near = ", ".join(nearest_paths(self.kernels, paths)) or "none: the student has none"
            raise UserError(
                f"lora(kernels={self.kernels!r}) is found in the path of no kernel of the student; "
                f"the nearest are {near}"
            )
        return chosen
