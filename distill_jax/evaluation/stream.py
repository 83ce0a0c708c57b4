"""Texts without end through a classifier: windows of them, sorted by length inside.

While a model works on one window, the next is read and tokenised, and the one before written. What
is held is a few windows, however long the stream.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from distill_jax.core.mesh import make_mesh, shard_batch
from distill_jax.core.sharding import ALONG_WIDTH, place
from distill_jax.core.types import Batch
from distill_jax.data.plan import (
    ExampleTable,
    PlannedBatch,
    make_batch,
    plan_full,
    worthwhile_lengths,
)
from distill_jax.evaluation.predict import LogitsOf, of_one_length

Item = TypeVar("Item")

WINDOW = 16_384
"""Texts that are sorted at a time."""
CPU_TOKENS, DEVICE_TOKENS = 3072, 65_536
"""Of a batch, padding included. On CPUs more are slower: from 4,096 on XLA takes four times the
memory for them, and a token of a small model twice the time."""
COMPILING = 8e8
"""What a compilation costs on CPUs, in tokens of a model of width 1; of width D by D^2 less."""
DEVICE_SPEED = 100
"""Tokens that an accelerator computes while a CPU computes one."""
_IN_FLIGHT = 2
_END: Any = object()


class Runtime(Protocol):
    """What says logits of batches: a compiled model, or another program that holds one.

    ``runtime(batch)`` gives logits [B, C] of any kind of array, which need not be there yet.
    """

    @property
    def shape_price(self) -> float:
        """What it costs to be asked about another shape, in tokens that could be computed
        meanwhile; 0 where every shape is as good."""

    @property
    def batch_tokens(self) -> int:
        """Of a batch that it is fast at, padding included."""

    def __call__(self, batch: Batch) -> Any: ...


class Compiled:
    """A model under JAX, on the first device: each shape of a batch is compiled.

    Args:
      apply: from ``logits_of``.
      width: of the model's hidden states.
    """

    def __init__(self, apply: LogitsOf, params: Any, *, width: int) -> None:
        on_cpu = jax.default_backend() == "cpu"
        self._apply, self._mesh = apply, make_mesh(jax.devices()[:1])
        self._params = place(params, ALONG_WIDTH, self._mesh)
        self.batch_tokens = CPU_TOKENS if on_cpu else DEVICE_TOKENS
        self.shape_price = COMPILING / width**2 * (1 if on_cpu else DEVICE_SPEED)

    def __call__(self, batch: Batch) -> jax.Array:
        return self._apply(self._params, shard_batch(batch, self._mesh))


class WindowPredictor:
    """Logits of windows of any size, in few shapes where each has its price.

    A batch has as many rows as make it large enough, or ``batch_size``. Which shapes there are
    depends on the texts' lengths and expected number alone: the same stream, the same answers.

    Args:
      longest: tokens that a text may have.
      batch_size: rows of a batch; None for what suits the machine.
      windows: how many are expected, which share the price of what is compiled.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        longest: int,
        batch_size: int | None = None,
        windows: float = 1.0,
    ) -> None:
        self._runtime, self._longest, self._batch_size = runtime, longest, batch_size
        self._price = runtime.shape_price / max(windows, 1.0)
        self._compiled: set[int] = set()

    @property
    def shape_lengths(self) -> tuple[int, ...]:
        """Of the batches so far, each a compilation."""
        return tuple(sorted(self._compiled))

    def rows_at(self, length: int) -> int:
        """Rows of a batch of this length."""
        return self._batch_size or max(8, self._runtime.batch_tokens // length // 8 * 8)

    def __call__(
        self, table: ExampleTable, on_rows: Callable[[int], None] = lambda rows: None
    ) -> np.ndarray:
        """Logits [N, C], or [N, T, C], float32, in the order of the table.

        Args:
          on_rows: called with the rows of every batch that is finished.
        """
        lengths_N = table.lengths_N
        shapes = worthwhile_lengths(
            lengths_N, compiled=self._compiled, price=self._price, longest=self._longest
        )
        plan = plan_full(lengths_N, shapes, self.rows_at)
        fresh = {p.length: p for p in plan if p.length not in self._compiled and self._price}
        with ThreadPoolExecutor() as pool:  # XLA compiles without the interpreter's lock
            list(pool.map(lambda planned: self._forward(table, planned), fresh.values()))
        self._compiled.update(fresh)
        parts: list[np.ndarray] = []
        flying: deque[Any] = deque()

        def land() -> None:
            planned = plan[len(parts)]
            parts.append(np.asarray(flying.popleft(), np.float32)[: len(planned.rows)])
            on_rows(len(planned.rows))

        for planned in plan:
            flying.append(self._forward(table, planned))
            if len(flying) > _IN_FLIGHT:
                land()
        while flying:
            land()
        joined = np.concatenate(of_one_length(parts, 1))
        in_order = np.empty_like(joined)
        in_order[np.concatenate([planned.rows for planned in plan])] = joined
        return in_order

    def _forward(self, table: ExampleTable, planned: PlannedBatch) -> Any:
        rows = self.rows_at(planned.length) if self._price else len(planned.rows)
        return self._runtime(make_batch(table, planned, batch_size=rows))


def windows_of(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items, the last one of what is left."""
    source = iter(items)
    while some := list(itertools.islice(source, size)):
        yield some


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; while one is in use, a thread makes the next."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, _END)
        while (item := coming.result()) is not _END:
            coming = pool.submit(next, items, _END)
            yield item
