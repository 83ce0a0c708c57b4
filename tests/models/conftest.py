"""A small BERT, and batches for it."""

import numpy as np
import pytest

from distill_jax.core.types import Batch
from distill_jax.models.bert import BertConfig


@pytest.fixture
def small_config():
    return BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_layers=3,
        num_heads=2,
        intermediate_size=24,
        max_positions=12,
        initializer_range=0.3,  # large enough that every part matters
        num_labels=3,
    )


@pytest.fixture
def make_batch():
    """Random tokens of the given lengths, padded to ``width``; rows of length 0 are padding."""

    def make(lengths, width, *, vocab_size=50, seed=0):
        rows = len(lengths)
        # One stream a row: the same row holds the same tokens however far it is padded.
        rngs = [np.random.default_rng((seed, row)) for row in range(rows)]
        tokens = np.stack([rng.integers(1, vocab_size, 512)[:width] for rng in rngs])
        types = np.stack([rng.integers(0, 2, 512)[:width] for rng in rngs])
        where = np.arange(width)[None] < np.asarray(lengths)[:, None]
        real = np.asarray(lengths) > 0
        return Batch(
            example_ids_B=np.where(real, np.arange(rows), -1).astype(np.int32),
            input_ids_BT=np.where(where, tokens, 0).astype(np.int32),
            token_type_ids_BT=np.where(where, types, 0).astype(np.int32),
            where_BT=where,
            labels_B=np.zeros(rows, np.int32),
            label_where_B=real,
        )

    return make
