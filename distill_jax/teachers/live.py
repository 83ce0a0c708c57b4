"""A teacher that speaks on demand."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
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

    def __call__(self, batch: Batch) -> ModelOutput:
        return _speaking(self.model, self.capture)(self.params, batch)


@lru_cache(maxsize=64)
def _speaking(model: nn.Module, capture: Capture) -> Callable[[Any, Batch], ModelOutput]:
    """(params, batch) -> what is wanted of it in float32; compiled once for all who ask alike."""

    def forward(params: Any, batch: Batch) -> ModelOutput:
        output: Any = model.apply({"params": params}, batch, train=False)
        return jax.tree.map(lambda x: x.astype(jnp.float32), capture.select(output))

    return jax.jit(forward)
