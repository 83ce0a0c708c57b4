"""A recommender asked about the whole catalogue: ranks of the targets and lists to show.

Whatever gives scores [E, I] for ``Histories`` can be evaluated. The rules:

- all items of the catalogue compete, except those in the case's own history (the target itself
  always competes); where users take items again (``Interactions.repeats``), those too;
- a user of whom training has nothing is nobody to the model, as when it is in use;
- an item whose score equals the target's is put before it, so a model that cannot tell items
  apart gains nothing;
- in lists, of equal scores the lower item number comes first;
- a case whose scores hold NaN has rank 0, and its metrics are NaN.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.interactions import Cases, Histories, Interactions, RankingSplit
from distill_jax.evaluation import ranking

Scorer = Callable[[Histories], Any]
"""``scorer(histories) -> [E, I]``, higher is better; a numpy or JAX array of floats."""

BATCH = 256
MOST_SCORES = 2**24
"""Histories are asked about so few at a time that they have no more scores, 64 MiB."""

_log = logging.getLogger("distill_jax")


@dataclasses.dataclass(frozen=True, eq=False)
class RankedCases:
    """What one pass over the cases gives.

    Attributes:
      ranks_E: int32 [E], 1 is best, 0 where the scores held NaN.
      top_EK: int32 [E, K], the list that would be shown, best first; -1 where too few were left.
    """

    ranks_E: np.ndarray
    top_EK: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class RankingReport:
    """Figures of a recommender with what they mean.

    Attributes:
      protocol: how the data was divided and what was ranked; print it with every number.
      metrics: means over the cases, ``"ndcg@10"``, parts of them, ``"ndcg@10/tail"``, and those
        of the lists, ``"coverage@10"``. Sampled ones are called ``"sampled_ndcg@10"``.
      users_E: int32 [E], whose the cases are.
      ranked: ranks and lists.
      slices: name -> bool [E]: ``tail``, ``cold`` ...
    """

    protocol: str
    metrics: dict[str, float]
    users_E: np.ndarray
    ranked: RankedCases
    slices: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def per_user(self, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Users, each one's mean of ``"ndcg@10"``, ``"hr@20"`` or ``"mrr@5"``, and their cases.

        Of a slice, ``"ndcg@10/cold"``, only users who have such a case.
        """
        whole, _, slice_ = metric.partition("/")
        name, _, k = whole.partition("@")
        if name not in ranking.METRICS or not k.isdigit():
            raise UserError(f"no metric {metric!r} by user; expected hr@K, ndcg@K or mrr@K.")
        if slice_ and slice_ not in self.slices:
            raise unknown("slice of the cases", slice_, self.slices)
        where_E = self.slices[slice_] if slice_ else np.ones(len(self.users_E), bool)
        values_E = ranking.METRICS[name](self.ranked.ranks_E[where_E], int(k))
        return ranking.user_means(values_E, self.users_E[where_E])

    def __str__(self) -> str:
        width = max(map(len, self.metrics))
        lines = [f"{name:<{width}}  {value:.4f}" for name, value in self.metrics.items()]
        return "\n".join([*lines, f"Protocol: {self.protocol}."])


def evaluate(
    scorer: Scorer,
    split: RankingSplit,
    part: str = "test",
    *,
    ks: Sequence[int] = (10,),
    batch_size: int = BATCH,
    list_length: int = 20,
    sampled: int | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> RankingReport:
    """Metrics of a recommender on ``validation`` or ``test``.

    Args:
      ks: cut-offs.
      batch_size: histories a call of the scorer, at most; does not change the result.
      list_length: items to keep of each list, at least ``max(ks)`` are; 0 for no lists, and no
        figures of theirs, which is faster.
      sampled: rank the target among so many random items only. The figures do not order models
        as those over the whole catalogue do (Krichene and Rendle, KDD 2020): a warning says so.
      on_batch: called after every batch; may raise to stop.
    """
    if part not in ("validation", "test"):
        raise UserError(f"no part {part!r} to evaluate on; expected 'validation' or 'test'.")
    cases: Cases = getattr(split, part)
    data = split.data
    ranked = rank_cases(
        scorer,
        data,
        cases,
        batch_size=batch_size,
        list_length=max(list_length, *ks) if list_length else 0,
        sampled=sampled,
        learned_U=split.learned_U,
        on_batch=on_batch,
    )
    prefix = "" if sampled is None else "sampled_"
    slices = [
        *ranking.target_slices(cases.targets_E(data), split.train_counts_I),
        *ranking.length_slices(cases.ends_E - data.offsets_U1[cases.users_E]),
    ]
    metrics = ranking.mean_metrics(ranked.ranks_E, ks)
    lists = ranking.list_metrics(ranked.top_EK, split.train_counts_I, ks) if list_length else {}
    parts = ranking.slice_metrics(ranked.ranks_E, ks, slices)
    named = {
        name if name.startswith("cases/") else prefix + name: value
        for name, value in (metrics | parts).items()
    }
    among = f"all {data.num_items} items" if sampled is None else f"{sampled} SAMPLED items"
    seen = "too" if data.repeats else "left out"
    rule = f"ranks among {among}, those of the history {seen}, ties against the model"
    protocol = f"{data.name}, {split.protocol}; {rule}; {part} split"
    return RankingReport(protocol, named | lists, cases.users_E, ranked, dict(slices))


def rank_cases(
    scorer: Scorer,
    data: Interactions,
    cases: Cases,
    *,
    batch_size: int = BATCH,
    list_length: int = 20,
    sampled: int | None = None,
    learned_U: np.ndarray | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> RankedCases:
    """Ranks of all targets and the lists that would be shown, in one pass; see the module.

    Args:
      list_length: items of a list; 0 for no lists.
      learned_U: bool [U], users of whom training had something; None where all are known.
    """
    if sampled is not None:
        if sampled < 1:
            raise UserError(f"{sampled} sampled items were asked for; expected at least 1.")
        _log.warning(
            "metrics over %d sampled items do not order models as the whole catalogue does "
            "(Krichene and Rendle, KDD 2020); they are no substitute for it",
            sampled,
        )
    targets_E, lengths_E = cases.targets_E(data), cases.ends_E - data.offsets_U1[cases.users_E]

    def told(rows: np.ndarray) -> Histories:  # of a batch: those of all cases might be too many
        return cases.take(rows).histories(data, learned_U)

    ranks_E = np.empty(len(cases), np.int32)
    top_EK = np.empty((len(cases), min(list_length, data.num_items)), np.int32)
    for rows, part, scores_BI in _scored(scorer, lengths_E, told, data.num_items, batch_size):
        targets_B = targets_E[rows]
        taken_BI = _taken(part, seen=data.repeats)
        if list_length:
            top_EK[rows] = top_items(scores_BI, top_EK.shape[1], taken_BI)
        taken_BI[np.arange(len(part)), targets_B] = False
        if sampled is not None:
            taken_BI = _all_but_sampled(taken_BI, targets_B, sampled, cases.ends_E[rows])
        ranks_E[rows] = target_ranks(scores_BI, targets_B, taken_BI)
        on_batch()
    return RankedCases(ranks_E, top_EK)


def recommend(
    scorer: Scorer,
    histories: Histories,
    k: int = 10,
    *,
    shown_I: np.ndarray | None = None,
    with_seen: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items for each history that are not in it.

    Args:
      shown_I: bool, the items that may be in a list; None for all.
      with_seen: whether those of the history may be.

    Returns:
      int32 [E, K] item numbers, best first, -1 where too few are left; float32 [E, K] scores.
    """
    if k < 1:
        raise UserError(f"{k} items were asked for; expected at least 1.")
    k = min(k, histories.num_items)
    top_EK = np.empty((len(histories), k), np.int32)
    scores_EK = np.empty((len(histories), k), np.float32)
    scored = _scored(scorer, histories.lengths_E, histories.take, histories.num_items, BATCH)
    for rows, part, scores_BI in scored:
        if np.isnan(scores_BI).any():
            raise UserError("the model's scores are not numbers (NaN): its training diverged.")
        taken_BI = _taken(part, seen=with_seen)
        if shown_I is not None:
            taken_BI |= ~shown_I[None]
        top_BK = top_items(scores_BI, k, taken_BI)
        top_EK[rows] = top_BK
        best_BK = np.take_along_axis(scores_BI, np.maximum(top_BK, 0), axis=1)
        scores_EK[rows] = np.where(top_BK < 0, -np.inf, best_BK)
    return top_EK, scores_EK


def target_ranks(
    scores_BI: np.ndarray, targets_B: np.ndarray, taken_BI: np.ndarray | None = None
) -> np.ndarray:
    """int32 [B]: 1 + the number of competing items that score as high as the target or higher.

    Args:
      taken_BI: bool, items that do not compete; the targets themselves must be False.
    """
    target_B1 = np.take_along_axis(scores_BI, targets_B[:, None].astype(np.int64), axis=1)
    ahead_BI = scores_BI >= target_B1  # holds for the target itself
    if taken_BI is not None:
        ahead_BI &= ~taken_BI
    ranks_B = np.count_nonzero(ahead_BI, axis=1).astype(np.int32)
    return np.where(np.isnan(scores_BI.min(axis=1)), np.int32(0), ranks_B)


def top_items(scores_BI: np.ndarray, k: int, taken_BI: np.ndarray | None = None) -> np.ndarray:
    """int32 [B, k]: item numbers by falling score, equals by number; -1 where too few are left.

    Args:
      scores_BI: float32; a row with NaN gives no list.
      taken_BI: bool, items not to show.
    """
    if taken_BI is not None:
        scores_BI = np.where(taken_BI, np.float32(-np.inf), scores_BI)
    least_B1 = np.partition(scores_BI, -k, axis=1)[:, -k, None]
    good_BI = scores_BI >= least_B1  # k items, or more where some are equal
    if taken_BI is not None:
        good_BI &= ~taken_BI
    rows, items = np.divmod(np.flatnonzero(good_BI), scores_BI.shape[1])
    order = np.lexsort((-scores_BI[rows, items], rows))  # stable: equals stay by number
    rows, items = rows[order], items[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = place < k
    top_BK = np.full((len(scores_BI), k), -1, np.int32)
    top_BK[rows[kept], place[kept]] = items[kept]
    return top_BK


def rows_at_once(num_items: int, wanted: int = BATCH) -> int:
    """How many histories share a batch, at most ``wanted``: fewer where there are many items."""
    return min(wanted, max(MOST_SCORES // num_items, 1))


def _scored(
    scorer: Scorer,
    lengths_E: np.ndarray,
    take: Callable[[np.ndarray], Histories],
    num_items: int,
    batch_size: int,
) -> Iterator[tuple[np.ndarray, Histories, np.ndarray]]:
    """(rows, their histories, float32 scores [B, I]), batch by batch.

    Histories of like length share a batch, which saves padding. A JAX scorer returns before it
    has computed; the next batch is begun before this one is looked at.

    Args:
      lengths_E: of the histories.
      take: the histories at some rows.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1.")
    order = np.argsort(lengths_E, kind="stable")
    batch_size = rows_at_once(num_items, batch_size)
    begun: list[tuple[np.ndarray, Histories, Any]] = []
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        part = take(rows)
        begun.append((rows, part, scorer(part)))
        if len(begun) == 2:
            yield _looked_at(*begun.pop(0))
    for entry in begun:
        yield _looked_at(*entry)


def _looked_at(
    rows: np.ndarray, part: Histories, scores: Any
) -> tuple[np.ndarray, Histories, np.ndarray]:
    scores_BI = np.asarray(scores, np.float32)
    if scores_BI.shape != (len(part), part.num_items):
        raise UserError(
            f"the model gave scores of shape {scores_BI.shape} for {len(part)} histories and "
            f"{part.num_items} items."
        )
    return rows, part, scores_BI


def _taken(histories: Histories, *, seen: bool) -> np.ndarray:
    """bool [E, I], True for items of the history, unless what is ``seen`` stays."""
    taken_EI = np.zeros((len(histories), histories.num_items), bool)
    if not seen:
        taken_EI[histories.rows_S, histories.items_S] = True
    return taken_EI


def _all_but_sampled(
    taken_BI: np.ndarray, targets_B: np.ndarray, count: int, ends_B: np.ndarray
) -> np.ndarray:
    """bool [B, I], False for the target and ``count`` uniform others that were not taken.

    Of somebody who took nearly everything, as many as are left.
    """
    result_BI = np.ones_like(taken_BI)
    for row, (target, end) in enumerate(zip(targets_B, ends_B, strict=True)):
        others = np.flatnonzero(~taken_BI[row])
        others = others[others != target]
        # The case alone decides, whatever the batch.
        chosen = np.random.default_rng(int(end)).permutation(others)[:count]
        result_BI[row, chosen] = False
        result_BI[row, target] = False
    return result_BI
