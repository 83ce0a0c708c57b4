"""A model that knows only the tokens that occur in its training.

Embeddings of other tokens get no gradient, so Adam leaves them alone and weight decay shrinks all
of them by one factor. Left out of the training they cost it nothing, and come back at its end by
that factor: the result is that of the whole table, within rounding. A row of ones that no token
reads is trained along; it is the factor, whatever steps were skipped.
"""

import dataclasses
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.types import Batch
from distill_jax.models.bert import Params


@dataclasses.dataclass(frozen=True, eq=False)
class OccurringTokens:
    """Which tokens occur, and where their embeddings are.

    Attributes:
      path: to the table of embeddings [V, D] in the model's parameters.
      tokens_R: of the V, ascending; every token id that a batch may hold.
    """

    path: tuple[str, ...]
    tokens_R: np.ndarray

    @property
    def count(self) -> int:
        """Rows of the smaller table: of the tokens, and the factor."""
        return len(self.tokens_R) + 1

    @cached_property
    def _row_of_token(self) -> np.ndarray:
        rows = np.full(self.tokens_R[-1] + 1, -1, np.int32)
        rows[self.tokens_R] = np.arange(len(self.tokens_R), dtype=np.int32)
        return rows

    def renumber(self, batch: Batch) -> Batch:
        """The batch as the smaller model reads it."""
        rows_BT: Any = self._row_of_token[np.asarray(batch.input_ids_BT)]
        return dataclasses.replace(batch, input_ids_BT=rows_BT)

    def cut(self, params: Params) -> Params:
        """The parameters of the smaller model."""
        table_VD = np.asarray(at(params, self.path))
        ones_1D = np.ones_like(table_VD[:1])
        return put_at(params, self.path, np.concatenate([table_VD[self.tokens_R], ones_1D]))

    def whole(self, params: Params, before: Params) -> Params:
        """The parameters of the whole model.

        Args:
          params: of the smaller one, in any state of its training.
          before: what was ``cut`` before the first step.
        """
        table_RD = np.asarray(at(params, self.path))
        whole_VD = np.asarray(at(before, self.path)) * table_RD[-1]
        whole_VD[self.tokens_R] = table_RD[:-1]
        return put_at(params, self.path, whole_VD)


def at(params: Params, path: tuple[str, ...]) -> Array:
    """What stands at a path."""
    for name in path:
        params = params[name]
    return params  # type: ignore[return-value]


def put_at(params: Params, path: tuple[str, ...], table: np.ndarray | Array) -> Params:
    """The same parameters with another table there."""
    first, *rest = path
    inner = put_at(params[first], tuple(rest), table) if rest else jnp.asarray(table)
    return {**params, first: inner}
