"""Logits of a model for a whole table of examples."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from distill_jax.core.distributed import to_host
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import Placement, make_mesh, shard_batch
from distill_jax.core.sharding import ALONG_WIDTH, place
from distill_jax.core.types import Batch, TokenRange
from distill_jax.data.plan import ExampleTable, make_batch, plan_in_order

LogitsOf = Callable[[Any, Batch], jax.Array]


def logits_of(model: nn.Module) -> LogitsOf:
    """``apply(params, batch) -> logits_BC`` in evaluation mode; compile it once and keep it."""

    def apply(params: Any, batch: Batch) -> jax.Array:
        output: Any = model.apply({"params": params}, batch, train=False)
        return output.logits_BC

    return jax.jit(apply)


def predict_logits(
    apply: LogitsOf,
    params: Any,
    table: ExampleTable,
    *,
    shape_lengths: Sequence[int],
    batch_size: int,
    mesh: Mesh | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Logits [N, C], float32, in the order of the table; of a head that reads every token
    [N, T, C], where what stands behind the last token of an example means nothing.

    Args:
      apply: from ``logits_of``.
      shape_lengths: the static lengths batches are padded to, the longest example included.
      on_batch: called after every batch; may raise to stop.
    """
    mesh = mesh or make_mesh()
    params = place(params, ALONG_WIDTH, mesh)

    def forward(batch: Batch) -> jax.Array:
        return apply(params, shard_batch(batch, mesh))

    return _in_table_order(forward, table, shape_lengths, batch_size, on_batch, rows_axis=0)


def population_logits_of(model: nn.Module, placement: Placement) -> LogitsOf:
    """``apply(stacked params, batch) -> logits_PBC``: ``logits_of`` for all members at once."""
    return jax.jit(placement.vmap(logits_of(model), in_axes=(0, None)))


def population_logits(
    apply: LogitsOf,
    params: Any,
    table: ExampleTable,
    *,
    shape_lengths: Sequence[int],
    batch_size: int,
    placement: Placement,
    on_batch: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """``predict_logits`` of all members, [P, N, ...].

    Args:
      apply: from ``population_logits_of`` with the same placement.
      params: a stack [P, ...]; one that is placed already is not moved.
      shape_lengths: as in ``predict_logits``.
      batch_size: examples a batch; every device sees all of them, with its own members.
      on_batch: as in ``predict_logits``.
    """
    members = len(jax.tree.leaves(params)[0])
    params = placement.put_members(params)

    def forward(batch: Batch) -> jax.Array:
        return apply(params, placement.put_shared(batch))

    said = _in_table_order(forward, table, shape_lengths, batch_size, on_batch, rows_axis=1)
    return said[:members]


def _in_table_order(
    forward: Callable[[Batch], jax.Array],
    table: ExampleTable,
    shape_lengths: Sequence[int],
    batch_size: int,
    on_batch: Callable[[], None],
    *,
    rows_axis: int,
) -> np.ndarray:
    """The logits that ``forward`` gives of batches, put together along the axis of the examples."""
    rows, parts = [], []
    for planned in plan_in_order(table.lengths_N, shape_lengths, batch_size=batch_size):
        rows.append(planned.rows)
        parts.append(forward(make_batch(table, planned, batch_size=batch_size)))
        on_batch()
    said = []
    for part in parts:
        said.append(np.asarray(to_host(part), np.float32))
        on_batch()
    before: tuple[Any, ...] = (slice(None),) * rows_axis
    logits = [part[*before, : len(r)] for part, r in zip(said, rows, strict=True)]
    joined = np.concatenate(of_one_length(logits, rows_axis + 1), axis=rows_axis)
    in_order = np.empty_like(joined)
    in_order[(*before, np.concatenate(rows))] = joined
    return in_order


def of_one_length(parts: list[np.ndarray], axis: int) -> list[np.ndarray]:
    """Arrays filled up with 0 along an axis; those that have no axis behind it stay."""
    if parts[0].ndim <= axis + 1:
        return parts
    longest = max(part.shape[axis] for part in parts)
    filled = []
    for part in parts:
        widths = [(0, 0)] * part.ndim
        widths[axis] = (0, longest - part.shape[axis])
        filled.append(np.pad(part, widths))
    return filled


def one_by_one(table: ExampleTable, count: int, *, shape_lengths: Sequence[int]) -> list[Batch]:
    """``count`` batches of one example each, spread evenly over the table, for latencies."""
    rows = np.unique(np.linspace(0, len(table) - 1, count).astype(np.int32))
    few = table.take(rows)
    plan = plan_in_order(few.lengths_N, shape_lengths, batch_size=1)
    return [make_batch(few, planned, batch_size=1) for planned in plan]


def check_token_types(table: ExampleTable, model: TokenRange) -> None:
    """Raises ``UserError`` for pairs of texts where the model cannot tell the second one."""
    types = table.token_range.types
    if types > model.types:
        raise UserError(
            f"the texts are pairs (token type {types - 1}), the model has type_vocab_size "
            f"{model.types}: it was not made for pairs. Take another model, or join the "
            "two texts in one column"
        )
