"""What a language model knows of items: their tokens, or vectors that it makes of them once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch
from distill_jax.data.coverage import Coverage
from distill_jax.data.plan import choose_lengths, plan_in_order
from distill_jax.data.tokenise import TokenTable, tokenise_texts
from distill_jax.models.bert import Bert, BertConfig, Params, mean_of_tokens
from distill_jax.models.recommenders.text_items import ItemTexts

MAX_TOKENS = 32
"""Of an item, special ones included; titles and genres have fewer."""
BATCH = 64


def item_tokens(texts: Sequence[str] | None, tokenizer_file: Path) -> TokenTable:
    """The items' texts, tokenised; a row an item, see ``covered_tokens``."""
    return covered_tokens(texts, tokenizer_file)[0]


def covered_tokens(
    texts: Sequence[str] | None, tokenizer_file: Path
) -> tuple[TokenTable, Coverage]:
    """The items' texts, tokenised, and how much of them the tokens are.

    Args:
      texts: of all items, as ``Interactions.item_texts`` has them, and perhaps of more.

    Raises:
      UserError: if there are no texts, or the tokeniser cannot be read.
    """
    if texts is None:
        raise UserError("the data has no item texts, which this recommender reads.")
    ids = [f"item-{number}" for number in range(len(texts))]
    return tokenise_texts(texts, tokenizer_file, max_length=MAX_TOKENS, ids=ids)


def texts_as_tokens(table: TokenTable) -> ItemTexts:
    """For recommenders with a tower that is trained through."""
    longest = int(table.lengths_N.max())
    batch = table.batch(np.arange(len(table)), longest, len(table))
    return ItemTexts(tokens_IL=np.asarray(batch.input_ids_BT), where_IL=np.asarray(batch.where_BT))


@dataclasses.dataclass(frozen=True, eq=False)
class TextSpace:
    """How a catalogue's vectors are centred and scaled; items that come later are, too.

    Every direction is centred over the catalogue and the whole scaled to a mean square of 1: what
    all items share (titles of films are much alike to a language model) tells none of them apart.

    Attributes:
      mean_E: float32 [E], of the catalogue.
      scale: root mean square of what is left.
    """

    mean_E: np.ndarray
    scale: float

    def of(self, raw_IE: np.ndarray) -> np.ndarray:
        """float32 [I, E], of an encoder's vectors."""
        return ((raw_IE - self.mean_E[None]) / max(self.scale, 1e-6)).astype(np.float32)


def text_space(raw_IE: np.ndarray) -> TextSpace:
    """The space of a catalogue, of its encoder's vectors."""
    mean_E = raw_IE.mean(axis=0)
    return TextSpace(mean_E, float(np.sqrt(np.mean(np.square(raw_IE - mean_E[None])))))


@functools.lru_cache(maxsize=2)
def vectors_of(config: BertConfig) -> Callable[[Params, Batch], Array]:
    """``apply(params, batch) -> [B, E]``: the mean of the last layer over each row's real tokens,
    no dropout; compiled once a shape."""

    def forward(params: Params, batch: Batch) -> Array:
        output: Any = Bert(config).apply({"params": params}, batch, train=False)
        hidden_BTE = output.hidden_states[config.num_layers]
        return mean_of_tokens(hidden_BTE.astype(jnp.float32), batch.where_BT)

    return jax.jit(forward)


def encode(
    config: BertConfig, params: Params, table: TokenTable, *, lengths: Sequence[int] = ()
) -> np.ndarray:
    """float32 [I, E], see ``vectors_of``.

    Args:
      lengths: that rows are padded to; by default what suits the table.
    """
    compiled = vectors_of(config)
    lengths = lengths or choose_lengths(table.lengths_N, batch_size=BATCH, max_shapes=2)
    vectors_IE = np.empty((len(table), config.hidden_size), np.float32)
    for planned in plan_in_order(table.lengths_N, lengths, batch_size=BATCH):
        batch = table.batch(planned.rows, planned.length, BATCH)
        vectors_IE[planned.rows] = np.asarray(compiled(params, batch))[: len(planned.rows)]
    return vectors_IE
