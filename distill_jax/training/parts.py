"""Gradients of a batch whose model runs in parts: one after another, on several devices, or both.

The model is applied part by part, the losses see the whole batch, and their gradients go back into
the model part by part, as in "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup" (Gao et al. 2021, section 3). So losses that compare examples with one another (RKD, SP,
CRD, CKA) see all of them, sums are divided by the counts of the whole batch, and the result is
that of one part. The price of several parts is a second forward pass.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from distill_jax.core.types import Batch, Output
from distill_jax.models.dropout import rows_of_batch
from distill_jax.training.state import Params, in_float32

Tree = TypeVar("Tree")
Apply = Callable[[Params, Batch], Output]
LossFn = Callable[[Params, Output, Output | None, Batch], tuple[jax.Array, dict[str, Any]]]


def gradients_by_parts(
    apply: Apply,
    loss_fn: LossFn,
    trained: dict[str, Params],
    batch: Batch,
    teacher_output: Output | None,
    *,
    accumulate: int,
    axis: str | None,
) -> tuple[tuple[jax.Array, dict[str, Any]], dict[str, Params]]:
    """The loss of the whole batch with its terms, and the gradients of ``trained``.

    Args:
      apply: the student's output for a part, in training mode.
      loss_fn: the objective, of the losses' own parameters and a whole batch.
      trained: ``{"student": ..., "losses": ...}``.
      batch: this device's rows.
      accumulate: parts into which they are cut; row r goes to part ``r % accumulate``, so that
        every device of a mesh keeps its rows.
      axis: of ``pmap``; None where this device has all rows.
    """
    rows = len(batch.example_ids_B)
    first = jax.lax.axis_index(axis).astype(jnp.int32) * jnp.int32(rows) if axis else jnp.int32(0)
    part_rows = first + jnp.arange(rows, dtype=jnp.int32)
    parts = _cut((batch, part_rows), accumulate)

    def apply_part(params: Params, part: tuple[Batch, jax.Array]) -> Output:
        with rows_of_batch(part[1]):
            return apply(params, part[0])

    def loss_of_parts(loss_params: Params, said: Any, shared: Any, *others: Any) -> Any:
        return loss_fn(loss_params, said.with_shared(shared), *others)

    _, (said, shared) = jax.lax.scan(
        lambda _, part: (None, apply_part(trained["student"], part).split_shared()), None, parts
    )
    shared = jax.tree.map(lambda x: x[0], shared)
    said_by_all, teacher_by_all, everything = _gather((_join(said), teacher_output, batch), axis)
    value, (loss_grads, back, shared_back) = jax.value_and_grad(
        loss_of_parts, argnums=(0, 1, 2), has_aux=True
    )(trained["losses"], said_by_all, shared, teacher_by_all, everything)
    if axis:
        back = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, rows), back)
    sayings = accumulate * (jax.lax.axis_size(axis) if axis else 1)
    shared_back = jax.tree.map(lambda x: x / sayings, shared_back)  # each part gives its share

    def add(grads: Params, part_and_back: tuple[Any, Output]) -> tuple[Params, None]:
        part, own_back = part_and_back
        _, pull = jax.vjp(lambda params: apply_part(params, part), trained["student"])
        own = pull(own_back.with_shared(shared_back))[0]
        return jax.tree.map(jnp.add, grads, in_float32(own)), None

    zeros = in_float32(jax.tree.map(jnp.zeros_like, trained["student"]))
    grads, _ = jax.lax.scan(add, zeros, (parts, _cut(back, accumulate)))
    if axis:
        grads = jax.lax.psum(grads, axis)
    return value, {"student": grads, "losses": loss_grads}


def _cut(tree: Tree, parts: int) -> Tree:
    """[B, ...] -> [parts, B / parts, ...]."""
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), tree)


def _join(tree: Tree) -> Tree:
    """[parts, B / parts, ...] -> [B, ...], rows where they were before ``_cut``."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), tree)


def _gather(tree: Tree, axis: str | None) -> Tree:
    """The rows of all devices, in order."""
    if axis is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(x, axis, tiled=True), tree)
