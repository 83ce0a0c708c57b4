"""GRU4Rec: a recurrent network over the items of a history.

Hidasi et al. 2016, "Session-based Recommendations with Recurrent Neural Networks", with item
vectors shared by input and output (Hidasi and Karatzoglou 2018) and histories of users as sessions.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.ranking_types import HistoryBatch, RankingOutput
from distill_jax.models.bert import Dense
from distill_jax.models.dropout import Dropout
from distill_jax.models.family import register
from distill_jax.models.recommenders.sequence import (
    HistoryModel,
    Inputs,
    Recommenders,
    SequenceConfig,
)


@dataclasses.dataclass(frozen=True)
class Gru4RecConfig(SequenceConfig):
    """A GRU4Rec; ``max_length`` is how far it looks back, it has no positions to tell apart."""

    num_layers: int = 1


class Gru4Rec(HistoryModel):
    """The query of a position is what the model expects after it."""

    config: Gru4RecConfig

    def say(self, batch: HistoryBatch, items_ID: Array, *, train: bool) -> RankingOutput:
        config = self.config
        scale = config.hidden_size**0.5
        hidden_BTD = Inputs(config, scale, positions=False, name="inputs")(batch, items_ID)
        hidden_BTD = Dropout(config.dropout)(hidden_BTD, train=train)
        hidden_states = {0: hidden_BTD}
        for number in range(1, config.num_layers + 1):
            gru = Gru(config.hidden_size, name=f"layer_{number}")
            hidden_BTD = Dropout(config.dropout)(gru(hidden_BTD, batch.where_BT), train=train)
            hidden_states[number] = hidden_BTD
        queries = Dense(config.hidden_size, jnp.float32, config.hidden_size**-0.5, name="output")
        return RankingOutput(queries(hidden_BTD), items_ID, hidden_states=hidden_states)


class Gru(nn.Module):
    """A gated recurrent unit (Cho et al. 2014; with the reset gate behind the matrix product).

    ``r, z = s(W x + U h)``, ``n = tanh(W x + r * (U h + c))``, ``h' = (1 - z) n + z h``.
    """

    features: int

    @nn.compact
    def __call__(self, x_BTD: Array, where_BT: Array) -> Array:
        """[B, T, D] -> [B, T, features], float32; padding leaves the state as it is."""
        D = self.features
        init = nn.initializers.normal(D**-0.5)
        given_BTG = Dense(3 * D, jnp.float32, D**-0.5, name="input")(x_BTD)
        recurrent_DG = self.param("recurrent_kernel", init, (D, 3 * D), jnp.float32)
        bias_D = self.param("recurrent_bias", nn.initializers.zeros, (D,), jnp.float32)

        def step(state_BD: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            given_BG, where_B1 = now
            own_BG = state_BD @ recurrent_DG
            gates = jax.nn.sigmoid(given_BG[:, : 2 * D] + own_BG[:, : 2 * D])
            reset_BD, keep_BD = gates[:, :D], gates[:, D:]
            new_BD = jnp.tanh(given_BG[:, 2 * D :] + reset_BD * (own_BG[:, 2 * D :] + bias_D[None]))
            mixed_BD = (1 - keep_BD) * new_BD + keep_BD * state_BD
            state_BD = jnp.where(where_B1, mixed_BD, state_BD)
            return state_BD, state_BD

        over_time = jnp.swapaxes(given_BTG, 0, 1), where_BT.T[..., None]
        start_BD = jnp.zeros((x_BTD.shape[0], D), jnp.float32)
        return jnp.swapaxes(jax.lax.scan(step, start_BD, over_time)[1], 0, 1)


register(Recommenders("gru4rec", Gru4RecConfig, Gru4Rec))
