"""Item vectors: from the items' numbers, from what is written about them, or from both.

Vectors made of text exist for items that nobody has ever taken.

Shape suffixes: I items, D width of the recommender, E width of given text vectors, L tokens.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.types import as_batch
from distill_jax.models.bert import BertConfig, Dense, Embeddings, Layer, gelu, mean_of_tokens


@struct.dataclass
class ItemTexts:
    """What is known of the texts of a catalogue; constants, not parameters.

    Attributes:
      vectors_IE: float32 [I, E], made once by a frozen encoder.
      tokens_IL: int32 [I, L], for an encoder that is trained with the recommender.
      where_IL: bool [I, L], True for real tokens.
    """

    vectors_IE: Any = None
    tokens_IL: Any = None
    where_IL: Any = None


@dataclasses.dataclass(frozen=True)
class ItemConfig:
    """How item vectors are made.

    Attributes:
      num_items: I of the catalogue it is trained on.
      hidden_size: D.
      source: ``id``: a vector an item, learned; ``text``: a function of its text; ``both``: their
        sum, of which an item that came later has the text's part.
      text_width: E of the given text vectors, which a layer with GELU and a linear one map to D.
      tower: or a BERT over the items' tokens, trained through: mean of its last layer's real
        tokens, mapped to D. Without dropout, as all rows of a batch share the item vectors.
      initializer_range: standard deviation of fresh vectors and matrices.
    """

    num_items: int
    hidden_size: int
    source: Literal["id", "text", "both"] = "id"
    text_width: int = 0
    tower: BertConfig | None = None
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.num_items, self.hidden_size) < 1:
            raise UserError("a recommender needs num_items and hidden_size of at least 1.")
        texts = (self.text_width > 0) + (self.tower is not None)
        if texts != (self.source != "id"):
            raise UserError(
                f"item vectors from {self.source!r} need "
                + ("no text." if self.source == "id" else "either text_width or a tower.")
            )


class ItemVectors(nn.Module):
    """The vectors of all items, [I, D] float32."""

    config: ItemConfig

    @nn.compact
    def __call__(self, texts: ItemTexts | None) -> Array:
        """The catalogue's vectors.

        Args:
          texts: of the items of the training catalogue, in order, and perhaps more after them;
            None for ``id``.
        """
        config = self.config
        if config.source == "id":
            return self._of_ids()
        written_ID = self._of_texts(_given(texts, config))
        if config.source == "text":
            return written_ID
        new = written_ID.shape[0] - config.num_items
        return written_ID + jnp.pad(self._of_ids(), ((0, new), (0, 0)))

    def _of_ids(self) -> Array:
        config = self.config
        init = nn.initializers.normal(config.initializer_range)
        shape = (config.num_items, config.hidden_size)
        return self.param("embedding", init, shape, jnp.float32)

    def _of_texts(self, texts: ItemTexts) -> Array:
        config = self.config

        def dense(name: str) -> Dense:
            return Dense(config.hidden_size, jnp.float32, config.hidden_size**-0.5, name=name)

        if config.tower is None:
            middle_ID = gelu(dense("text_inner")(jnp.asarray(texts.vectors_IE)))
            return dense("text_outer")(middle_ID) * config.initializer_range
        tokens_IL, where_IL = jnp.asarray(texts.tokens_IL), jnp.asarray(texts.where_IL)
        batch = as_batch(tokens_IL, where_IL)
        hidden_ILE = Embeddings(config.tower, jnp.float32, name="embeddings")(batch, train=False)
        for number in range(1, config.tower.num_layers + 1):
            layer = Layer(config.tower, jnp.float32, name=f"layer_{number}")
            hidden_ILE, _ = layer(hidden_ILE, where_IL, False)
        return dense("text_outer")(mean_of_tokens(hidden_ILE, where_IL)) * config.initializer_range


def _given(texts: ItemTexts | None, config: ItemConfig) -> ItemTexts:
    """The texts, which have to be there and to fit."""
    if config.tower is not None:
        found = None if texts is None else texts.tokens_IL
        if found is None:
            raise UserError("this recommender reads the items' texts: give it their tokens.")
    else:
        found = None if texts is None else texts.vectors_IE
        if found is None or found.shape[1] != config.text_width:
            got = "none" if found is None else f"vectors of width {found.shape[1]}"
            raise UserError(
                f"this recommender reads text vectors of width {config.text_width}, got {got}."
            )
    if config.source == "both" and len(found) < config.num_items:
        raise UserError(f"{len(found)} texts for a catalogue of {config.num_items} items.")
    assert texts is not None
    return texts
