"""Declarative trends: what a paper says, as contrasts of scores that a table holds or not.

A trend is data: it stands in the table's description and is evaluated anew from the ledger. Its
contrasts are linear in the scores of one seed, so that seeds stay paired; each gets a t interval
over seeds and test examples at once (``statistics.crossed_test``), or over seeds alone where the
runs did not keep what each example contributed. A trend holds only if all of its contrasts do:
an intersection-union test (Berger 1982), which needs no correction for the number of contrasts.
Importing this module does not import JAX.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.tables.evidence import scores_by_example, weights_by_example
from distill_jax.tables.ledger import LedgerRow
from distill_jax.tables.statistics import (
    MIN_PAIRS,
    JointTest,
    Summary,
    crossed_test,
    mean_squares,
    summarise,
)

Claim = Literal["positive", "negative", "within", "not_below"]
Where = tuple[str, str]
"""(row, group)."""
Scores = Mapping[Where, Mapping[int, LedgerRow]]
"""(row, group) -> seed -> run."""


@dataclass(frozen=True)
class Pick:
    """The score, by seed, of one place; of several, of the one that is best on validation.

    Attributes:
      places: (row, group).
      weight: factor of the score in its contrast.
    """

    places: tuple[Where, ...]
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not math.isfinite(self.weight):
            raise UserError(f"a trend cannot weigh a score by {self.weight}.")


@dataclass(frozen=True)
class Contrast:
    """A linear contrast: per seed, the sum over the picks of weight times score."""

    label: str
    picks: tuple[Pick, ...]

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Trend:
    """One statement and the contrasts that have to bear it out.

    Attributes:
      statement: as the paper says it.
      contrasts: all of them have to hold.
      claim: what each contrast is claimed to be; its 95% interval has to lie wholly above 0
        (``positive``), below 0 (``negative``), inside (-margin, margin) (``within``: two
        one-sided tests, Schuirmann 1987, at 2.5% each) or above -margin (``not_below``).
      margin: of ``within`` and ``not_below``, in the metric's raw units.
      metric: what is compared.
      select: where a pick has several places, the one with the highest mean of this is taken.
    """

    statement: str
    contrasts: tuple[Contrast, ...]
    claim: Claim = "positive"
    margin: float = 0.0
    metric: str = "test/accuracy"
    select: str = "validation/accuracy"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.contrasts or any(not contrast.picks for contrast in self.contrasts):
            raise UserError(f"the trend {self.statement!r} compares nothing.")
        if any(not pick.places for contrast in self.contrasts for pick in contrast.picks):
            raise UserError(f"the trend {self.statement!r} picks from no place.")
        if not 0 <= self.margin < math.inf or (self.claim == "within" and self.margin == 0):
            raise UserError(f"the trend {self.statement!r} has no use for margin {self.margin}.")

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Trend":
        """Inverse of ``dataclasses.asdict``, also after a journey through JSON.

        Raises:
          KeyError, TypeError, ValueError: for an object that is something else.
        """
        contrasts = tuple(
            Contrast(contrast["label"], tuple(_pick(pick) for pick in contrast["picks"]))
            for contrast in fields["contrasts"]
        )
        return cls(**{**fields, "contrasts": contrasts})

    def holds(self, summary: Summary) -> bool:
        """Whether an interval is where the trend claims it to be."""
        return {
            "positive": summary.low > 0,
            "negative": summary.high < 0,
            "within": summary.low > -self.margin and summary.high < self.margin,
            "not_below": summary.low > -self.margin,
        }[self.claim]

    def opposes(self, summary: Summary) -> bool:
        """Whether an interval lies wholly where the trend claims it not to be."""
        return {
            "positive": summary.high < 0,
            "negative": summary.low > 0,
            "within": summary.low > self.margin or summary.high < -self.margin,
            "not_below": summary.high < -self.margin,
        }[self.claim]


@dataclass(frozen=True)
class TrendResult:
    """What became of a trend; the tuples have an entry per contrast.

    Attributes:
      trend: what was claimed.
      summaries: of the contrast over the common seeds; empty where there is no test. The interval
        is over seeds and test examples where ``examples`` is not 0.
      held: whether the interval is where it was claimed to be.
      problems: why there is no test; None where there is one.
      chosen: the place taken for each pick; () where there is no test.
      examples: how many test examples the interval is over, beside the seeds.
    """

    trend: Trend
    summaries: tuple[Summary, ...]
    held: tuple[bool, ...]
    problems: tuple[str | None, ...]
    chosen: tuple[tuple[Where, ...], ...]
    examples: tuple[int, ...]

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Per contrast: ``held``, ``not held``, ``not held: opposite`` or ``no test: why``."""
        words = []
        for summary, held, problem in zip(self.summaries, self.held, self.problems, strict=True):
            opposite = ": opposite" if not problem and self.trend.opposes(summary) else ""
            words.append(f"no test: {problem}" if problem else "held" if held else "not held")
            words[-1] += opposite
        return tuple(words)

    @property
    def verdict(self) -> str:
        """``held`` if all contrasts held, ``not held`` if one did not, else ``no test: why``."""
        problems = [problem for problem in self.problems if problem]
        if any(not held and not why for held, why in zip(self.held, self.problems, strict=True)):
            return "not held"
        return f"no test: {problems[0]}" if problems else "held"


def best_of(places: Sequence[Where], weight: float = 1.0) -> Pick:
    """The one of several places that is best on validation; the test split has no say."""
    return Pick(tuple(places), weight)


def difference(
    statement: str,
    better: Where | Pick,
    worse: Where | Pick,
    *,
    claim: Claim = "positive",
    margin: float = 0.0,
    metric: str = "test/accuracy",
) -> Trend:
    """A trend of one contrast: ``better - worse``."""
    contrasts = (_minus(better, worse),)
    return Trend(statement, contrasts, claim, margin, metric)


def ordering(statement: str, places: Sequence[Where | Pick]) -> Trend:
    """Each place is better than the next: as many contrasts as there are neighbours."""
    if len(places) < 2:
        raise UserError(f"the ordering {statement!r} needs at least two places.")
    contrasts = tuple(_minus(*pair) for pair in itertools.pairwise(places))
    return Trend(statement, contrasts)


def slope(
    statement: str,
    places: Sequence[Where],
    x: Sequence[float],
    *,
    claim: Claim = "positive",
    margin: float = 0.0,
    metric: str = "test/accuracy",
) -> Trend:
    """The least-squares line of the score over x: what it gains from the first x to the last.

    The slope ``sum_i (x_i - mean x) y_i / sum_i (x_i - mean x)^2`` is linear in the scores y;
    times the range of x it has the score's unit.

    Args:
      statement: as the paper says it.
      places: one for each x.
      x: finite and rising.
      claim, margin, metric: see ``Trend``.
    """
    x_N = np.asarray(x, dtype=np.float64)
    if len(x_N) != len(places) or len(x_N) < 2 or not np.isfinite(x_N).all():
        raise UserError(f"the slope {statement!r} needs two places or more, each with a finite x.")
    if not (np.diff(x_N) > 0).all():
        raise UserError(f"the x of the slope {statement!r} must rise: {list(x)}.")
    centred_N = x_N - x_N.mean()
    weights_N = centred_N * (x_N[-1] - x_N[0]) / np.square(centred_N).sum()
    picks = tuple(
        Pick((where,), float(w)) for where, w in zip(places, weights_N, strict=True) if w != 0
    )
    first, last = _names(places[0], places[-1])
    return Trend(
        statement, (Contrast(f"line from {first} to {last}", picks),), claim, margin, metric
    )


def gain_difference(
    statement: str,
    here: tuple[Where | Pick, Where | Pick],
    there: tuple[Where | Pick, Where | Pick],
) -> Trend:
    """``(a - b) here - (a - b) there``: by how much a gain is larger here than there.

    Args:
      statement: as the paper says it.
      here: (a, b).
      there: (a, b), each the counterpart.
    """
    gain, other = _minus(*here), _minus(*there)
    picks = gain.picks + tuple(Pick(pick.places, -pick.weight) for pick in other.picks)
    contrast = Contrast(f"[{gain.label}] − [{other.label}]", picks)
    return Trend(statement, (contrast,))


def evaluate_trend(trend: Trend, scores: Scores) -> TrendResult:
    """Evaluate a trend on the runs at hand.

    A contrast is computed by seed over the seeds that all of its places have. A pick of several
    places takes ONE of them for all seeds, by its mean validation score over these seeds (of
    equals the first; one whose validation score is not finite is never taken).

    Args:
      trend: what is claimed.
      scores: (row, group) -> seed -> run.

    Returns:
      The result. There is no test where a place has no runs, for fewer than 3 common seeds, for
      a score that is missing or not finite, and for values that are the same for all of fewer
      than 6 seeds: their interval of width 0 would feign a certainty that even the exact
      sign-flip test denies (p = 2^(1 - n)).
    """
    outcomes = [_evaluate(contrast, trend, scores) for contrast in trend.contrasts]
    summaries, chosen, problems, examples = zip(*outcomes, strict=True)
    held = tuple(
        trend.holds(summary) and problem is None
        for summary, problem in zip(summaries, problems, strict=True)
    )
    return TrendResult(trend, summaries, held, problems, chosen, examples)


def _pick(fields: Mapping[str, Any]) -> Pick:
    places = tuple((row, group) for row, group in fields["places"])
    return Pick(**{**fields, "places": places})


def _as_pick(where: Where | Pick) -> Pick:
    return where if isinstance(where, Pick) else Pick((where,))


def _minus(better: Where | Pick, worse: Where | Pick) -> Contrast:
    first, second = _as_pick(better), _as_pick(worse)
    groups = {group for pick in (first, second) for _, group in pick.places}
    rows = {row for pick in (first, second) for row, _ in pick.places}
    if len(groups) == 1:
        names = [_several([row for row, _ in pick.places]) for pick in (first, second)]
        ending = f" ({groups.pop()})"
    elif len(rows) == 1:
        names = [_several([group for _, group in pick.places]) for pick in (first, second)]
        ending = f" ({rows.pop()})"
    else:
        names = [_several([place_name(place) for place in pick.places]) for pick in (first, second)]
        ending = ""
    label = f"{names[0]} − {names[1]}{ending}"
    return Contrast(label, (first, Pick(second.places, -second.weight)))


def place_name(where: Where) -> str:
    """A place for people: ``kl (tiny)``."""
    return f"{where[0]} ({where[1]})"


def _names(first: Where, last: Where) -> tuple[str, str]:
    """The two ends of a line; what they share is said once."""
    if first[1] == last[1]:
        return first[0], f"{last[0]} ({last[1]})"
    if first[0] == last[0]:
        return first[1], f"{last[1]} ({last[0]})"
    return place_name(first), place_name(last)


def _several(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"best of {', '.join(names)}" if len(names) < 4 else f"best of {len(names)}"


def _evaluate(
    contrast: Contrast, trend: Trend, scores: Scores
) -> tuple[Summary, tuple[Where, ...], str | None, int]:
    """Summary, chosen places, why there is none, and over how many test examples it is."""
    nothing = summarise([])
    places = [place for pick in contrast.picks for place in pick.places]
    missing = [place for place in places if not scores.get(place)]
    if missing:
        return nothing, (), f"no runs of {place_name(missing[0])}", 0
    seeds = sorted(set.intersection(*(set(scores[place]) for place in places)))
    if len(seeds) < MIN_PAIRS:
        return nothing, (), f"{len(seeds)} seeds in common, at least {MIN_PAIRS} are needed", 0
    chosen = []
    for pick in contrast.picks:
        place = _choose(pick, seeds, trend.select, scores)
        if place is None:
            return nothing, (), f"{place_name(pick.places[0])} has no finite {trend.select}", 0
        chosen.append(place)
    weights_P = np.array([pick.weight for pick in contrast.picks])
    scores_PS = np.array([_scores(place, seeds, trend.metric, scores) for place in chosen])
    for place, scores_S in zip(chosen, scores_PS, strict=True):
        if not np.isfinite(scores_S).all():
            return nothing, (), f"{place_name(place)} lacks a finite {trend.metric}", 0
    values_S = weights_P @ scores_PS
    # Rounding errors of the sum are neither an effect nor a spread.
    rounding = 8 * np.finfo(np.float64).eps * np.abs(weights_P[:, None] * scores_PS).sum(0).max()
    values_S[np.abs(values_S) <= rounding] = 0.0
    if np.ptp(values_S) <= rounding and 2.0 ** (1 - len(seeds)) > 0.05:
        return nothing, (), f"the same value for all {len(seeds)} seeds", 0
    summary = summarise(values_S.tolist())
    rows_PS = [[scores[place][seed] for seed in seeds] for place in chosen]
    joint = _over_examples(weights_P, rows_PS, trend.metric)
    if joint is not None:
        summary = dataclasses.replace(summary, low=joint.low, high=joint.high)
    return summary, tuple(chosen), None, joint.examples if joint else 0


def _over_examples(
    weights_P: np.ndarray, rows_PS: Sequence[Sequence[LedgerRow]], metric: str
) -> JointTest | None:
    """The contrast over seeds and examples; None where not all runs kept these alike."""
    found = [[scores_by_example(run, metric) for run in runs] for runs in rows_PS]
    kept = [[scores_N for scores_N in side if scores_N is not None] for side in found]
    sizes = {len(scores_N) for side in kept for scores_N in side}
    if len(sizes) != 1 or any(len(a) < len(b) for a, b in zip(kept, found, strict=True)):
        return None
    values_SN = np.tensordot(weights_P, np.array(kept, np.float64), axes=1)
    squares = mean_squares(values_SN, weights_by_example(rows_PS[0][0], metric))
    return crossed_test(squares) if squares else None


def _choose(pick: Pick, seeds: Sequence[int], select: str, scores: Scores) -> Where | None:
    """The pick's place, by its mean validation score; None if none has a finite one."""
    if len(pick.places) == 1:
        return pick.places[0]
    means = [float(np.mean(_scores(place, seeds, select, scores))) for place in pick.places]
    finite = [index for index, mean in enumerate(means) if math.isfinite(mean)]
    return pick.places[max(finite, key=means.__getitem__)] if finite else None


def _scores(where: Where, seeds: Sequence[int], key: str, scores: Scores) -> list[float]:
    numbers = [scores[where][seed].number(key) for seed in seeds]
    return [math.nan if number is None else float(number) for number in numbers]
