"""Training lists of search: candidates of each query, and at each step a few of them in a batch.

Suffixes: Q queries, M candidates of a query, R rows of the table (training queries), N places of a
list, I products.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.errors import UserError
from distill_jax.core.search_types import ListBatch
from distill_jax.data.draws import draw_below, draw_unit
from distill_jax.data.plan import PADDING_ID, filled
from distill_jax.data.query_product import TRANSFER, SearchData
from distill_jax.data.tokenise import TokenTable

Kind = Literal["towers", "pairs"]
FIRST, REST, RANDOM = range(3)
"""What a draw is for."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Products that may stand in a query's lists.

    Attributes:
      items_QM: int32 [Q, M], product numbers, -1 where there are no more.
      gains_QM: float32 [Q, M], NaN where nobody judged (queries of the transfer set).
    """

    items_QM: np.ndarray
    gains_QM: np.ndarray

    @functools.cached_property
    def digest(self) -> str:
        """Digest of products and gains."""
        return digest_arrays({"items": self.items_QM, "gains": self.gains_QM})


def choose_candidates(
    data: SearchData,
    found: Callable[[np.ndarray], np.ndarray],
    *,
    size: int,
    random_share: float = 0.5,
) -> Candidates:
    """The candidates of training and transfer queries; other queries have none.

    Judged and given products first (the relevant ones in at most half of the places), then what a
    retriever finds, as hard negatives (Xiong et al. 2021, "Approximate Nearest Neighbor Negative
    Contrastive Learning"), and products drawn from all: among what it finds alone, a retriever's
    word would be worth nothing. On a training query, what nobody judged has gain 0.

    Args:
      found: query numbers [R] -> products [R, K] that a retriever finds for them, best first.
      size: M, at least 2.
      random_share: of the places left by judged products, those for products drawn from all; the
        draw is the same in every run.
    """
    if size < 2 or not 0 <= random_share <= 1:
        raise UserError(
            f"a query needs at least 2 candidates and a random share in [0, 1], not {size} and "
            f"{random_share}."
        )
    items_QM = np.full((len(data.queries), size), -1, np.int32)
    gains_QM = np.full((len(data.queries), size), np.nan, np.float32)
    labelled, transfer = data.splits["train"], data.splits.get(TRANSFER, np.zeros(0, np.int32))
    queries = np.concatenate([labelled, transfer])
    retrieved_RK = found(queries)
    for row, query in enumerate(queries):
        judged, gains = data.judged(query) if row < len(labelled) else ((), ())
        gain_of = dict(zip(np.asarray(judged).tolist(), np.asarray(gains).tolist(), strict=True))
        relevant = [item for item, gain in gain_of.items() if gain > 0]
        wrong = [item for item, gain in gain_of.items() if gain <= 0]
        listed = [*relevant[: size // 2], *data.unjudged(query).tolist(), *wrong]
        out = {*gain_of, *listed}
        hard = [item for item in retrieved_RK[row].tolist() if item not in out]
        places = round((size - min(len(listed), size)) * (1 - random_share))
        drawn = draw_below(len(data.items), RANDOM, int(query), np.arange(4 * size)).tolist()
        easy = [item for item in drawn if item not in out]
        chosen = list(dict.fromkeys([*listed, *hard[:places], *easy, *hard[places:]]))[:size]
        items_QM[query, : len(chosen)] = chosen
        if row < len(labelled):
            gains_QM[query, : len(chosen)] = [gain_of.get(item, 0.0) for item in chosen]
    return Candidates(items_QM, gains_QM)


@dataclass(frozen=True, eq=False)
class ListTable:
    """The training queries as ``training.feed`` reads them, and the draws that make their lists.

    A list starts with a product that is relevant: of a training query one that was judged so,
    drawn anew each time; of a transfer query the one of its list that the teacher scores highest.
    The rest are candidates that are less relevant, drawn without replacement.

    Attributes:
      data: queries, products, judgements.
      queries, items: tokens of all queries and all products.
      candidates: of every training query.
      list_size: N.
      kind: what the model reads: ``towers`` or ``pairs``.
      use_transfer: whether the transfer set is among the rows.
      scores_QM: float32 [Q, M], the teacher's scores of the candidates, -inf where it is silent;
        needed for the transfer set.
      prior: vectors of all queries and all products whose inner products are what a retriever
        says of pairs; lists of pairs carry it where it is given.
    """

    data: SearchData
    queries: TokenTable
    items: TokenTable
    candidates: Candidates
    list_size: int
    kind: Kind = "towers"
    use_transfer: bool = False
    scores_QM: np.ndarray | None = None
    prior: tuple[np.ndarray, np.ndarray] | None = None
    rows_Q: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 2 <= self.list_size <= self.candidates.items_QM.shape[1]:
            raise UserError(
                f"a list has 2 to {self.candidates.items_QM.shape[1]} products (the candidates of "
                f"a query), not {self.list_size}."
            )
        if self.use_transfer and self.scores_QM is None:
            raise UserError(
                "queries without judgements need a teacher's scores of their candidates."
            )
        rows = [q for q in self.data.splits["train"] if (self.candidates.gains_QM[q] > 0).any()]
        if not rows:
            raise UserError(f"data {self.data.name!r}: no training query has a relevant product.")
        if self.use_transfer:
            rows += list(self.data.splits.get(TRANSFER, ()))
        object.__setattr__(self, "rows_Q", np.array(rows, np.int32))

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of all queries, by the example ids of batches."""
        return self.data.query_ids

    @functools.cached_property
    def lengths_N(self) -> np.ndarray:
        """int64 [R], one length for all: queries are short."""
        return np.full(len(self), self.query_length, np.int64)

    @functools.cached_property
    def query_length(self) -> int:
        """Tokens of the longest query."""
        return int(self.queries.lengths_N.max())

    @functools.cached_property
    def item_length(self) -> int:
        """Tokens of the longest product."""
        return int(self.items.lengths_N.max())

    @functools.cached_property
    def digest(self) -> str:
        """Digest of all that decides the lists of a seed."""
        arrays = {} if self.scores_QM is None else {"scores": self.scores_QM}
        arrays |= {} if self.prior is None else dict(zip("qi", self.prior, strict=True))
        return digest(
            {
                "data": self.data.digest,
                "tokens": [self.queries.digest, self.items.digest],
                "candidates": self.candidates.digest,
                "list_size": self.list_size,
                "use_transfer": self.use_transfer,
                "arrays": digest_arrays(arrays),
            }
        )

    def __len__(self) -> int:
        return len(self.rows_Q)

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> ListBatch:
        """The queries of ``rows`` with lists that are still empty: ``draw`` fills them."""
        shape = (batch_size, self.list_size)
        arrays: dict[str, Any] = {
            "example_ids_B": filled(self.rows_Q[rows], batch_size, PADDING_ID),
            "items_BN": np.zeros(shape, np.int32),
            "there_BN": np.zeros(shape, bool),
            "labels_B": np.zeros(batch_size, np.int32),
            "label_where_B": np.zeros(batch_size, bool),
            "other_where_BB": np.zeros((batch_size, batch_size), bool),
        }
        return ListBatch(**arrays)

    def draw(self, batch: ListBatch, seed: int, step: int) -> ListBatch:
        """The lists of a step, with their tokens: a pure function of (seed, step, query)."""
        query_B = np.maximum(np.asarray(batch.example_ids_B), 0)
        real_B1 = (np.asarray(batch.example_ids_B) >= 0)[:, None]
        items_BM = self.candidates.items_QM[query_B]
        gains_BM = self.candidates.gains_QM[query_B]
        known_BM = (items_BM >= 0) & real_B1
        column_M = np.arange(items_BM.shape[1])[None, :]
        luck_BM = draw_unit(seed, step, FIRST, query_B[:, None], column_M)
        relevant_BM = known_BM & (gains_BM > 0)
        labelled_B = relevant_BM.any(axis=1)
        first_B = np.argmax(np.where(relevant_BM, 1 + luck_BM, 0), axis=1)
        first_gain_B1 = np.take_along_axis(gains_BM, first_B[:, None], axis=1)
        rest_BM = known_BM & np.where(labelled_B[:, None], gains_BM < first_gain_B1, True)
        luck_BM = draw_unit(seed, step, REST, query_B[:, None], column_M)
        # In the order of the list: the relevant one, then the others by luck, then what is out.
        key_BM = np.where(rest_BM, 1 + luck_BM, 3.0)
        key_BM[labelled_B, first_B[labelled_B]] = 0.0
        place_BN = np.argsort(key_BM, axis=1, kind="stable")[:, : self.list_size]
        there_BN = np.take_along_axis(key_BM, place_BN, axis=1) < 3
        if self.scores_QM is not None:
            place_BN = self._best_first(query_B, place_BN, there_BN, labelled_B)
        items_BN = np.where(there_BN, np.take_along_axis(items_BM, place_BN, axis=1), 0)
        items_BN = items_BN.astype(np.int32)
        arrays: dict[str, Any] = {
            "items_BN": items_BN,
            "there_BN": there_BN,
            "label_where_B": labelled_B & real_B1[:, 0],
            "other_where_BB": self._others(query_B, items_BN, there_BN, labelled_B),
            **self._tokens(query_B, items_BN, there_BN),
        }
        return batch.replace(**arrays)  # type: ignore[attr-defined]

    def _best_first(
        self,
        query_B: np.ndarray,
        place_BN: np.ndarray,
        there_BN: np.ndarray,
        labelled_B: np.ndarray,
    ) -> np.ndarray:
        """The places of unlabelled lists with the teacher's favourite swapped to the front."""
        assert self.scores_QM is not None
        scores_BN = np.take_along_axis(self.scores_QM[query_B], place_BN, axis=1)
        best_B = np.argmax(np.where(there_BN, scores_BN, -np.inf), axis=1)
        row_B = np.flatnonzero(~labelled_B)
        swapped_BN = place_BN.copy()
        swapped_BN[row_B, 0] = place_BN[row_B, best_B[row_B]]
        swapped_BN[row_B, best_B[row_B]] = place_BN[row_B, 0]
        return swapped_BN

    def _others(
        self,
        query_B: np.ndarray,
        items_BN: np.ndarray,
        there_BN: np.ndarray,
        labelled_B: np.ndarray,
    ) -> np.ndarray:
        """Which first products of other lists are wrong for a query: see ``ListBatch``."""
        first_B = np.where(there_BN[:, 0], items_BN[:, 0], -1)
        wrong_BB = np.broadcast_to(first_B >= 0, (len(first_B), len(first_B))).copy()
        wrong_BB &= there_BN[:, :1]
        # Two lists may start with the same product, which then counts once.
        _, kept = np.unique(first_B, return_index=True)
        wrong_BB[:, np.setdiff1d(np.arange(len(first_B)), kept)] = False
        own_BNB = (items_BN[:, :, None] == first_B[None, None, :]) & there_BN[:, :, None]
        wrong_BB &= ~own_BNB.any(axis=1)
        for row in np.flatnonzero(labelled_B):
            judged, gains = self.data.judged(query_B[row])
            wrong_BB[row] &= ~np.isin(first_B, judged[gains > 0])
        return wrong_BB

    def _tokens(
        self, query_B: np.ndarray, items_BN: np.ndarray, there_BN: np.ndarray
    ) -> dict[str, Any]:
        """The token arrays that a model of this kind reads."""
        B, N = items_BN.shape
        queries = self.queries.batch(query_B, self.query_length, B)
        items = self.items.batch(items_BN.reshape(-1), self.item_length, B * N)
        item_ids_BNT = np.asarray(items.input_ids_BT).reshape(B, N, -1)
        item_where_BNT = np.asarray(items.where_BT).reshape(B, N, -1)
        # A place without a product keeps its first token: no softmax is over nothing.
        item_where_BNT = item_where_BNT & (
            there_BN[:, :, None] | (np.arange(self.item_length) == 0)
        )
        if self.kind == "towers":
            return {
                "query_ids_BT": queries.input_ids_BT,
                "query_where_BT": queries.where_BT,
                "item_ids_BNT": item_ids_BNT,
                "item_where_BNT": item_where_BNT,
            }
        prior = {}
        if self.prior is not None:
            prior["prior_BN"] = prior_scores(self.prior, query_B, items_BN)
        rows = [np.repeat(query_B, N), items_BN.reshape(-1)]
        pairs = pair_table(self.queries, self.items, *rows)
        both = pairs.batch(np.arange(B * N), self.query_length + self.item_length - 1, B * N)
        shape = (B, N, -1)
        return {
            "pair_ids_BNT": np.asarray(both.input_ids_BT).reshape(shape),
            "pair_types_BNT": np.asarray(both.token_type_ids_BT).reshape(shape),
            "pair_where_BNT": np.asarray(both.where_BT).reshape(shape),
            **prior,
        }


def prior_scores(
    vectors: tuple[np.ndarray, np.ndarray], query_B: np.ndarray, items_BK: np.ndarray
) -> np.ndarray:
    """float32 [B, K] inner products of queries' and products' vectors."""
    vectors_QD, vectors_ID = vectors
    return np.einsum("BD,BKD->BK", vectors_QD[query_B], vectors_ID[items_BK]).astype(np.float32)


def pair_table(
    queries: TokenTable, items: TokenTable, query_P: np.ndarray, item_P: np.ndarray
) -> TokenTable:
    """Pairs as one text each: ``[CLS] query [SEP] product [SEP]``, types 0 and 1.

    Queries and products are ``[CLS] text [SEP]`` both; a product's ``[CLS]`` is left out. For
    BERT's tokenisers this is what tokenising the pair gives.

    Args:
      query_P, item_P: rows of ``queries`` and ``items``, a pair each.
    """
    left, right = queries.take(query_P), items.take(item_P)
    right_lengths_P = right.lengths_N - 1
    lengths_P = left.lengths_N + right_lengths_P
    offsets = np.append(0, np.cumsum(lengths_P)).astype(np.int64)
    of_item = np.ones(offsets[-1], bool)
    of_item[np.repeat(offsets[:-1] - left.offsets_N1[:-1], left.lengths_N) + np.arange(
        left.offsets_N1[-1]
    )] = False  # fmt: skip
    first_of_item = np.zeros(len(right.tokens_S), bool)
    first_of_item[right.offsets_N1[:-1]] = True
    tokens_S = np.empty(offsets[-1], np.int32)
    tokens_S[~of_item] = left.tokens_S
    tokens_S[of_item] = right.tokens_S[~first_of_item]
    return TokenTable(
        ids=tuple(f"{n}" for n in range(len(lengths_P))),
        tokens_S=tokens_S,
        token_types_S=of_item.astype(np.int8),
        offsets_N1=offsets,
        labels_N=np.full(len(lengths_P), -1, np.int32),
    )
