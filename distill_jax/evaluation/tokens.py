"""What models say of tokens, put beside what is asked of them.

Shapes: N examples, T tokens, S tokens of all examples, W tokens that are asked about.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distill_jax.data.images import ImageTable
from distill_jax.data.tokenise import TokenTable


def of_tokens(table: Any) -> TokenTable:
    """A table as one that asks about tokens, which its kind of task made it."""
    assert table.targets_S is not None
    return table


def padded_targets(table: TokenTable | ImageTable, length: int) -> np.ndarray:
    """int32 [N, T], what is asked of each token; -1 for nothing, behind the last one too."""
    table = of_tokens(table)
    targets_S: Any = table.targets_S
    padded_NT = np.full((len(table), length), -1, np.int32)
    row_S = np.repeat(np.arange(len(table)), table.lengths_N)
    token_S = np.arange(len(row_S)) - np.repeat(table.offsets_N1[:-1], table.lengths_N)
    padded_NT[row_S, token_S] = targets_S
    return padded_NT


def asked_about(
    said_NTC: np.ndarray, table: TokenTable | ImageTable
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [W, C] and targets int32 [W] of the tokens asked about, example by example."""
    targets_NT = padded_targets(table, said_NTC.shape[1])
    asked_NT = targets_NT >= 0
    return said_NTC[asked_NT], targets_NT[asked_NT]
