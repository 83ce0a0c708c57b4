"""SASRec: a causal transformer over the items of a history.

Kang and McAuley 2018, "Self-Attentive Sequential Recommendation". Blocks as in section III.B:
``x + dropout(g(norm(x)))``, with attention, then two pointwise layers; item vectors are shared by
input and output. With item vectors of text it is the language-model teacher.
"""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, RankingOutput
from distill_jax.models.bert import ACTIVATIONS, BertConfig, Dense, LayerNorm, SelfAttention
from distill_jax.models.dropout import Dropout
from distill_jax.models.family import register
from distill_jax.models.recommenders.sequence import (
    HistoryModel,
    Inputs,
    Recommenders,
    SequenceConfig,
    block_config,
)


@dataclasses.dataclass(frozen=True)
class SasRecConfig(SequenceConfig):
    """A SASRec.

    Attributes:
      num_heads: attention heads; they divide the width.
      expansion: width of the pointwise layer in between, in units of the model's.
      attention_dropout: rate on the attention probabilities.
      layer_norm_eps: of all layer norms.
    """

    num_heads: int = 2
    expansion: int = 1
    attention_dropout: float = 0.2
    layer_norm_eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expansion < 1:
            raise UserError(f"expansion must be at least 1, not {self.expansion}.")
        _ = self.blocks  # checks the rest

    @property
    def blocks(self) -> BertConfig:
        """The same sizes, as the blocks of ``models.bert`` want them."""
        return block_config(self, self.expansion * self.hidden_size, "relu")


class SasRec(HistoryModel):
    """The query of a position is what the model expects after it."""

    config: SasRecConfig
    dtype: Any = jnp.float32

    def say(
        self, batch: HistoryBatch, items_ID: Array, *, train: bool, last_only: bool = False
    ) -> RankingOutput:
        """As ``HistoryModel.say``.

        Args:
          last_only: say only what follows the newest item: queries and the last hidden states are
            [B, 1, D], and the last block is a fraction of the work.
        """
        config = self.config
        inputs = Inputs(config, math.sqrt(config.hidden_size), name="inputs")(batch, items_ID)
        hidden_BTD = Dropout(config.dropout)(inputs.astype(self.dtype), train=train)
        hidden_states = {0: hidden_BTD}
        for number in range(1, config.num_layers + 1):
            block = Block(config.blocks, self.dtype, name=f"layer_{number}")
            last = last_only and number == config.num_layers
            hidden_BTD = block(hidden_BTD, batch.where_BT, train=train, last_only=last)
            hidden_states[number] = hidden_BTD
        norm = LayerNorm(config.layer_norm_eps, jnp.float32, name="norm")
        return RankingOutput(norm(hidden_BTD), items_ID, hidden_states=hidden_states)


class Block(nn.Module):
    """Causal self-attention and two pointwise layers, each after a layer norm."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden_BTD: Array, where_BT: Array, *, train: bool, last_only: bool = False
    ) -> Array:
        config = self.config
        dense = partial(Dense, dtype=self.dtype, init_std=config.initializer_range)
        norm = partial(LayerNorm, config.layer_norm_eps, self.dtype)
        drop = partial(Dropout(config.dropout), train=train)
        attention = SelfAttention(config, self.dtype, causal=True, name="attention")
        context_BTD, _ = attention(
            norm(name="attention_norm")(hidden_BTD), where_BT, train=train, last_only=last_only
        )
        hidden_BTD = hidden_BTD[:, -1:] if last_only else hidden_BTD
        hidden_BTD = hidden_BTD + drop(
            dense(config.hidden_size, name="attention_output")(context_BTD)
        )
        up_BTF = dense(config.intermediate_size, name="intermediate")(
            norm(name="output_norm")(hidden_BTD)
        )
        inner_BTF = drop(ACTIVATIONS[config.hidden_act](up_BTF))
        return hidden_BTD + drop(dense(config.hidden_size, name="output")(inner_BTF))


register(Recommenders("sasrec", SasRecConfig, SasRec, says_last=True))
