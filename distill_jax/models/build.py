"""From a config to its module and its parameters, whatever kind of model it is."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from distill_jax.models.bert import Bert, BertConfig, Params, init_bert
from distill_jax.models.cnn import Cnn, CnnConfig, init_cnn

ModelConfig = BertConfig | CnnConfig


def build_model(config: ModelConfig, *, dtype: Any = jnp.float32, remat: bool = False) -> nn.Module:
    """The module of a config: ``apply({"params": params}, batch, train=...) -> ModelOutput``.

    Args:
      dtype: of a transformer's computation; CNNs are too small to gain and stay in float32.
      remat: save memory in a transformer's backward pass, see ``Bert``.
    """
    match config:
        case BertConfig():
            return Bert(config, dtype, remat)
        case CnnConfig():
            return Cnn(config)
    raise TypeError(f"no model for a {type(config).__name__}")


def init_model(config: ModelConfig, rng: Array) -> Params:
    """Fresh float32 parameters of ``build_model(config)``, drawn from a jax random key."""
    match config:
        case BertConfig():
            return init_bert(config, rng)
        case CnnConfig():
            return init_cnn(config, rng)
    raise TypeError(f"no model for a {type(config).__name__}")
