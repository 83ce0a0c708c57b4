"""Which training examples keep their labels: a fixed, stratified, nested choice."""

from typing import Protocol

import numpy as np

from distill_jax.core.digests import unit_interval
from distill_jax.core.errors import UserError


class Labelled(Protocol):
    """What a table needs here: ``TextTable`` and ``TokenTable`` have it."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    @property
    def labels_N(self) -> np.ndarray | None: ...


def labelled_rows(table: Labelled, fraction: float, *, salt: str = "labels") -> np.ndarray:
    """Rows of the labelled examples to use, in ascending order.

    Of every class, ``round(fraction * count)`` examples (at least one) are taken in the order
    of a hash of their ids. The choice therefore depends on no seed and on no position, and a
    smaller fraction is a subset of a larger one.

    Args:
      table: examples with ids and labels; -1 marks those without a label, never taken.
      fraction: share of every class, in (0, 1].
      salt: another word gives another, independent choice.

    Returns:
      int64 [M] rows.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"label fraction {fraction:g} is outside (0, 1].")
    labels_N = table.labels_N
    if labels_N is None or not (labels_N >= 0).any():
        raise UserError("the split has no labelled example to choose from.")
    key_N = np.fromiter(
        (unit_interval(f"{salt}/{example}") for example in table.ids), np.float64, len(labels_N)
    )
    chosen = []
    for label in np.unique(labels_N[labels_N >= 0]):
        rows = np.flatnonzero(labels_N == label)
        count = max(1, round(fraction * len(rows)))
        chosen.append(rows[np.argsort(key_N[rows], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))
