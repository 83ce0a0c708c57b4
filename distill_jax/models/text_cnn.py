"""A convolutional network over the teacher's word pieces.

Kim 2014, "Convolutional Neural Networks for Sentence Classification": windows of 3, 4 and 5 words,
the maximum of each feature map over the text, dropout, the classes. What departs from there: tokens
are the teacher's word pieces; their embeddings start from the teacher's, by principal components,
in place of word2vec's; and no norm of the classifier's weights is bounded. Kim has 300 numbers a
word and 100 maps of each window; here as many maps, of all windows together, as numbers a word.

Shape suffixes: B batch, T tokens, D width, M maps of a window, C classes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from distill_jax.core.types import Batch, ModelOutput, ModelShape
from distill_jax.models.bert import Dense
from distill_jax.models.dropout import Dropout
from distill_jax.models.family import register
from distill_jax.models.word_vectors import SCALE, WordClassifiers, WordConfig, names_of

WINDOWS = (3, 4, 5)


@dataclasses.dataclass(frozen=True)
class TextCnnConfig(WordConfig):
    """What a text CNN is; ``width``: of an embedding, and the number of feature maps."""

    dropout: float = 0.5

    @property
    def maps(self) -> tuple[int, ...]:
        """Feature maps of each window; together ``width``."""
        share, rest = divmod(self.width, len(WINDOWS))
        return tuple(share + (number < rest) for number in range(len(WINDOWS)))

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know of this model: one layer, and no attention."""
        return ModelShape(1, self.width, 0, self.num_labels)


class TextCnn(nn.Module):
    """The classes from the maxima of convolutions over a text.

    Attributes:
      config: sizes.
      dtype: of the factors of convolutions; the logits are float32.
    """

    config: TextCnnConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ModelOutput:
        """Logits; as hidden state 0 the embeddings, as 1 the feature maps, both [B, T, D].

        A window begins at each real token; behind the last one it sees zeros.

        Args:
          batch: tokens with their ``where``; nothing else is read.
          train: dropout on; needs the rng stream ``"dropout"``.
        """
        config, where_BT1 = self.config, batch.where_BT[:, :, None]
        length = batch.input_ids_BT.shape[1]
        vectors = nn.initializers.normal(SCALE)
        words = nn.Embed(config.vocab_size, config.width, embedding_init=vectors, name="embeddings")
        words_BTD = words(batch.input_ids_BT)
        seen_BTD = jnp.where(where_BT1, words_BTD, 0.0)
        behind_BTD = jnp.pad(seen_BTD, ((0, 0), (0, max(WINDOWS) - 1), (0, 0)))
        maps = []
        for window, count in zip(WINDOWS, config.maps, strict=True):
            if count:
                shifted = [behind_BTD[:, step : step + length] for step in range(window)]
                std = math.sqrt(2 / (window * config.width))
                convolution = Dense(count, self.dtype, std, name=f"window_{window}")
                said_BTM = convolution(jnp.concatenate(shifted, axis=-1))
                maps.append(nn.relu(said_BTM).astype(jnp.float32))
        maps_BTD = jnp.concatenate(maps, axis=-1)
        most_BD = jnp.max(jnp.where(where_BT1, maps_BTD, 0.0), axis=1)
        most_BD = Dropout(config.dropout)(most_BD, train=train)
        std = math.sqrt(1 / config.width)
        head = Dense(config.num_labels, jnp.float32, std, name="classifier")
        return ModelOutput(logits_BC=head(most_BD), hidden_states={0: words_BTD, 1: maps_BTD})


TEXT_CNNS = register(
    WordClassifiers("textcnn", TextCnnConfig, TextCnn, names_of("textcnn", 120), width=300)
)
