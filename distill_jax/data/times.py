"""Times as files give them: seconds, or finer; what was understood, as dates."""

from __future__ import annotations

import datetime

import numpy as np

from distill_jax.core.errors import UserError

_UNITS = ((1e17, 1e9, "nanoseconds"), (1e14, 1e6, "microseconds"), (1e11, 1e3, "milliseconds"))
"""From which number on, how many a second, what they are called: 1e11 seconds is the year 5138."""
_EARLY = 1e8
"""Seconds before March 1973 are rather numbers of an order than times."""


def in_seconds(times_N: np.ndarray, where: object, column: str) -> tuple[np.ndarray, str]:
    """Times in seconds, and a sentence on what was understood.

    Args:
      times_N: numbers of any unit, or seconds.
      where: the file, for errors.

    Raises:
      UserError: where some are seconds and some finer.
    """
    largest = float(times_N.max())
    least, a_second, unit = next((each for each in _UNITS if largest >= each[0]), (0, 1, "seconds"))
    if least and ((times_N > _EARLY) & (times_N < least)).any():
        odd = times_N[(times_N > _EARLY) & (times_N < least)][0]
        raise UserError(
            f"{where}: column {column!r} holds {unit} ({largest:.0f}) beside coarser times "
            f"({odd:.0f}); expected one unit."
        )
    times_N = times_N / a_second if least else times_N
    first, last = _shown(float(times_N.min())), _shown(float(times_N.max()))
    if largest < _EARLY:
        return times_N, f"times from {times_N.min():g} to {largest:g} (column {column!r})"
    finer = f" in {unit}" if least else ""
    return times_N, f"times from {first} to {last} (column {column!r}{finer}, UTC)"


def _shown(seconds: float) -> str:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date().isoformat()
    except (OverflowError, OSError, ValueError):
        return f"{seconds:g} s"
