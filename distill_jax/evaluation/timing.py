"""Timed calls and how their times are summed up; whoever computes, so nothing of JAX here."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Latency:
    """Time of one call, in milliseconds.

    Attributes:
      p50_ms, p95_ms: percentiles over the batches, each batch standing with the median of its
        repeats: the spread is that of the inputs (their lengths), not of the machine's noise.
      runs: timed calls in all.
    """

    p50_ms: float
    p95_ms: float
    runs: int


def timed_pass(
    call: Callable[[Any], object],
    batches: Sequence[Any],
    on_call: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Nanoseconds of ``call(batch)`` for each batch, one after another: int64 [batches].

    Args:
      call: returns when its answer is there.
      on_call: called after every batch, outside the timing.
    """
    taken_B = np.empty(len(batches), np.int64)
    for index, batch in enumerate(batches):
        start = time.perf_counter_ns()
        call(batch)
        taken_B[index] = time.perf_counter_ns() - start
        on_call()
    return taken_B


def latency_of(passes: Sequence[np.ndarray]) -> Latency:
    """The latency from some passes over the same batches."""
    nanoseconds_RB = np.stack(passes)
    p50, p95 = np.percentile(np.median(nanoseconds_RB, axis=0) / 1e6, [50, 95])
    return Latency(p50_ms=float(p50), p95_ms=float(p95), runs=nanoseconds_RB.size)


def throughput_of(passes: Sequence[np.ndarray], rows: int) -> float:
    """Rows a second from some passes over the same batches, which hold so many rows together.

    Each batch stands with the median of its repeats, as in a ``Latency``.
    """
    return rows / (float(np.median(np.stack(passes), axis=0).sum()) / 1e9)
