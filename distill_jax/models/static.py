"""A bag of token embeddings: the classes from the mean of vectors that no context changes.

Joulin et al. 2017, "Bag of Tricks for Efficient Text Classification" (fastText), over the teacher's
word pieces, with one hidden layer. It starts from the teacher's own embeddings as Model2Vec does
(Tulkens and van Dongen 2024, "Model2Vec: Fast State-of-the-Art Static Embeddings"): principal
components, rare tokens weighing more. Unlike there, these are the rows of the teacher's table of
embeddings, not what its layers make of each token alone; special tokens are in the mean; and the
vectors go on being trained.

Shape suffixes: B batch, T tokens, D width, C classes.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from distill_jax.core.types import Batch, ModelOutput, ModelShape
from distill_jax.models.bert import Dense, mean_of_tokens
from distill_jax.models.dropout import Dropout
from distill_jax.models.family import register
from distill_jax.models.word_vectors import SCALE, WordClassifiers, WordConfig, names_of


class StaticConfig(WordConfig):
    """What a bag of embeddings is; ``width``: of an embedding, and of the hidden layer."""

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know of this model: it has no layers."""
        return ModelShape(0, self.width, 0, self.num_labels)


class Static(nn.Module):
    """The classes from the mean of the embeddings of tokens.

    Attributes:
      config: sizes.
      dtype: of the hidden layer; the mean and the logits are float32.
    """

    config: StaticConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ModelOutput:
        """Logits, and as hidden state 0 the embeddings [B, T, D].

        Args:
          batch: tokens with their ``where``; nothing else is read.
          train: dropout on; needs the rng stream ``"dropout"``.
        """
        width, drop = self.config.width, Dropout(self.config.dropout)
        vectors = nn.initializers.normal(SCALE)
        words = nn.Embed(self.config.vocab_size, width, embedding_init=vectors, name="embeddings")
        words_BTD = words(batch.input_ids_BT)
        mean_BD = drop(mean_of_tokens(words_BTD, batch.where_BT), train=train)
        hidden = Dense(width, self.dtype, math.sqrt(2 / width), name="dense")
        hidden_BD = drop(nn.relu(hidden(mean_BD)).astype(jnp.float32), train=train)
        head = Dense(self.config.num_labels, jnp.float32, math.sqrt(1 / width), name="classifier")
        return ModelOutput(logits_BC=head(hidden_BD), hidden_states={0: words_BTD})


STATICS = register(
    WordClassifiers("static", StaticConfig, Static, names_of("static", 128), width=256, weighs=True)
)
