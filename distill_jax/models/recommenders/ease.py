"""EASE: a linear autoencoder of histories without a diagonal, solved exactly.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
"""

import dataclasses

import numpy as np
from scipy.linalg import lapack

from distill_jax.core.errors import UserError
from distill_jax.models.recommenders.protocol import Asked, Trained

MAX_ITEMS = 40_000
"""Of [I, I] float32 matrices two are held at once: 13 GB at this size."""


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


def fit_ease(split: Trained, *, regularisation: float = 500.0) -> Ease:
    """Minimise ``|X - X B|^2 + regularisation |B|^2`` over B with a zero diagonal.

    Steck (2019), eq. 8: ``P = (X^T X + regularisation)^-1``, ``B_ij = -P_ij / P_jj``.

    Args:
      regularisation: lambda; 500 is the paper's choice for MovieLens-20M.

    Raises:
      UserError: for a lambda that is not positive, or too many items for a dense solution.
    """
    if not regularisation > 0:
        raise UserError(f"EASE: regularisation is {regularisation:g}; expected more than 0.")
    matrix_UI = split.train_matrix()
    if matrix_UI.shape[1] > MAX_ITEMS:
        raise UserError(
            f"EASE needs a dense matrix of items by items; {matrix_UI.shape[1]} items are more "
            f"than {MAX_ITEMS}. Drop rare items (min_item_count) or use item-kNN."
        )
    gram_II = (matrix_UI.T @ matrix_UI).toarray(order="F").astype(np.float32, copy=False)
    diagonal = np.diag_indices(len(gram_II))
    gram_II[diagonal] += np.float32(regularisation)
    factor_II, failed = lapack.spotrf(gram_II, lower=True, overwrite_a=True)
    if failed:
        raise UserError(f"EASE: no solution with regularisation {regularisation:g}; raise it.")
    inverse_II, _ = lapack.spotri(factor_II, lower=True, overwrite_c=True)
    inverse_II = np.tril(inverse_II) + np.tril(inverse_II, -1).T
    weights_II = inverse_II / -np.diag(inverse_II)
    weights_II[diagonal] = 0
    return Ease(np.ascontiguousarray(weights_II))
