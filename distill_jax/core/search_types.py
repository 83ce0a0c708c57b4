"""What search models read and say: ``ListBatch``, ``SearchOutput``.

Shape suffixes beside those of ``types``: N products of a query's list, D width of the vectors.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct
from jax import Array

from distill_jax.core.types import Examples, Output


@struct.dataclass
class ListBatch(Examples):
    """Queries of one step, each with a list of products.

    Models with two towers read queries and products, a cross-encoder reads pairs; what the model
    of a run does not read is None. Everything has a row a query, so that a batch can be cut.

    Attributes:
      example_ids_B: int32 [B], the query's number, -1 for a row of padding.
      items_BN: int32 [B, N], the numbers of the list's products; any where there is none.
      there_BN: bool [B, N], False where the list is shorter than N.
      labels_B: int32 [B], the place of the relevant product in its list (always 0).
      label_where_B: bool [B], True for lists whose first product was judged relevant (False:
        transfer set, where a teacher thinks so).
      other_where_BB: bool [B, B]; [b, c] says that the first product of list c is wrong for query
        b: neither judged relevant for it nor part of its list.
      query_ids_BT, query_where_BT: int32 and bool [B, T], the query's tokens.
      item_ids_BNT, item_where_BNT: int32 and bool [B, N, T], the products' tokens.
      pair_ids_BNT, pair_types_BNT, pair_where_BNT: query and product as one text.
      prior_BN: float32 [B, N], what a retriever says of the pairs, for a cross-encoder to correct.
    """

    example_ids_B: Array
    items_BN: Array
    there_BN: Array
    labels_B: Array
    label_where_B: Array
    other_where_BB: Array
    query_ids_BT: Any = None
    query_where_BT: Any = None
    item_ids_BNT: Any = None
    item_where_BNT: Any = None
    pair_ids_BNT: Any = None
    pair_types_BNT: Any = None
    pair_where_BNT: Any = None
    prior_BN: Any = None


@struct.dataclass
class SearchOutput(Output):
    """What a model, or a cache of its scores, says of lists.

    Attributes:
      scores_BN: [B, N], of each query's own list; -inf where nothing is said of a product.
      queries_BD, items_BND: vectors of two towers (``scale`` included); None of a cross-encoder.
      others_BB: [B, B], scores of the first products of the other lists, where known; -inf where
        not. None where nothing is known; two towers need none, as their vectors tell.
    """

    scores_BN: Array
    queries_BD: Array | None = None
    items_BND: Array | None = None
    others_BB: Array | None = None

    @property
    def scores(self) -> Array:
        """See ``Output.scores``: those of the query's own list."""
        return self.scores_BN


@dataclasses.dataclass(frozen=True)
class SearchCapture:
    """What an objective needs of a ``SearchOutput``: vectors only where it looks across lists."""

    vectors: bool = False

    def select(self, output: SearchOutput) -> SearchOutput:
        """The wanted parts of ``output`` (scores always)."""
        if self.vectors:
            return output
        return SearchOutput(scores_BN=output.scores_BN)
