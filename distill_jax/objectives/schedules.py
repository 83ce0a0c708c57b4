"""Numbers that change while training: ``linear(1, 0)``, ``cosine(1, 0)``, ``piecewise``, ``step``.

A schedule is a function of the share of the training that is done, from 0 to 1; it is evaluated on
the host, so that it never takes part in a compilation.
"""

from __future__ import annotations

import bisect
import dataclasses
import math

KINDS = ("linear", "cosine", "geometric", "piecewise", "step")
RAMPS = ("linear", "cosine", "geometric")
"""From one value to another."""


def format_number(value: float) -> str:
    """The shortest text that reads back as the same number: ``4``, ``0.1``, ``1e-05``."""
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(float(value))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A number as a function of the share of training done.

    Attributes:
      kind: ``linear``, ``cosine`` or ``geometric`` (from the first point's value to the second's,
        along a line, half a cosine, or by a factor a step; constant outside), ``piecewise`` (lines
        between the points) or ``step`` (each value holds from its point on; the first also before
        it).
      points: (share, value), shares rising within [0, 1].
    """

    kind: str
    points: tuple[tuple[float, float], ...]

    def at(self, share: float) -> float:
        """The value when ``share`` (0 to 1) of the training is done."""
        shares = [point for point, _ in self.points]
        after = bisect.bisect_right(shares, share)
        if after == 0:
            return self.points[0][1]
        if after == len(shares) or self.kind == "step":
            return self.points[after - 1][1]
        (left, low), (right, high) = self.points[after - 1 : after + 1]
        way = (share - left) / (right - left)
        if self.kind == "geometric":
            return low * (high / low) ** way
        if self.kind == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return low + (high - low) * way

    @property
    def extremes(self) -> tuple[float, float]:
        """The least and the greatest value the schedule ever takes."""
        values = [value for _, value in self.points]
        return min(values), max(values)

    def __str__(self) -> str:
        if self.kind in RAMPS:
            (start, first), (end, last) = self.points
            text = f"{format_number(first)}, {format_number(last)}"
            text += f", start={format_number(start)}" if start != 0 else ""
            text += f", end={format_number(end)}" if end != 1 else ""
            return f"{self.kind}({text})"
        pairs = (f"{format_number(share)}: {format_number(value)}" for share, value in self.points)
        return f"{self.kind}({{{', '.join(pairs)}}})"


def value_at(number: float | Schedule, share: float) -> float:
    """A number or a schedule's value when ``share`` of the training is done."""
    return number.at(share) if isinstance(number, Schedule) else float(number)
