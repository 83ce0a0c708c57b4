"""EASE: a linear autoencoder of histories without a diagonal, solved exactly.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from distill_jax.core.errors import UserError
from distill_jax.models.recommenders.protocol import Asked, Trained

MAX_ITEMS = 30_000
"""Their items x items weights take 3.4 GiB, and the time grows with the cube."""
WHOLE, BLOCK, ROWS = 8192, 512, 2048
"""Up to so many items the matrix is inverted at once; else in blocks of so many items, each taken
out of so many rows at a time, a whole number of blocks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Ease:
    """Scores are sums of learned weights from the items of the history.

    Attributes:
      weights_II: float32 [I, I]; row i is what item i of a history says for every item.
    """

    weights_II: np.ndarray

    def scores(self, histories: Asked) -> np.ndarray:
        """float32 [E, I]."""
        return histories.matrix() @ self.weights_II


def fit_ease(
    split: Trained, *, regularisation: float = 500.0, on_block: Callable[[], None] = lambda: None
) -> Ease:
    """Minimise ``|X - X B|^2 + regularisation |B|^2`` over B with a zero diagonal.

    Steck (2019), eq. 8: ``P = (X^T X + regularisation)^-1``, ``B_ij = -P_ij / P_jj``. One matrix of
    items x items is held.

    Args:
      regularisation: lambda; 500 is the paper's choice for MovieLens-20M.
      on_block: called every few seconds; may raise to stop.

    Raises:
      UserError: for a lambda that is not positive, or too many items for a dense solution.
    """
    if not regularisation > 0:
        raise UserError(f"EASE: regularisation is {regularisation:g}; expected more than 0.")
    matrix_UI = split.train_matrix()
    if matrix_UI.shape[1] > MAX_ITEMS:
        raise UserError(
            f"EASE needs a dense matrix of items by items; {matrix_UI.shape[1]} items are more "
            f"than {MAX_ITEMS}. Drop rare items (--k-core) or take item_knn."
        )
    weights_II = _gram(matrix_UI, on_block)
    weights_II[np.diag_indices(len(weights_II))] += np.float32(regularisation)
    invert(weights_II, on_block)
    weights_II /= -np.diag(weights_II)[None]
    weights_II[np.diag_indices(len(weights_II))] = 0
    return Ease(weights_II)


def _gram(matrix_UI: sparse.csr_array, on_block: Callable[[], None]) -> np.ndarray:
    """float32 [I, I], how many users took both items; a few rows at a time are sparse."""
    users_IU = matrix_UI.T.tocsr()
    gram_II = np.empty((matrix_UI.shape[1],) * 2, np.float32)
    for start in range(0, len(gram_II), BLOCK):
        rows = slice(start, start + BLOCK)
        gram_II[rows] = (users_IU[rows] @ matrix_UI).toarray()
        on_block()
    return gram_II


def invert(matrix_II: np.ndarray, on_block: Callable[[], None] = lambda: None) -> None:
    """Puts the inverse of a symmetric, positive definite float32 matrix in its place.

    By sweeps (Goodnight, "A Tutorial on the SWEEP Operator", The American Statistician 1979), a
    block of items at a time: ``A_KK -> -D`` with ``D = A_KK^-1``, ``A_iK -> A_iK D``,
    ``A_ij -> A_ij - A_iK D A_Kj``; when all blocks are swept the negative inverse is left. Only the
    lower half is computed.

    Raises:
      UserError: where there is none.
    """
    count = len(matrix_II)
    if count <= WHOLE:
        matrix_II[:] = _inverse(matrix_II)
        return
    for start in range(0, count, BLOCK):
        block = slice(start, min(start + BLOCK, count))
        beside_IK = np.concatenate([matrix_II[block, :start].T, matrix_II[start:, block]])
        inverse_KK = _inverse(matrix_II[block, block])
        swept_IK = beside_IK @ inverse_KK
        swept_IK[block], beside_IK[block] = 0, 0
        for first in range(0, count, ROWS):
            rows, upto = slice(first, first + ROWS), min(first + ROWS, count)
            matrix_II[rows, :upto] -= swept_IK[rows] @ beside_IK[:upto].T
            on_block()
        matrix_II[block, :start] = swept_IK[:start].T
        matrix_II[start:, block] = swept_IK[start:]
        matrix_II[block, block] = -inverse_KK
    for first in range(0, count, ROWS):  # the upper half, and the sign
        rows, upto = slice(first, first + ROWS), min(first + ROWS, count)
        lower_RC = np.negative(matrix_II[rows, :upto])
        own_RR = np.tril(lower_RC[:, first:])
        lower_RC[:, first:] = own_RR + np.tril(own_RR, -1).T
        matrix_II[rows, :upto] = lower_RC
        matrix_II[:first, rows] = lower_RC[:, :first].T


def _inverse(matrix_KK: np.ndarray) -> np.ndarray:
    """float32, of a block whose lower half counts."""
    factor_KK, failed = lapack.spotrf(np.asfortranarray(matrix_KK), lower=True, overwrite_a=True)
    if failed:
        raise UserError("EASE: no solution with this regularisation; raise it.")
    inverse_KK, _ = lapack.spotri(factor_KK, lower=True, overwrite_c=True)
    return np.tril(inverse_KK) + np.tril(inverse_KK, -1).T
