"""Batch plans: which rows make which batch, at which static length.

XLA compiles a step once a shape, so an epoch uses few lengths. Sentences of like length share a
batch, which keeps the padding small; who shares a batch with whom, and the order of the batches,
are random but a pure function of (lengths, seed, epoch): there is no iterator to save.
"""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch, TokenRange
from distill_jax.data.table import NO_LABEL

PADDING_ID = -1


class TrainingTable(Protocol):
    """What training needs of its examples: texts, images and histories make no difference."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names by the example ids of batches."""

    @property
    def lengths_N(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> Any:
        """The batch of ``rows``, each padded to ``length``, filled up to ``batch_size`` rows."""


class ExampleTable(TrainingTable, Protocol):
    """What evaluation and teacher caches need: tokens or images make no difference."""

    @property
    def labels_N(self) -> np.ndarray: ...

    @property
    def digest(self) -> str: ...

    @property
    def token_range(self) -> TokenRange: ...

    def take(self, rows: np.ndarray) -> "ExampleTable": ...

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> Batch: ...


@dataclasses.dataclass(frozen=True, eq=False)
class PlannedBatch:
    """int32 ``rows`` [<= batch_size] of a table, and the length they are padded to."""

    rows: np.ndarray
    length: int


def choose_lengths(
    lengths_N: np.ndarray,
    *,
    batch_size: int = 1,
    max_padding: float = 0.1,
    max_shapes: int = 16,
) -> tuple[int, ...]:
    """The fewest batch lengths that keep the padding of ``plan_epoch`` at ``max_padding``.

    An exact dynamic programme over the lengths that occur: batches are filled from the shortest
    rows up, so shapes ``s_1 < s_2 < ...`` hold ``sum_j s_j * (filled(s_j) - filled(s_j-1))``
    tokens, padding included, where ``filled(s)`` counts the rows of the batches that rows of at
    most ``s`` tokens can fill. A plan of any seed and epoch has at most that many.

    Args:
      lengths_N: tokens of every row that will be planned with these shapes (of all splits, if
        they share compilations); the longest is always covered.
      batch_size: rows of a batch; 1 counts only the padding inside rows.
      max_padding: share of an epoch's tokens that may be padding, missing rows of the partial
        batch included. Where ``max_shapes`` lengths cannot reach it, the best ones are used.
      max_shapes: how many lengths may be used, each a compilation.

    Returns:
      The lengths, ascending.
    """
    if not len(lengths_N):
        raise UserError("no rows to choose batch lengths for.")
    if min(batch_size, max_shapes) < 1:
        raise UserError("batch_size and max_shapes must be at least 1.")
    lengths_N = np.asarray(lengths_N, np.int64)
    allowed = lengths_N.sum() / (1 - max_padding)
    candidates_K, counts_K = np.unique(lengths_N, return_counts=True)
    # Index 0 is "no shape yet": length 0, nothing filled.
    length_K = np.append(0, candidates_K)
    filled_K = np.append(0, _filled(np.cumsum(counts_K), batch_size))
    cost_KK = (length_K[None, :] * (filled_K[None, :] - filled_K[:, None])).astype(np.float64)
    cost_KK[np.tril_indices(len(length_K), -1)] = np.inf
    least_K = np.where(length_K == 0, 0.0, np.inf)
    previous: list[np.ndarray] = []
    while len(previous) < max_shapes and least_K[-1] > allowed:
        total_KK = least_K[:, None] + cost_KK  # the diagonal is 0: fewer shapes are allowed
        previous.append(np.argmin(total_KK, axis=0))
        least_K = np.min(total_KK, axis=0)
    last, shapes = len(candidates_K), set()
    for previous_K in reversed(previous):
        if filled_K[last] > filled_K[previous_K[last]]:
            shapes.add(int(length_K[last]))
        last = previous_K[last]
    return tuple(sorted(shapes))


def plan_epoch(
    lengths_N: np.ndarray,
    shape_lengths: Sequence[int],
    *,
    batch_size: int,
    seed: int,
    epoch: int,
) -> tuple[PlannedBatch, ...]:
    """The batches of one epoch: every row once, in ``ceil(N / batch_size)`` batches.

    Rows are grouped at random inside a length class. What does not fill a batch moves up into
    the next longer class, and the one batch that cannot be full takes the shortest rows, where
    its padding costs least. The order of the batches is random.

    Args:
      lengths_N: tokens of every row.
      shape_lengths: the allowed batch lengths, see ``choose_lengths``.
      batch_size: rows of a batch.
      seed: non-negative; with ``epoch`` it decides everything random here.
      epoch: non-negative.

    Returns:
      The batches. Only numpy's bit generator is drawn from, whose stream is fixed for ever, so
      the plan does not change with numpy's version.
    """
    class_N = _length_classes(lengths_N, shape_lengths)
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    batches: list[PlannedBatch] = []
    pool = np.empty(0, np.int32)
    short = -len(class_N) % batch_size
    for k in range(len(shape_lengths)):
        pool = np.concatenate([pool, np.flatnonzero(class_N == k).astype(np.int32)])
        pool = pool[np.argsort(bits.random_raw(len(pool)), kind="stable")]
        while len(pool) + short >= batch_size:
            rows, pool = pool[: batch_size - short], pool[batch_size - short :]
            batches.append(PlannedBatch(rows, int(shape_lengths[class_N[rows].max()])))
            short = 0
    order = np.argsort(bits.random_raw(len(batches)), kind="stable")
    return tuple(batches[i] for i in order)


def plan_in_order(
    lengths_N: np.ndarray, shape_lengths: Sequence[int], *, batch_size: int
) -> tuple[PlannedBatch, ...]:
    """Every row once, shortest rows first, without randomness: for evaluation and caches."""
    class_N = _length_classes(lengths_N, shape_lengths)
    rows_N = np.argsort(np.asarray(lengths_N), kind="stable").astype(np.int32)
    first = len(rows_N) % batch_size or batch_size
    cuts = range(first, len(rows_N), batch_size)
    return tuple(
        PlannedBatch(rows, int(shape_lengths[class_N[rows].max()]))
        for rows in np.split(rows_N, list(cuts))
    )


def worthwhile_lengths(
    lengths_N: np.ndarray, *, compiled: Collection[int], price: float, longest: int
) -> tuple[int, ...]:
    """The batch lengths with the fewest tokens, padding included, a new length at its price.

    An exact dynamic programme over multiples of 8, ``longest``, and what is compiled.

    Args:
      lengths_N: tokens of the rows to be planned, each at most ``longest``.
      compiled: lengths that cost nothing.
      price: of any other length, in tokens: what could be computed while it is compiled.
      longest: that a batch may have.

    Returns:
      Ascending; the longest row is covered.
    """
    counts_L = np.bincount(lengths_N, minlength=longest + 1)
    allowed = {*range(8, longest, 8), longest, *compiled}
    length_K = np.array([0, *sorted(allowed)])
    rows_K = np.cumsum(counts_L)[length_K]
    price_K = np.array([0.0 if k in compiled else price for k in length_K.tolist()])
    least_K, previous_K = np.zeros(len(length_K)), np.zeros(len(length_K), int)
    for k in range(1, len(length_K)):
        cost_J = least_K[:k] + length_K[k] * (rows_K[k] - rows_K[:k]) + price_K[k]
        previous_K[k] = np.argmin(cost_J)
        least_K[k] = cost_J[previous_K[k]]
    whole = np.flatnonzero(rows_K == len(lengths_N))
    k = int(whole[np.argmin(least_K[whole])])
    chosen = []
    while k:
        if rows_K[k] > rows_K[previous_K[k]]:
            chosen.append(int(length_K[k]))
        k = int(previous_K[k])
    return tuple(reversed(chosen))


def plan_full(
    lengths_N: np.ndarray, shape_lengths: Sequence[int], rows_at: Callable[[int], int]
) -> tuple[PlannedBatch, ...]:
    """Every row once, longest rows first, in batches of as many rows as their length has.

    All are full but the one of the shortest rows.

    Args:
      rows_at: rows of a batch of a length, at least 1.
    """
    class_N = _length_classes(lengths_N, shape_lengths)
    rows_N = np.argsort(-np.asarray(lengths_N), kind="stable").astype(np.int32)
    planned, start = [], 0
    while start < len(rows_N):
        length = int(shape_lengths[class_N[rows_N[start]]])
        stop = start + rows_at(length)
        planned.append(PlannedBatch(rows_N[start:stop], length))
        start = stop
    return tuple(planned)


def make_batch(table: ExampleTable, planned: PlannedBatch, *, batch_size: int) -> Batch:
    """The arrays of one planned batch, as numpy arrays.

    Rows that are missing to ``batch_size`` get example id -1 and no real token; a row without a
    label gets ``label_where_B`` False.
    """
    return table.batch(planned.rows, planned.length, batch_size)


def example_arrays(rows: np.ndarray, labels_N: np.ndarray, batch_size: int) -> dict[str, Any]:
    """The fields of a ``Batch`` that say which examples it holds and what their labels are."""
    labels_B = filled(labels_N[rows], batch_size, NO_LABEL)
    return {
        "example_ids_B": filled(rows, batch_size, PADDING_ID),
        "labels_B": np.maximum(labels_B, 0),
        "label_where_B": labels_B >= 0,
    }


def filled(rows: np.ndarray, batch_size: int, padding: int = 0) -> np.ndarray:
    """Rows of padding added up to ``batch_size``; whole numbers become int32."""
    rows = np.asarray(rows)
    kind = np.int32 if rows.dtype.kind == "i" else rows.dtype
    whole = np.full((batch_size, *rows.shape[1:]), padding, kind)
    whole[: len(rows)] = rows
    return whole


def _filled(rows_upto_K: np.ndarray, batch_size: int) -> np.ndarray:
    """Rows, padding included, of the batches that the ``rows_upto_K`` shortest rows can fill."""
    short = -rows_upto_K[-1] % batch_size
    return (rows_upto_K + short) // batch_size * batch_size


def _length_classes(lengths_N: np.ndarray, shape_lengths: Sequence[int]) -> np.ndarray:
    """For every row, the position of the shortest shape that holds it."""
    lengths_N = np.asarray(lengths_N)
    shapes = np.asarray(shape_lengths)
    if not len(lengths_N):
        raise UserError("no rows to plan batches for.")
    if not len(shapes) or (np.diff(shapes) <= 0).any():
        raise ValueError(f"batch lengths must be ascending, not {tuple(shape_lengths)}")
    if lengths_N.max() > shapes[-1]:
        raise UserError(
            f"a row has {lengths_N.max()} tokens, the longest batch length is {shapes[-1]}: "
            "choose the batch lengths from the lengths of all splits."
        )
    return np.searchsorted(shapes, lengths_N)
