"""Item-kNN: what is taken by the same users as the items of the history."""

import dataclasses

import numpy as np
from scipy import sparse

from distill_jax.core.errors import UserError
from distill_jax.models.recommenders.protocol import Asked, Trained

_BLOCK = 512


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


def fit_item_knn(split: Trained, *, neighbours: int = 100, shrink: float = 10.0) -> ItemKNN:
    """Cosine similarity of the items' users, shrunk where it rests on few of them.

    ``s_ij = c_ij / (sqrt(c_i c_j) + shrink)`` with c_ij the users of both: Sarwar et al.
    (WWW 2001) with the shrinkage of Ferrari Dacrema et al. (RecSys 2019). Of each item's
    neighbours the most similar are kept, equals by item number.

    Args:
      neighbours: how many.
      shrink: in interactions; 0 is the plain cosine.
    """
    if neighbours < 1 or not shrink >= 0:
        raise UserError(
            f"item-kNN: {neighbours} neighbours, shrink {shrink:g}; expected at least 1 and 0."
        )
    matrix_UI = split.train_matrix()
    users_IU = matrix_UI.T.tocsr()
    norms_I = np.sqrt(matrix_UI.sum(axis=0)).astype(np.float32)
    neighbours = min(neighbours, len(norms_I))
    columns, rows, values = [], [], []
    for start in range(0, len(norms_I), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(norms_I)))
        both_BI = (users_IU @ matrix_UI[:, block].toarray()).T
        norms_BI = norms_I[block][:, None] * norms_I[None, :] + np.float32(shrink)
        similar_BI = np.divide(both_BI, norms_BI, out=np.zeros_like(both_BI), where=both_BI > 0)
        similar_BI[np.arange(len(block)), block] = 0
        best_BN = np.argsort(-similar_BI, axis=1, kind="stable")[:, :neighbours]
        rows.append(best_BN.ravel())
        columns.append(np.repeat(block, neighbours))
        values.append(np.take_along_axis(similar_BI, best_BN, axis=1).ravel())
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    similarity_II = sparse.csr_array(entries, shape=(len(norms_I), len(norms_I)))
    similarity_II.eliminate_zeros()
    return ItemKNN(similarity_II)
