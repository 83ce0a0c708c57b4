"""Models under JAX as exports are asked: any number of rows and tokens, few shapes compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distill_jax.export.formats import Logits

STEP = 16
"""Batches have a multiple of so many tokens, and rows a power of two."""


def rows_compiled(rows: int) -> int:
    """The rows of the shape that is compiled for a batch."""
    return 1 << (rows - 1).bit_length()


def roomy(rows: int, length: int, longest: int) -> tuple[int, int]:
    """Rows and tokens of the shape that is compiled for a batch.

    Args:
      longest: tokens that the model takes.
    """
    return rows_compiled(rows), max(length, min(-(-length // STEP) * STEP, longest))


def padded(call: Callable[..., Any], longest: int) -> Logits:
    """The logits of a program that is compiled for each shape.

    Args:
      call: (input_ids, attention_mask, token_type_ids), int32 [B, T] -> logits [B, C], or
        [B, T, C].
      longest: tokens that it takes.
    """

    def logits(ids_BT: np.ndarray, types_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        rows, length = ids_BT.shape
        high, wide = roomy(rows, length, longest)
        more = ((0, high - rows), (0, wide - length))
        arrays = (np.pad(x, more).astype(np.int32) for x in (ids_BT, mask_BT, types_BT))
        said = np.asarray(call(*arrays), np.float32)[:rows]
        return said[:, :length] if said.ndim == 3 else said

    return logits
