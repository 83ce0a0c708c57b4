"""Statistics of a comparison: summaries, tests over seeds, examples and both, corrections."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from distill_jax.core.errors import UserError

RESAMPLES = 10_000
"""Of the bootstrap: no p value below one in so many."""
MIN_PAIRS = 3
"""Fewer seeds than this give no test: the t distribution's tails make it an empty ritual."""
MIN_EXAMPLES = 6
"""Fewer test examples give no test: even the exact one's p is at least 2^(1 - n), above 5%."""
MULTINOMIAL = 6
"""Of the bootstrap: so many examples are drawn in the time of one distinct value's count."""
DRAWN = 2**20
"""Counts that the bootstrap holds at a time."""
MIN_BOOTSTRAP = 100
"""Of fewer test examples the bootstrap rejects too often; signs are flipped instead."""


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

    def reversed(self) -> Self:
        """The same test of baseline minus score."""
        return dataclasses.replace(
            self, difference=-self.difference, low=-self.high, high=-self.low
        )


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
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedTest | None:
    """Paired resampling of test examples: would another test set show the same sign?

    From 100 examples on a bootstrap: the examples are drawn with replacement, each with both its
    scores, and ``p = (1 + #{|d* - d| >= |d|}) / (1 + resamples)``, the two-sided test with the
    null hypothesis imposed by centring (Efron and Tibshirani 1993, section 16.4; in NLP: Koehn
    2004; Berg-Kirkpatrick et al. 2012). Of fewer examples the bootstrap rejects too often; there
    p is that of the sign-flip test (Fisher 1935), of all flips where they are no more than
    ``resamples``, else of as many drawn ones. The interval is the bootstrap's percentile interval.

    With weights the mean is ``sum_i w_i a_i / sum_i w_i`` and an example is drawn with its
    weight: a cluster bootstrap (Davison and Hinkley 1997, section 3.8), where an example is a
    user, its score the mean over the user's cases, and the weight their number.

    Args:
      scores_a: [N], 1 where system a is right and 0 where not, or any score per example, e.g.
        the mean over seeds.
      scores_b: [N], the same for system b, in the same order of examples.
      weights: [N], positive; None for equal ones.
      resamples: number of resamples.
      seed: of the resampling; the same seed gives the same numbers.

    Returns:
      None for fewer than 6 examples, of which no test could reach 5%.
    """
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    w = np.ones(a.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if a.ndim != 1 or not a.shape == b.shape == w.shape or not len(a):
        raise UserError(
            "the paired bootstrap wants vectors of one length > 0, not "
            f"{a.shape}, {b.shape}, {w.shape}."
        )
    if len(a) < MIN_EXAMPLES:
        return None
    sums, rng = np.round((a - b) * w, 12), np.random.default_rng(seed)
    observed = float(((a - b) * w).sum() / w.sum())
    means = _resampled_means(sums, w, resamples, rng)
    low, high = np.quantile(means, [0.025, 0.975])
    if len(a) < MIN_BOOTSTRAP:
        p = _sign_flips(sums / w.sum(), resamples, rng)
    else:
        extreme = np.abs(means - observed) >= abs(observed) - 1e-12
        p = (1 + int(extreme.sum())) / (1 + resamples)
    return PairedTest(len(a), observed, float(low), float(high), p)


def _resampled_means(
    sums_N: np.ndarray, weights_N: np.ndarray, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """[R]: sums over sums of weights, of examples drawn with replacement."""
    n, pairs = len(sums_N), np.stack([sums_N, weights_N], axis=-1)
    # Examples with equal differences are interchangeable: how often each distinct difference
    # is drawn follows a multinomial distribution, the same bootstrap for less time and memory.
    distinct, counts = np.unique(pairs, axis=0, return_counts=True)
    few = len(distinct) * MULTINOMIAL <= n
    values, means = distinct if few else pairs, []
    at_a_time = max(1, DRAWN // len(values))
    for start in range(0, resamples, at_a_time):
        rows = min(at_a_time, resamples - start)
        if few:
            drawn = rng.multinomial(n, counts / n, size=rows)
        else:
            chosen = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
            drawn = np.bincount(chosen.ravel(), minlength=rows * n).reshape(rows, n)
        means.append((drawn @ values[:, 0]) / (drawn @ values[:, 1]))
    return np.concatenate(means)


def _sign_flips(shares_N: np.ndarray, resamples: int, rng: np.random.Generator) -> float:
    """Two-sided p of the sum under flips of the signs: exact where all flips can be tried."""
    n = len(shares_N)
    exact = 2 ** (n - 1) <= resamples
    if exact:  # the other half mirrors this one
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n)[None] & 1
    else:
        bits = rng.integers(0, 2, (resamples, n))
    sums = (1 - 2 * bits) @ shares_N
    extreme = int((np.abs(sums) >= abs(shares_N.sum()) - 1e-12).sum())
    return extreme / len(bits) if exact else (1 + extreme) / (1 + resamples)


@dataclasses.dataclass(frozen=True)
class JointTest(PairedTest):
    """Outcome of ``crossed_test``; ``n`` counts the seeds.

    Attributes:
      examples: number of test examples.
      se: standard error of the difference.
      df: degrees of freedom of its t distribution.
    """

    examples: int
    se: float
    df: float

    def detectable(self, comparisons: int = 1, *, level: float = 0.05, power: float = 0.8) -> float:
        """The smallest true difference that would have been found, at these errors.

        ``(t_{1 - level / (2 m), df} + t_{power, df}) * se`` for m comparisons: what the first
        step of Holm's correction asks for.
        """
        quantiles = stats.t.ppf([1 - level / (2 * comparisons), power], self.df)
        return float(quantiles.sum()) * self.se


@dataclasses.dataclass(frozen=True)
class MeanSquares:
    """The two-way layout of a comparison's differences in brief, see ``crossed_test``.

    Attributes:
      mean: the difference.
      n_seeds, n_examples: sizes of the layout.
      seeds, rest: mean squares.
      examples: mean square of the examples beyond that of the rest; 0 where it is smaller.
      scale: of the differences, for what counts as rounding.
    """

    mean: float
    n_seeds: int
    n_examples: int
    seeds: float
    examples: float
    rest: float
    scale: float


def mean_squares(
    differences_SN: ArrayLike, weights_N: ArrayLike | None = None
) -> MeanSquares | None:
    """The mean squares of differences by seed and example.

    Args:
      differences_SN: [S, N], score minus baseline's by seed and example.
      weights_N: [N], positive; the difference is the weighted mean then, an example a cluster as
        in ``paired_bootstrap``.

    Returns:
      None for fewer than 3 seeds or 6 examples, or where a difference is not finite.
    """
    d = np.asarray(differences_SN, dtype=np.float64)
    seeds, examples = d.shape
    if seeds < MIN_PAIRS or examples < MIN_EXAMPLES or not np.isfinite(d).all():
        return None
    w = np.ones(examples) if weights_N is None else np.asarray(weights_N, dtype=np.float64)
    mean = float(d.mean(axis=0) @ w / w.sum())
    # Linearised: how much an example moves the ratio of the sums; without weights d itself.
    d = mean + w / w.mean() * (d - mean)
    by_seed, by_example = d.mean(axis=1), d.mean(axis=0)
    rest = d - by_seed[:, None] - by_example + mean
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (examples - 1))
    return MeanSquares(
        mean,
        seeds,
        examples,
        examples * float(by_seed.var(ddof=1)),
        max(seeds * float(by_example.var(ddof=1)) - ms_rest, 0.0),
        ms_rest,
        float(np.abs(d).max()),
    )


def crossed_test(squares: MeanSquares, *, floor: float = 0.0, level: float = 0.95) -> JointTest:
    """Would new seeds *and* new test examples show the same sign? One test of both.

    The difference of seed s on example i is ``mean + seed_s + example_i + rest_si``, all three
    random. With the mean squares of this two-way layout, MS_S, MS_N and MS_R,

        Var(mean) = (MS_S + max(MS_N - MS_R, 0)) / (S N)

    and t has ``(S N Var)^2 / (MS_S^2 / (S - 1) + max(MS_N - MS_R, 0)^2 / (N - 1))`` degrees of
    freedom: the analysis of readers crossed with cases (Dorfman, Berbaum and Metz 1992; degrees of
    freedom of Hillis 2007, and a term for few examples, by Satterthwaite 1946). MS_S counts at
    least as MS_R, which it exceeds in expectation: of three seeds it is too small by chance too
    often. docs/type_one.md has the errors by simulation.

    Args:
      squares: of the differences.
      floor: MS_S counts at least as much, see ``crossed_tests``.
      level: of the interval.
    """
    q = squares
    ms_seeds = max(q.seeds, q.rest, floor)
    total = ms_seeds + q.examples
    rounding = (8 * np.finfo(np.float64).eps * q.scale) ** 2
    if total <= rounding:  # all differences are one number, see ``paired_test``
        p = 1.0 if q.mean**2 <= rounding else 2.0 ** (1 - q.n_seeds)
        return JointTest(
            q.n_seeds, q.mean, q.mean, q.mean, p, q.n_examples, 0.0, float(q.n_seeds - 1)
        )
    se = (total / (q.n_seeds * q.n_examples)) ** 0.5
    df = total**2 / (ms_seeds**2 / (q.n_seeds - 1) + q.examples**2 / (q.n_examples - 1))
    half = float(stats.t.ppf(0.5 + level / 2, df)) * se
    p = float(2 * stats.t.sf(abs(q.mean) / se, df))
    low, high = q.mean - half, q.mean + half
    return JointTest(q.n_seeds, q.mean, low, high, p, q.n_examples, se, df)


def crossed_tests(family: Sequence[MeanSquares]) -> list[JointTest]:
    """The joint tests of the comparisons of one group of a table.

    Of many comparisons over few seeds some MS_S are far too small by chance, and these would be
    called different. Here each counts at least as half the median of all. That asks for no equal
    noise, as pooling would: where a row's own is larger, it counts.
    """
    floor = 0.5 * float(np.median([squares.seeds for squares in family])) if family else 0.0
    return [crossed_test(squares, floor=floor) for squares in family]


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
