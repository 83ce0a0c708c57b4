"""Several speakers as one: each says its own part of the rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from distill_jax.core.types import Batch

Speaker = Callable[[Batch], Any]


def by_part(speakers: Sequence[Speaker], counts: Sequence[int]) -> Speaker:
    """What several speakers say of one table.

    Args:
      speakers: the first one knows the first rows, and so on; each knows its own by their numbers
        from its first one on.
      counts: how many rows each knows.

    Returns:
      (batch) -> what each says of its rows. Who has none in a batch is not asked.
    """
    ends = np.cumsum(counts)

    def heard(batch: Batch) -> Any:
        rows_B = np.asarray(batch.example_ids_B)
        part_B = np.where(rows_B < 0, -1, np.searchsorted(ends, rows_B, side="right"))
        present = [int(part) for part in np.unique(part_B) if part >= 0] or [0]
        said: Any = None
        for part in present:
            own_B = part_B == part
            first = ends[part] - counts[part]
            word = speakers[part](_numbered(batch, np.where(own_B, rows_B - first, -1)))
            said = word if said is None else _where(own_B, word, said)
        return said

    return heard


def _where(chosen_B: np.ndarray, one: Any, other: Any) -> Any:
    """Of the chosen rows the one word, of all others the other."""

    def pick(own: Any, their: Any) -> Any:
        own, their = np.asarray(own), np.asarray(their)
        return np.where(chosen_B.reshape(-1, *[1] * (own.ndim - 1)), own, their)

    return jax.tree.map(pick, one, other)


def _numbered(batch: Batch, rows_B: np.ndarray) -> Batch:
    return batch.replace(example_ids_B=rows_B.astype(np.int32))  # type: ignore[attr-defined]
