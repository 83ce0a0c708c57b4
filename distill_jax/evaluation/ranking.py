"""Metrics of ranking, from the target's rank in each case and from the lists that were shown.

Shapes: E cases, U users that occur in them, K places of a list, I items.

A rank is 1 where the target comes first, and 0 where the scores held NaN (a run that
diverged): every metric that sees such a case is NaN. With one target a case, recall@k is the
hit rate and the ideal DCG is 1.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from distill_jax.core.errors import UserError

Floats = NDArray[np.float64]
HEAD, TAIL, COLD = 0, 1, 2
GROUPS = ("head", "tail", "cold")
LENGTH_EDGES = (20, 50, 100, 200)


def hit_rate(ranks_E: ArrayLike, k: int) -> Floats:
    """HR@k of each case: 1 where the target is among the first k, else 0."""
    ranks = _ranks(ranks_E, k)
    return np.where(np.isnan(ranks), np.nan, ranks <= k)


def ndcg(ranks_E: ArrayLike, k: int) -> Floats:
    """NDCG@k of each case: ``1 / log2(rank + 1)`` where rank <= k, else 0.

    Järvelin and Kekäläinen, TOIS 2002, with a single relevant item.
    """
    ranks = _ranks(ranks_E, k)
    return hit_rate(ranks_E, k) / np.log2(ranks + 1)


def reciprocal_rank(ranks_E: ArrayLike, k: int) -> Floats:
    """MRR@k of each case: ``1 / rank`` where rank <= k, else 0."""
    return hit_rate(ranks_E, k) / _ranks(ranks_E, k)


METRICS = {"hr": hit_rate, "ndcg": ndcg, "mrr": reciprocal_rank}


def mean_metrics(ranks_E: ArrayLike, ks: Sequence[int] = (10,)) -> dict[str, float]:
    """Means over the cases, ``{"hr@10": ..., "ndcg@10": ..., "mrr@10": ...}``."""
    if not len(np.asarray(ranks_E)):
        raise UserError("ranking metrics got no case: is the split empty?")
    return {
        f"{name}@{k}": float(metric(ranks_E, k).mean())
        for k in ks
        for name, metric in METRICS.items()
    }


def user_means(values_E: ArrayLike, users_E: ArrayLike) -> tuple[np.ndarray, Floats, np.ndarray]:
    """Users, ascending, the mean of each one's cases, and how many these are.

    What tests paired by user compare: the mean over all cases is the mean over the users,
    weighted with their cases.
    """
    users, row_E = np.unique(np.asarray(users_E), return_inverse=True)
    sums, cases = np.bincount(row_E, weights=np.asarray(values_E, np.float64)), np.bincount(row_E)
    return users, sums / cases, cases


def list_metrics(top_EK: ArrayLike, counts_I: ArrayLike, ks: Sequence[int]) -> dict[str, float]:
    """Coverage and popularity bias of the lists shown, at each k.

    Args:
      top_EK: int [E, K >= max(ks)] item numbers, best first, -1 where nothing was left to show.
      counts_I: [I] training interactions with each item.

    Returns:
      ``coverage@k``, ``gini@k``, ``popularity@k`` (mean training interactions of what is shown,
      the ARP of Yin et al., VLDB 2012) and ``popularity_percentile@k``.
    """
    top, counts = np.asarray(top_EK), np.asarray(counts_I)
    if top.ndim != 2 or top.shape[1] < max(ks):
        raise UserError(f"lists of shape {top.shape} are too short for k = {max(ks)}.")
    percentiles_I = popularity_percentiles(counts)
    results = {}
    for k in ks:
        shown = top[:, :k][top[:, :k] >= 0]
        times_I = np.bincount(shown, minlength=len(counts))
        results[f"coverage@{k}"] = float((times_I > 0).mean())
        results[f"gini@{k}"] = gini(times_I)
        results[f"popularity@{k}"] = _mean(counts[shown])
        results[f"popularity_percentile@{k}"] = _mean(percentiles_I[shown])
    return results


def gini(times_I: ArrayLike) -> float:
    """Gini index of how often each item is shown: 0 all alike, (I - 1) / I one item only."""
    times = np.sort(np.asarray(times_I, np.float64))
    if not times.sum():
        return float("nan")
    place = np.arange(1, len(times) + 1)
    return float(((2 * place - len(times) - 1) * times).sum() / (len(times) * times.sum()))


def popularity_percentiles(counts_I: ArrayLike) -> Floats:
    """[I] share of items that are less popular, equals counted half: the mean is 1/2."""
    counts = np.asarray(counts_I)
    ordered = np.sort(counts)
    below = np.searchsorted(ordered, counts, side="left")
    not_above = np.searchsorted(ordered, counts, side="right")
    return (below + not_above) / (2 * len(counts))


def item_groups(counts_I: ArrayLike, *, head: float = 0.2) -> np.ndarray:
    """int8 [I]: ``HEAD``, ``TAIL`` or ``COLD``, by training interactions.

    Cold items have none. Of the others the most popular ``head`` share (rounded up; of equally
    popular items the lower number first) is the head, the rest the tail.
    """
    counts = np.asarray(counts_I)
    groups = np.where(counts > 0, TAIL, COLD).astype(np.int8)
    warm = int((counts > 0).sum())
    groups[np.argsort(-counts, kind="stable")[: int(np.ceil(head * warm))]] = HEAD
    return groups


def slice_metrics(
    ranks_E: np.ndarray,
    ks: Sequence[int],
    slices: Iterable[tuple[str, np.ndarray]],
) -> dict[str, float]:
    """Metrics of parts of the cases: ``{"cases/tail": 120.0, "ndcg@10/tail": ...}``.

    Args:
      slices: (name, bool [E]); a slice without cases is left out.
    """
    results: dict[str, float] = {}
    for name, where_E in slices:
        if where_E.any():
            results[f"cases/{name}"] = float(where_E.sum())
            means = mean_metrics(ranks_E[where_E], ks)
            results |= {f"{metric}/{name}": value for metric, value in means.items()}
    return results


def target_slices(targets_E: np.ndarray, counts_I: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Cases by their target's group: head, tail, cold."""
    groups_E = item_groups(counts_I)[targets_E]
    return [(name, groups_E == number) for number, name in enumerate(GROUPS)]


def length_slices(
    lengths_E: np.ndarray, edges: Sequence[int] = LENGTH_EDGES
) -> list[tuple[str, np.ndarray]]:
    """Cases by the length of their history: up to the first edge, and so on."""
    low, slices = 0, []
    for edge in edges:
        slices.append((f"history {low}-{edge}", (lengths_E >= low) & (lengths_E <= edge)))
        low = edge + 1
    return [*slices, (f"history {low}-", lengths_E >= low)]


def overlap(first_EK: ArrayLike, second_EK: ArrayLike) -> float:
    """Fidelity of lists: mean share of the K items of one that the other holds too.

    Args:
      first_EK, second_EK: item numbers; -1 (nothing shown) never counts as shared.
    """
    first, second = np.asarray(first_EK), np.asarray(second_EK)
    if first.shape != second.shape:
        raise UserError(f"lists of shapes {first.shape} and {second.shape} cannot be compared.")
    same = (first[:, :, None] == second[:, None, :]) & (first[:, :, None] >= 0)
    return float(same.any(axis=2).mean())


def _ranks(ranks_E: ArrayLike, k: int) -> Floats:
    if k < 1:
        raise UserError(f"a metric at k = {k}: expected at least 1.")
    ranks = np.asarray(ranks_E, np.float64)
    return np.where(ranks == 0, np.nan, ranks)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
