"""What each test example contributes to a score of all: numbers whose mean is the score.

Paired tests over examples want one number an example. Accuracy and the squared error are means;
F1 and correlations are not. For these the numbers are the score plus the example's influence on it
(its derivative in the example's weight): their mean is the score, and the mean of a resample is
the score of the resample up to terms of second order. Infinitesimal jackknife: Jaeckel 1972, "The
infinitesimal jackknife"; Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 22.

Shapes: N examples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def of_ratio(above_N: ArrayLike, below_N: ArrayLike) -> Floats:
    """Numbers whose mean is ``sum(above) / sum(below)``, 0 where nothing is below.

    ``r + (above_i - r * below_i) / mean(below)``. F1 is such a ratio: above ``2 tp``, below
    ``2 tp + fp + fn``.
    """
    above, below = np.asarray(above_N, np.float64), np.asarray(below_N, np.float64)
    total = below.sum()
    if total == 0:
        return np.zeros(len(above))
    ratio = above.sum() / total
    return ratio + (above - ratio * below) / (total / len(below))


def of_correlation(x_N: ArrayLike, y_N: ArrayLike) -> Floats:
    """Numbers whose mean is Pearson's r of two vectors; NaN where one is constant.

    ``z_x z_y - r (z_x^2 + z_y^2) / 2 + r`` with standardised values ``z``: the influence function
    of the correlation (Devlin, Gnanadesikan, Kettenring 1975, "Robust estimation and outlier
    detection with correlation coefficients"). Of ranks it gives Spearman's rho.
    """
    x, y = np.asarray(x_N, np.float64), np.asarray(y_N, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        z_x, z_y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    r = np.mean(z_x * z_y)
    return z_x * z_y - r * (z_x**2 + z_y**2) / 2 + r
