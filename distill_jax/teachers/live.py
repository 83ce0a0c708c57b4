"""A teacher that speaks on demand."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from distill_jax.core.types import Batch, Capture, ModelOutput


@dataclass(frozen=True)
class LiveTeacher:
    """A model in evaluation mode: no dropout, no rng, the same words for the same batch.

    Attributes:
      model: a module with ``apply({"params": ...}, batch, train=...) -> ModelOutput``.
      params: its parameters.
      capture: what its listeners want to hear beside the logits; the rest is not computed.
    """

    model: nn.Module
    params: Any
    capture: Capture

    @cached_property
    def _forward(self) -> Any:
        def forward(params: Any, batch: Batch) -> ModelOutput:
            output: Any = self.model.apply({"params": params}, batch, train=False)
            return jax.tree.map(lambda x: x.astype(jnp.float32), self.capture.select(output))

        return jax.jit(forward)

    def __call__(self, batch: Batch) -> ModelOutput:
        return self._forward(self.params, batch)
