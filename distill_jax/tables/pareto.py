"""What is worth having: of models that cost something, those that no other one beats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields


@dataclass(frozen=True)
class Point:
    """A model in one of its variants, what it scores and what it costs.

    Attributes:
      score, low, high: on the test split, with the 95% interval over its examples.
      agreement: share of the test examples of which the teacher says the same class.
      p50_ms, p95_ms: latency of one text at a time.
      texts_per_second: in batches.
    """

    model: str
    variant: str
    score: float
    low: float
    high: float
    agreement: float
    parameters: int
    bytes_on_disk: int
    peak_bytes: int
    p50_ms: float
    p95_ms: float
    texts_per_second: float

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Cost:
    """What a model is to have little of.

    Attributes:
      key: of a ``Point``.
      title: for people, with the unit.
      scale: from the point's number to that unit.
    """

    key: str
    title: str
    scale: float = 1.0

    def of(self, point: Point) -> float:
        """In the unit for people."""
        return float(getattr(point, self.key)) * self.scale


LATENCY = Cost("p50_ms", "latency of one text, p50, ms")
SIZE = Cost("bytes_on_disk", "model and tokeniser on disk, MB", 1e-6)
COSTS = (LATENCY, SIZE)


def dominated(costs_N: np.ndarray, scores_N: np.ndarray) -> np.ndarray:
    """Which points another one beats: no dearer and no worse, and one of the two better.

    Returns:
      bool [N]. Of equal points neither beats the other.
    """
    costs_N, scores_N = np.asarray(costs_N, float), np.asarray(scores_N, float)
    no_dearer_NN = costs_N[None] <= costs_N[:, None]
    no_worse_NN = scores_N[None] >= scores_N[:, None]
    better_NN = (costs_N[None] < costs_N[:, None]) | (scores_N[None] > scores_N[:, None])
    return np.any(no_dearer_NN & no_worse_NN & better_NN, axis=1)


def front(points: Sequence[Point], cost: Cost) -> list[Point]:
    """The points that none beats, the cheapest first."""
    costs = np.array([cost.of(point) for point in points])
    beaten = dominated(costs, np.array([point.score for point in points]))
    kept = [point for point, lost in zip(points, beaten, strict=True) if not lost]
    return sorted(kept, key=lambda point: (cost.of(point), -point.score))


HEAD = (
    "model",
    "variant",
    "score % [95%]",
    "agreement %",
    "parameters, M",
    "on disk, MB",
    "peak memory, MB",
    "p50, ms",
    "p95, ms",
    "texts/s",
    "on the front of",
)


def pareto_markdown(points: Sequence[Point], about: Sequence[str]) -> str:
    """Every point, and of which costs it is on the front.

    Args:
      about: lines of text that come under the table.
    """
    on = {cost.key: front(points, cost) for cost in COSTS}
    lines = [HEAD, ("---", "---", *["---:"] * (len(HEAD) - 3), "---")]
    for point in points:
        fronts = [name for name, cost in _NAMES if point in on[cost.key]]
        lines.append(
            (
                point.model,
                point.variant,
                f"{100 * point.score:.1f} [{100 * point.low:.1f}, {100 * point.high:.1f}]",
                f"{100 * point.agreement:.1f}",
                f"{point.parameters * 1e-6:.2f}",
                f"{point.bytes_on_disk * 1e-6:.1f}",
                f"{point.peak_bytes * 1e-6:.0f}",
                f"{point.p50_ms:.2f}",
                f"{point.p95_ms:.2f}",
                f"{point.texts_per_second:,.0f}",
                ", ".join(fronts),
            )
        )
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\n" + "\n\n".join(about) + "\n"


_NAMES = (("latency", LATENCY), ("size", SIZE))


def to_json(points: Sequence[Point], facts: Mapping[str, Any]) -> str:
    """Points and what was measured how."""
    whole = {**facts, "points": [asdict(point) for point in points]}
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> tuple[list[Point], dict[str, Any]]:
    """The inverse of ``to_json``.

    Raises:
      UserError: it is damaged.
    """
    try:
        facts = json.loads(text)
        return [Point(**each) for each in facts.pop("points")], facts
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"these are no points: {error}") from error
