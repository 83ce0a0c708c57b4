"""How well products are found: exact retrieval over the whole catalogue, and metrics a query.

Ties are broken by the product's number, everywhere. Suffixes: Q queries, I products, K places.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.data.plan import choose_lengths, make_batch, plan_in_order
from distill_jax.data.query_product import SearchData
from distill_jax.data.tokenise import TokenTable
from distill_jax.evaluation.recommend import top_items
from distill_jax.models.two_tower import Side, TwoTower

PROTOCOL = (
    "Retrieval over all products, exact; ties by the product's number; a product that nobody "
    "judged counts as irrelevant. nDCG@k takes the gains as they are, divided by log2(1 + place), "
    "over the best that the judgements allow; for MRR@k and recall@k a product is relevant from "
    "half of the data's highest gain on. Queries without such a product are left out."
)
"""What stands beside every number."""


@dataclass(frozen=True)
class SearchScores:
    """Metrics of queries, in the order of ``queries``.

    Attributes:
      queries: int32 [Q], those with a relevant product.
      by_query: name (``ndcg@10`` ...) -> float64 [Q].
    """

    queries: np.ndarray
    by_query: dict[str, np.ndarray]

    @property
    def means(self) -> dict[str, float]:
        """The mean over queries, by name."""
        return {name: float(values.mean()) for name, values in self.by_query.items()}


def exact_top_k(
    queries_QD: np.ndarray, items_ID: np.ndarray, k: int, *, block: int = 1024
) -> tuple[np.ndarray, np.ndarray]:
    """The k products of the largest inner products, best first.

    Args:
      queries_QD, items_ID: vectors.
      k: at most the number of products counts.
      block: queries scored at a time.

    Returns:
      int32 [Q, K] product numbers and their scores, float32.
    """
    if k < 1:
        raise UserError(f"k must be at least 1, not {k}.")
    parts = [
        top_k(np.asarray(queries_QD[start : start + block] @ items_ID.T, np.float32), k)
        for start in range(0, len(queries_QD), block)
    ]
    if not parts:
        return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)
    items, scores = zip(*parts, strict=True)
    return np.concatenate(items), np.concatenate(scores)


def top_k(scores_QI: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest scores of each row, ties by number: int32 [Q, K], float32 [Q, K]."""
    items_QK = top_items(scores_QI, min(k, scores_QI.shape[1]))
    return items_QK, np.take_along_axis(scores_QI, items_QK, axis=1)


def retrieval_scores(
    data: SearchData,
    queries: np.ndarray,
    top_QK: np.ndarray,
    *,
    ndcg_at: Sequence[int] = (10,),
    mrr_at: Sequence[int] = (10,),
    recall_at: Sequence[int] = (10, 100),
) -> SearchScores:
    """Metrics of what was retrieved, see ``PROTOCOL``.

    Args:
      queries: int32 [Q], query numbers.
      top_QK: int32 [Q, K], the products found for them, best first; a cut-off above K sees K.
    """
    least = relevant_from(data)
    kept, rows = [], []
    for query, found in zip(queries, top_QK, strict=True):
        judged, gains = data.judged(int(query))
        relevant = judged[gains >= least]
        if not len(relevant):
            continue
        gain_of = dict(zip(judged.tolist(), gains.tolist(), strict=True))
        found_gains = np.array([gain_of.get(item, 0.0) for item in found.tolist()])
        hits = np.isin(found, relevant)
        first = int(np.argmax(hits)) + 1 if hits.any() else 0
        row = {f"ndcg@{k}": ndcg(found_gains, gains, k) for k in ndcg_at}
        row |= {f"mrr@{k}": 1 / first if 0 < first <= k else 0.0 for k in mrr_at}
        row |= {f"recall@{k}": float(hits[:k].sum() / len(relevant)) for k in recall_at}
        kept.append(query)
        rows.append(row)
    if not rows:
        raise UserError(f"data {data.name!r}: none of these queries has a relevant product.")
    by_query = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return SearchScores(np.array(kept, np.int32), by_query)


def ndcg(found_gains_K: np.ndarray, judged_gains: np.ndarray, k: int) -> float:
    """``DCG(found) / DCG(best)`` at k with ``DCG = sum_i gain_i / log2(1 + i)``, i from 1.

    Järvelin and Kekäläinen 2002, "Cumulated Gain-Based Evaluation of IR Techniques", with gains as
    given. 0 where nothing is relevant.
    """

    def dcg(gains: np.ndarray) -> float:
        gains = np.asarray(gains, np.float64)[:k]
        return float(np.sum(gains / np.log2(2 + np.arange(len(gains)))))

    best = dcg(np.sort(judged_gains)[::-1])
    return dcg(found_gains_K) / best if best > 0 else 0.0


def relevant_from(data: SearchData) -> float:
    """The gain from which a product counts as relevant: half of the highest one."""
    highest = float(np.nanmax(data.gains_J, initial=0.0))
    if highest <= 0:
        raise UserError(f"data {data.name!r}: no product is relevant to any query.")
    return highest / 2


@dataclass(frozen=True)
class Encoder:
    """Vectors of whole tables by a two-tower model; compiled once a shape.

    Attributes:
      model: whose ``encode`` is asked.
      batch_size: texts at a time.
      lengths: that texts are padded to; () for what suits each table.
    """

    model: TwoTower
    batch_size: int = 128
    lengths: tuple[int, ...] = ()

    @functools.cached_property
    def _apply(self) -> Callable[..., Array]:
        def encode(params: Any, ids_BT: Array, where_BT: Array, side: Side) -> Array:
            return self.model.apply(
                {"params": params}, ids_BT, where_BT, side=side, method="encode"
            )  # type: ignore[return-value]

        return jax.jit(encode, static_argnames="side")

    def __call__(self, params: Any, table: TokenTable, side: Side) -> np.ndarray:
        """Vectors [N, D], float32, in the order of the table."""
        lengths = self.lengths or choose_lengths(
            table.lengths_N, batch_size=self.batch_size, max_shapes=3
        )
        vectors_ND = np.empty((len(table), self.model.config.vector_size), np.float32)
        for planned in plan_in_order(table.lengths_N, lengths, batch_size=self.batch_size):
            batch = make_batch(table, planned, batch_size=self.batch_size)
            said_BD = self._apply(params, batch.input_ids_BT, batch.where_BT, side)
            vectors_ND[planned.rows] = np.asarray(said_BD)[: len(planned.rows)]
        return vectors_ND
