"""BERT4Rec: a bidirectional transformer that finds hidden items of a history.

Sun et al. 2019, "BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations
from Transformer". Asked what comes next, it is given a hidden item behind the newest.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from distill_jax.core.ranking_types import HistoryBatch, Question, RankingOutput
from distill_jax.models.bert import BertConfig, Dense, Layer, LayerNorm, gelu
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
class Bert4RecConfig(SequenceConfig):
    """A BERT4Rec.

    Attributes:
      num_heads: attention heads; they divide the width.
      attention_dropout: rate on the attention probabilities.
      layer_norm_eps: of all layer norms.
    """

    num_heads: int = 2
    attention_dropout: float = 0.2
    layer_norm_eps: float = 1e-12

    task: ClassVar[Question] = "hidden"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.blocks  # checks the rest

    @property
    def blocks(self) -> BertConfig:
        """The same sizes, as the blocks of ``models.bert`` want them."""
        return block_config(self, 4 * self.hidden_size, "gelu")


class Bert4Rec(HistoryModel):
    """The query of a position is the item that the model believes is hidden there."""

    config: Bert4RecConfig
    dtype: Any = jnp.float32

    def say(self, batch: HistoryBatch, items_ID: Array, *, train: bool) -> RankingOutput:
        """Item number + 1 = I + 1 is a hidden item."""
        config = self.config
        inputs = Inputs(config, hidden_item=True, name="inputs")(batch, items_ID)
        hidden_BTD = LayerNorm(config.layer_norm_eps, self.dtype, name="input_norm")(inputs)
        hidden_BTD = Dropout(config.dropout)(hidden_BTD, train=train)
        hidden_states = {0: hidden_BTD}
        for number in range(1, config.num_layers + 1):
            layer = Layer(config.blocks, self.dtype, name=f"layer_{number}")
            hidden_BTD, _ = layer(hidden_BTD, batch.where_BT, train)
            hidden_states[number] = hidden_BTD
        init_std = config.items.initializer_range
        head = Dense(config.hidden_size, jnp.float32, init_std, name="head")
        norm = LayerNorm(config.layer_norm_eps, jnp.float32, name="head_norm")
        queries_BTD = norm(gelu(head(hidden_BTD)))
        return RankingOutput(queries_BTD, items_ID, self.item_bias(items_ID), hidden_states)


register(Recommenders("bert4rec", Bert4RecConfig, Bert4Rec))
