"""Item vectors: from the items' numbers, from what is written about them, from vectors that are
given (of pictures, prices, of a language model), or from several of these.

Vectors made of text, of given ones or of fields exist for items that nobody has ever taken.

Shape suffixes: I items, D width of the recommender, E width of text vectors, V of given ones, L
tokens.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from jax import Array

from distill_jax.core.digests import LATE
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.types import as_batch
from distill_jax.models.bert import BertConfig, Dense, Embeddings, Layer, gelu, mean_of_tokens


@struct.dataclass
class ItemTexts:
    """What is known of the items of a catalogue; constants, not parameters.

    Attributes:
      vectors_IE: float32 [I, E], made once by a frozen encoder.
      tokens_IL: int32 [I, L], for an encoder that is trained with the recommender.
      where_IL: bool [I, L], True for real tokens.
      given_IV: float32 [I, V], vectors from a file.
      fields_IC: int32 [I, C], the number of each field (category, price band), 0 where unknown.
      edge_users_N, edge_items_N, edge_weights_N: int32, int32, float32 [N], who took which item in
        training, each pair once, and its weight in a sum over neighbours.
    """

    vectors_IE: Any = None
    tokens_IL: Any = None
    where_IL: Any = None
    given_IV: Any = None
    fields_IC: Any = None
    edge_users_N: Any = None
    edge_items_N: Any = None
    edge_weights_N: Any = None


@dataclasses.dataclass(frozen=True)
class ItemConfig:
    """How item vectors are made.

    Attributes:
      num_items: I of the catalogue it is trained on.
      hidden_size: D.
      source: ``id``: a vector an item, learned; ``text``: a function of its text; ``both``: their
        sum, of which an item that came later has the text's part; ``vectors``: a function of the
        vector that is given of it.
      text_width: E of the given text vectors, which a layer with GELU and a linear one map to D.
      tower: or a BERT over the items' tokens, trained through: mean of its last layer's real
        tokens, mapped to D. Without dropout, as all rows of a batch share the item vectors.
      initializer_range: standard deviation of fresh vectors and matrices.
      given_width: V of the given vectors, which a layer with GELU and a linear one map to D; above
        0 they are added to what the source says.
      fields: numbers that each of C fields has; a vector of each number is added too.
    """

    num_items: int
    hidden_size: int
    source: Literal["id", "text", "both", "vectors"] = "id"
    text_width: int = 0
    tower: BertConfig | None = None
    initializer_range: float = 0.02
    given_width: int = dataclasses.field(default=0, metadata=LATE)
    fields: tuple[int, ...] = dataclasses.field(default=(), metadata=LATE)

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.num_items, self.hidden_size) < 1:
            raise UserError("a recommender needs num_items and hidden_size of at least 1.")
        texts = (self.text_width > 0) + (self.tower is not None)
        if texts != self.reads_texts:
            raise UserError(
                f"item vectors from {self.source!r} need "
                + ("either text_width or a tower." if self.reads_texts else "no text.")
            )
        if self.given_width < (self.source == "vectors"):
            raise UserError("given_width is the width of given vectors, 0 without any.")
        if min(self.fields, default=1) < 1:
            raise UserError("a field of items has at least one number, that of unknown ones.")

    @property
    def reads_texts(self) -> bool:
        """Whether texts are read."""
        return self.source in ("text", "both")

    @property
    def only_own(self) -> bool:
        """Whether an item's vector is one of its own and nothing else."""
        return self.source == "id" and not self.reads_files

    @property
    def reads_files(self) -> bool:
        """Whether something is read that a file says of every item: its vector or its fields."""
        return self.given_width > 0 or bool(self.fields)


class ItemVectors(nn.Module):
    """The vectors of all items, [I, D] float32."""

    config: ItemConfig

    @nn.compact
    def __call__(self, texts: ItemTexts | None) -> Array:
        """The catalogue's vectors.

        Args:
          texts: of the items of the training catalogue, in order, and perhaps more after them;
            None where items have vectors of their own alone.
        """
        config = self.config
        if config.only_own:
            return self._of_ids()
        known = _given(texts, config)
        made = [self._of_texts(known)] if config.reads_texts else []
        if config.given_width:
            made.append(self._projected("given", jnp.asarray(known.given_IV)))
        if config.fields:
            made.append(self._of_fields(known.fields_IC))
        made_ID = sum(made[1:], start=made[0])
        if config.source in ("text", "vectors"):
            return made_ID
        new = made_ID.shape[0] - config.num_items
        return made_ID + jnp.pad(self._of_ids(), ((0, new), (0, 0)))

    def _of_ids(self) -> Array:
        config = self.config
        init = nn.initializers.normal(config.initializer_range)
        shape = (config.num_items, config.hidden_size)
        return self.param("embedding", init, shape, jnp.float32)

    def _of_fields(self, fields_IC: Array) -> Array:
        """The sum of the vectors of an item's fields, [I, D]."""
        init = nn.initializers.normal(self.config.initializer_range)
        found = []
        for column, size in enumerate(self.config.fields):
            shape = (size, self.config.hidden_size)
            table_ND = self.param(f"field_{column}_embedding", init, shape, jnp.float32)
            found.append(table_ND[jnp.asarray(fields_IC)[:, column]])
        return sum(found[1:], start=found[0])

    def _dense(self, name: str) -> Dense:
        size = self.config.hidden_size
        return Dense(size, jnp.float32, size**-0.5, name=name)

    def _projected(self, name: str, vectors_IE: Array) -> Array:
        """A layer with GELU and a linear one, [I, E] -> [I, D]."""
        middle_ID = gelu(self._dense(f"{name}_inner")(vectors_IE))
        return self._dense(f"{name}_outer")(middle_ID) * self.config.initializer_range

    def _of_texts(self, texts: ItemTexts) -> Array:
        config = self.config
        if config.tower is None:
            return self._projected("text", jnp.asarray(texts.vectors_IE))
        tokens_IL, where_IL = jnp.asarray(texts.tokens_IL), jnp.asarray(texts.where_IL)
        batch = as_batch(tokens_IL, where_IL)
        hidden_ILE = Embeddings(config.tower, jnp.float32, name="embeddings")(batch, train=False)
        for number in range(1, config.tower.num_layers + 1):
            layer = Layer(config.tower, jnp.float32, name=f"layer_{number}")
            hidden_ILE, _ = layer(hidden_ILE, where_IL, False)
        mean_IE = mean_of_tokens(hidden_ILE, where_IL)
        return self._dense("text_outer")(mean_IE) * config.initializer_range


def _given(texts: ItemTexts | None, config: ItemConfig) -> ItemTexts:
    """What is known of the items, which has to be there and to fit."""
    known = texts or ItemTexts()
    read = []
    if config.tower is not None:
        if known.tokens_IL is None:
            raise UserError("this recommender reads the items' texts: give it their tokens.")
        read.append(("texts", known.tokens_IL))
    elif config.reads_texts:
        _check_width("text vectors", known.vectors_IE, config.text_width)
        read.append(("texts", known.vectors_IE))
    if config.given_width:
        _check_width("given vectors", known.given_IV, config.given_width)
        read.append(("vectors", known.given_IV))
    if config.fields:
        _check_width("fields", known.fields_IC, len(config.fields))
        read.append(("fields", known.fields_IC))
    # The length of one alone may be unknown yet, in a program for new items.
    if len(read) > 1 and len({len(array) for _, array in read}) > 1:
        raise UserError(f"{' and '.join(f'{len(x)} {what}' for what, x in read)} of items.")
    for what, array in read if config.source in ("both", "id") else ():
        if len(array) < config.num_items:
            raise UserError(f"{len(array)} {what} for a catalogue of {config.num_items} items.")
    return known


def _check_width(what: str, found: Any, width: int) -> None:
    if found is None or found.shape[1] != width:
        got = "none" if found is None else f"vectors of width {found.shape[1]}"
        raise UserError(f"this recommender reads {what} of width {width}, got {got}.")
