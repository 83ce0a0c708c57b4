"""Batches of language models, by hand."""

import numpy as np

from distill_jax.core.language_types import LanguageBatch

IDS = np.array([[2, 7, 4, 9, 3, 0], [2, 11, 12, 4, 13, 3]], np.int32)
POSITIONS = np.array([[2, 3], [3, 0]], np.int32)


def batch_of(ids=IDS, positions=POSITIONS, asked=None):
    """The tokens at some positions are asked for."""
    ids, positions = np.asarray(ids, np.int32), np.asarray(positions, np.int32)
    asked = np.ones(positions.shape, bool) if asked is None else np.asarray(asked)
    return LanguageBatch(
        example_ids_B=np.arange(len(ids), dtype=np.int32),
        input_ids_BT=ids,
        token_type_ids_BT=np.zeros_like(ids),
        where_BT=ids > 0,
        labels_B=np.zeros(len(ids), np.int32),
        label_where_B=np.zeros(len(ids), bool),
        positions_BP=positions,
        targets=np.where(asked, np.take_along_axis(ids, positions, axis=1), np.int32(-1)),
    )
