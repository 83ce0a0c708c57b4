"""Metrics of predicted numbers on the host, in float64.

Shapes: N examples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from distill_jax.evaluation.metrics import pearson


def spearman(said_N: ArrayLike, right_N: ArrayLike) -> float:
    """Spearman's rho: Pearson's r of ranks, equal numbers sharing their mean rank; NaN where it is
    undefined, see ``metrics.pearson``."""
    said = np.asarray(said_N, np.float64)
    if not np.isfinite(said).all():
        return float("nan")
    return pearson(stats.rankdata(said), stats.rankdata(np.asarray(right_N, np.float64)))


def mean_squared_error(said_N: ArrayLike, right_N: ArrayLike) -> float:
    """Mean of ``(said - right)^2``."""
    return float(np.mean((np.asarray(said_N, np.float64) - np.asarray(right_N, np.float64)) ** 2))


def number_metrics(said_N: ArrayLike, right_N: ArrayLike) -> dict[str, float]:
    """``pearson``, ``spearman`` and ``mse``; one number for all examples correlates with nothing,
    0. NaN where a number is not finite.
    """
    said = np.asarray(said_N, np.float64)
    same = bool(np.isfinite(said).all() and np.ptp(said) == 0)
    return {
        "pearson": 0.0 if same else pearson(said_N, right_N),
        "spearman": 0.0 if same else spearman(said_N, right_N),
        "mse": mean_squared_error(said_N, right_N),
    }
