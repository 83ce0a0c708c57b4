"""Statistics of a comparison: summaries over seeds, paired tests, Holm's correction."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from distill_jax.core.errors import UserError

RESAMPLES = 10_000
"""Of the bootstrap: no p value below one in so many."""
MIN_PAIRS = 3
"""Fewer seeds than this give no test: the t distribution's tails make it an empty ritual."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """A sample of scores in brief.

    Attributes:
      n: number of scores.
      mean: their mean; NaN without scores.
      sd: standard deviation with ``n - 1`` in the denominator; NaN for fewer than 2.
      low, high: 95% interval of the mean, ``mean -+ t_{0.975, n-1} * sd / sqrt(n)`` (Student
        1908); NaN for fewer than 2.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


def summarise(scores: Sequence[float], *, level: float = 0.95) -> Summary:
    """Mean, standard deviation and t interval of ``scores``; NaN in, NaN out."""
    nan = float("nan")
    values = np.asarray(scores, dtype=np.float64)
    n = len(values)
    if n == 0:
        return Summary(0, nan, nan, nan, nan)
    mean = float(values.mean())
    if n == 1:
        return Summary(1, mean, nan, nan, nan)
    sd = float(values.std(ddof=1))
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * sd / n**0.5
    return Summary(n, mean, sd, mean - half, mean + half)


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """Outcome of a paired comparison.

    Attributes:
      n: number of pairs.
      difference: mean of (score - baseline).
      low, high: 95% interval of the difference.
      p: two-sided p value, uncorrected.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float


def paired_test(scores: Mapping[int, float], baseline: Mapping[int, float]) -> PairedTest | None:
    """Two-sided paired t-test over the seeds that both sides have.

    ``t = mean(d) / (sd(d) / sqrt(n))`` with n - 1 degrees of freedom and d the differences by
    seed (Student 1908; scipy's ``ttest_rel``). It answers whether another training run would
    show the same sign, on this test set. If all differences are the same number, t is
    undefined: p is then that of the exact sign-flip test (Fisher 1935), ``2^(1 - n)``, or 1 if
    the differences are 0, never the 0 that a division by zero suggests.

    Args:
      scores: seed -> score.
      baseline: seed -> score of the baseline.

    Returns:
      None for fewer than 3 common seeds, or if a score is not finite.
    """
    seeds = [seed for seed in scores if seed in baseline]
    ours = np.array([scores[seed] for seed in seeds], dtype=np.float64)
    theirs = np.array([baseline[seed] for seed in seeds], dtype=np.float64)
    n = len(seeds)
    if n < MIN_PAIRS or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return None
    differences = ours - theirs
    # Subtracting scores like 0.7 and 0.6 leaves rounding errors, which are no variance.
    rounding = 8 * np.finfo(np.float64).eps * max(np.abs(ours).max(), np.abs(theirs).max())
    mean = float(differences.mean())
    if np.ptp(differences) <= rounding:
        p = 1.0 if abs(mean) <= rounding else 2.0 ** (1 - n)
        return PairedTest(n, mean, mean, mean, p)
    result = stats.ttest_rel(ours, theirs)
    interval = result.confidence_interval(0.95)
    return PairedTest(n, mean, float(interval.low), float(interval.high), float(result.pvalue))


def paired_bootstrap(
    correct_a: ArrayLike, correct_b: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0
) -> PairedTest:
    """Paired bootstrap over test examples: would another test set show the same sign?

    Resamples the examples with replacement, each with both its scores, and looks at the mean
    difference. ``p = (1 + #{|d* - d| >= |d|}) / (1 + resamples)``, the two-sided test with the
    null hypothesis imposed by centring (Efron and Tibshirani 1993, section 16.4; in NLP: Koehn
    2004; Berg-Kirkpatrick et al. 2012); the interval is the percentile interval.

    Args:
      correct_a: [N], 1 where system a is right and 0 where not, or any score per example, e.g.
        the mean over seeds.
      correct_b: [N], the same for system b, in the same order of examples.
      resamples: number of resamples.
      seed: of the resampling; the same seed gives the same numbers.
    """
    a, b = np.asarray(correct_a, dtype=np.float64), np.asarray(correct_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise UserError(
            f"the paired bootstrap wants two vectors of one length > 0, not {a.shape}, {b.shape}."
        )
    # Examples with equal differences are interchangeable: how often each distinct difference
    # is drawn follows a multinomial distribution, the same bootstrap for far less memory.
    values, counts = np.unique(np.round(a - b, 12), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(a), counts / len(a), size=resamples)
    means = drawn @ values / len(a)
    observed = float((a - b).mean())
    extreme = np.abs(means - observed) >= abs(observed) - 1e-12
    low, high = np.quantile(means, [0.025, 0.975])
    p = (1 + int(extreme.sum())) / (1 + resamples)
    return PairedTest(len(a), observed, float(low), float(high), p)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Holm 1979): controls the family-wise error rate.

    With the m p values sorted upwards, ``adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))``.

    Args:
      p_values: raw p values; None where there was no test: not counted, None comes back.

    Returns:
      Adjusted p values in the order given.
    """
    tested = [index for index, p in enumerate(p_values) if p is not None]
    raw = np.array([p_values[index] for index in tested], dtype=np.float64)
    if not ((raw >= 0) & (raw <= 1)).all():
        raise ValueError(f"p values must lie between 0 and 1, not {raw.tolist()}.")
    order = np.argsort(raw, kind="stable")
    steps = raw[order] * np.arange(len(raw), 0, -1)
    adjusted: list[float | None] = [None] * len(p_values)
    for position, p in zip(order, np.minimum(np.maximum.accumulate(steps), 1.0), strict=True):
        adjusted[tested[position]] = float(p)
    return adjusted
