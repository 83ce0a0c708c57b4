"""A cross-encoder for search: the house's BERT reads query and product as one text, and scores.

Nogueira and Cho 2019, "Passage Re-ranking with BERT". Every token of the query sees every token of
the product, which is why it judges well, and why it has to run once a pair.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.search_types import ListBatch, SearchOutput
from distill_jax.core.types import as_batch
from distill_jax.models.bert import Bert, BertConfig
from distill_jax.models.dropout import rows_of_lists
from distill_jax.models.family import Family, register


@dataclasses.dataclass(frozen=True)
class CrossEncoderConfig:
    """A BERT with one output."""

    encoder: BertConfig

    def __post_init__(self) -> None:
        check_fields(self)
        if self.encoder.num_labels != 1:
            raise UserError(
                f"a cross-encoder has one output, not {self.encoder.num_labels} (num_labels)."
            )
        if self.encoder.type_vocab_size < 2:
            raise UserError(
                "a cross-encoder needs two token types, one for query and product each."
            )


class CrossEncoder(nn.Module):
    """Scores of lists. Its parameters are those of ``Bert(config.encoder)``, under ``encoder``."""

    config: CrossEncoderConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: ListBatch, *, train: bool = False) -> SearchOutput:
        """Scores [B, N], on top of the batch's prior; -inf where the list has no product."""
        if batch.pair_ids_BNT is None:
            raise UserError("a cross-encoder reads pairs: make lists of kind 'pairs'.")
        B, N, T = batch.pair_ids_BNT.shape
        parts = batch.pair_ids_BNT, batch.pair_where_BNT, batch.pair_types_BNT
        flat = [part.reshape(B * N, T) for part in parts]
        encoder = Bert(self.config.encoder, self.dtype, name="encoder")
        with rows_of_lists(N):
            scores_M1: Any = encoder(as_batch(*flat), train=train).logits_BC
        scores_BN = scores_M1.reshape(B, N)
        if batch.prior_BN is not None:
            scores_BN = scores_BN + batch.prior_BN
        return SearchOutput(scores_BN=jnp.where(batch.there_BN, scores_BN, -jnp.inf))


register(Family("cross_encoder", CrossEncoderConfig, CrossEncoder))
