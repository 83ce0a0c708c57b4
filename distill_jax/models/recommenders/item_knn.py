"""Item-kNN: what is taken by the same users as the items of the history."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from scipy import sparse

from distill_jax.core.errors import UserError
from distill_jax.models.recommenders.protocol import Asked, Trained

_BLOCK = 2**24
"""Pairs of items that are counted at a time, unless one item alone has more."""


@dataclasses.dataclass(frozen=True, eq=False)
class ItemKNN:
    """Scores are sums of similarities with the items of the history.

    Attributes:
      similarity_II: float32 [I, I], sparse; column j holds the neighbours of item j.
    """

    similarity_II: sparse.csr_array

    def scores(self, histories: Asked) -> np.ndarray:
        """float32 [E, I]."""
        return (histories.matrix() @ self.similarity_II).toarray()


def fit_item_knn(
    split: Trained,
    *,
    neighbours: int = 100,
    shrink: float = 10.0,
    on_block: Callable[[], None] = lambda: None,
) -> ItemKNN:
    """Cosine similarity of the items' users, shrunk where it rests on few of them.

    ``s_ij = c_ij / (sqrt(c_i c_j) + shrink)`` with c_ij the users of both: Sarwar et al.
    (WWW 2001) with the shrinkage of Ferrari Dacrema et al. (RecSys 2019). Of each item's
    neighbours the most similar are kept, equals by item number. Only pairs that somebody took
    together are looked at, a block of items at a time.

    Args:
      neighbours: how many.
      shrink: in interactions; 0 is the plain cosine.
      on_block: called after every block; may raise to stop.
    """
    if neighbours < 1 or not shrink >= 0:
        raise UserError(
            f"item-kNN: {neighbours} neighbours, shrink {shrink:g}; expected at least 1 and 0."
        )
    matrix_UI = split.train_matrix()
    users_IU = matrix_UI.T.tocsr()
    norms_I = np.sqrt(matrix_UI.sum(axis=0)).astype(np.float32)
    columns, rows, values = [], [], []
    for block in _blocks(users_IU @ np.diff(matrix_UI.indptr)):
        both = (users_IU[block] @ matrix_UI).tocoo()
        items, others = both.row + block.start, both.col
        counts = both.data.astype(np.float32)
        similar = counts / (norms_I[items] * norms_I[others] + np.float32(shrink))
        kept = _nearest(items, others, np.where(items == others, 0, similar), neighbours)
        rows.append(others[kept])
        columns.append(items[kept])
        values.append(similar[kept])
        on_block()
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return ItemKNN(sparse.csr_array(entries, shape=(len(norms_I), len(norms_I))))


def _blocks(pairs_I: np.ndarray) -> Iterator[slice]:
    """Items in a row that have about ``_BLOCK`` pairs together, at least one each."""
    before_I = np.concatenate([[0], np.cumsum(pairs_I, dtype=np.int64)])
    start = 0
    while start < len(pairs_I):
        stop = int(np.searchsorted(before_I, before_I[start] + _BLOCK, side="right")) - 1
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def _nearest(
    items: np.ndarray, others: np.ndarray, similar: np.ndarray, neighbours: int
) -> np.ndarray:
    """Where the most similar ones of each item stand; those that are not similar are none."""
    order = np.lexsort((others, -similar, items))
    first = np.searchsorted(items[order], items[order])
    kept = order[np.arange(len(order)) - first < neighbours]
    return kept[similar[kept] > 0]
