"""Two speakers as one: of the first rows of a table one says, of the others the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from distill_jax.core.types import Batch

Speaker = Callable[[Batch], Any]


def by_part(first: Speaker, second: Speaker, border: int) -> Speaker:
    """What two speakers say of one table.

    Args:
      first: knows the rows below ``border`` by their numbers.
      second: knows those from ``border`` on, by their numbers from there.

    Returns:
      (batch) -> what the one says of its rows, and the other of the others.
    """

    def heard(batch: Batch) -> Any:
        rows_B = np.asarray(batch.example_ids_B)
        ours_B = (rows_B >= 0) & (rows_B < border)
        theirs_B = rows_B >= border
        one = first(_numbered(batch, np.where(ours_B, rows_B, -1)))
        other = second(_numbered(batch, np.where(theirs_B, rows_B - border, -1)))

        def pick(own: Any, their: Any) -> Any:
            own, their = np.asarray(own), np.asarray(their)
            return np.where(theirs_B.reshape(-1, *[1] * (own.ndim - 1)), their, own)

        return jax.tree.map(pick, one, other)

    return heard


def _numbered(batch: Batch, rows_B: np.ndarray) -> Batch:
    return batch.replace(example_ids_B=rows_B.astype(np.int32))  # type: ignore[attr-defined]
