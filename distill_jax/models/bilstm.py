"""A bidirectional LSTM of one layer over the teacher's word pieces.

Tang et al. 2019, "Distilling Task-Specific Knowledge from BERT into Simple Neural Networks",
section 3.1: embeddings, one BiLSTM (Hochreiter and Schmidhuber 1997, with forget gates), its last
state of either direction, a hidden layer with ReLU, the classes. What departs from there: tokens
are the teacher's word pieces instead of words; their embeddings start from the teacher's, by
principal components, in place of word2vec's, in one channel, which is trained; and there is
dropout. Everything beside the recurrence is as wide as both directions together, so that the one
number in its name says it all: 28 WIDTH^2 parameters beside the embeddings, a million at 192.

Shape suffixes: B batch, T tokens, W width of a direction, D = 2 W, G = 4 W gates, C classes.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.types import Batch, ModelOutput, ModelShape
from distill_jax.models.bert import Dense
from distill_jax.models.dropout import Dropout
from distill_jax.models.family import register
from distill_jax.models.products import affine
from distill_jax.models.word_vectors import SCALE, WordClassifiers, WordConfig, names_of

State = tuple[Array, Array]
"""What an LSTM says and what it keeps: h_BW and c_BW, float32."""


class BiLstmConfig(WordConfig):
    """What a BiLSTM classifier is; ``width``: of each direction, all else is twice as wide."""

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know of this model: one layer, and no attention."""
        return ModelShape(1, 2 * self.width, 0, self.num_labels, self.per_token)


class BiLstm(nn.Module):
    """The classes from the last states of an LSTM in either direction.

    Attributes:
      config: sizes.
      dtype: of the factors of matrix products; states, gates and logits are float32.
    """

    config: BiLstmConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ModelOutput:
        """Logits [B, C], or [B, T, C] as the config says; as hidden state 0 the embeddings, as 1
        the states of both directions [B, T, D].

        Values at positions of padding are finite and mean nothing.

        Args:
          batch: tokens with their ``where``; nothing else is read.
          train: dropout on; needs the rng stream ``"dropout"``.
        """
        both, drop = 2 * self.config.width, Dropout(self.config.dropout)
        vectors = nn.initializers.normal(SCALE)
        words = nn.Embed(self.config.vocab_size, both, embedding_init=vectors, name="embeddings")
        words_BTD = words(batch.input_ids_BT)
        states_BTD, last_BD = BothDirections(self.config.width, self.dtype, name="lstm")(
            drop(words_BTD, train=train), batch.where_BT
        )
        hidden = Dense(both, self.dtype, math.sqrt(2 / both), name="dense")
        said = hidden(states_BTD if self.config.per_token else last_BD)
        said = drop(nn.relu(said).astype(jnp.float32), train=train)
        head = Dense(self.config.num_labels, jnp.float32, math.sqrt(1 / both), name="classifier")
        return ModelOutput(logits_BC=head(said), hidden_states={0: words_BTD, 1: states_BTD})


class BothDirections(nn.Module):
    """An LSTM from the first token to the last, and another one back.

    What tokens add to the gates is one product for all of them and both directions; a scan goes
    over the rest. At a token of padding a state stays as it is, so that the way back starts, for
    every row, at its own last token.

    Attributes:
      width: W, of each direction.
      dtype: of the factors of products.
    """

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, words_BTD: Array, where_BT: Array) -> tuple[Array, Array]:
        """States of both directions at every token, [B, T, 2 W], and the last ones, [B, 2 W]."""
        width, rows = self.width, words_BTD.shape[0]
        std = 1 / math.sqrt(words_BTD.shape[-1])
        gates_BTX = Dense(8 * width, self.dtype, std, name="input")(words_BTD)
        gates_TBX = jnp.swapaxes(gates_BTX, 0, 1).astype(jnp.float32)
        there_TBG, back_TBG = gates_TBX[..., : 4 * width], gates_TBX[..., 4 * width :]
        where_TB1 = where_BT.T[:, :, None]
        forward, backward = (
            partial(_advanced, *Recurrence(width, name=direction)(), self.dtype)
            for direction in ("forward", "backward")
        )

        def step(states: tuple[State, State], at: Any) -> tuple[tuple[State, State], Any]:
            (there_BG, there_B1), (back_BG, back_B1) = at
            there = forward(states[0], there_BG, there_B1)
            back = backward(states[1], back_BG, back_B1)
            return (there, back), (there[0], back[0])

        zeros_BW = jnp.zeros((rows, width), jnp.float32)
        states = ((zeros_BW, zeros_BW), (zeros_BW, zeros_BW))
        reversed_ = jnp.flip(back_TBG, axis=0), jnp.flip(where_TB1, axis=0)
        states, said = jax.lax.scan(step, states, ((there_TBG, where_TB1), reversed_))
        said_TBD = jnp.concatenate([said[0], jnp.flip(said[1], axis=0)], axis=-1)
        last_BD = jnp.concatenate([states[0][0], states[1][0]], axis=-1)
        return jnp.swapaxes(said_TBD, 0, 1), last_BD


class Recurrence(nn.Module):
    """What a direction multiplies its state by: a kernel [W, G] and a bias [G]."""

    width: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        shape = self.width, 4 * self.width
        kernel_WG = self.param("kernel", nn.initializers.orthogonal(), shape, jnp.float32)
        return kernel_WG, self.param("bias", _forget_nothing, shape[1:], jnp.float32)


def _advanced(
    kernel_WG: Array, bias_G: Array, dtype: Any, state: State, gates_BG: Array, where_B1: Array
) -> State:
    """A direction's state after one token more; the same after one of padding."""
    h_BW, c_BW = state
    recurrent_BG = affine(h_BW, kernel_WG, bias_G, dtype).astype(jnp.float32)
    i_BW, f_BW, g_BW, o_BW = jnp.split(gates_BG + recurrent_BG, 4, axis=-1)
    kept_BW = nn.sigmoid(f_BW) * c_BW + nn.sigmoid(i_BW) * jnp.tanh(g_BW)
    said_BW = nn.sigmoid(o_BW) * jnp.tanh(kept_BW)
    return jnp.where(where_B1, said_BW, h_BW), jnp.where(where_B1, kept_BW, c_BW)


def _forget_nothing(rng: Array, shape: tuple[int], dtype: Any) -> Array:
    """Biases of the gates i, f, g, o: 1 for f (Jozefowicz et al. 2015), else 0."""
    return jnp.repeat(jnp.asarray([0, 1, 0, 0], dtype), shape[0] // 4)


BILSTMS = register(
    WordClassifiers(
        "bilstm",
        BiLstmConfig,
        BiLstm,
        names_of("bilstm", 128),
        tokens=True,
        width=192,
        directions=2,
    )
)
