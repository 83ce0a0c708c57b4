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
from distill_jax.training.ingredients.base import Passed
from distill_jax.training.state import Params, in_float32

Tree = TypeVar("Tree")
Apply = Callable[[Params, Batch, Any], Any]
LossFn = Callable[[Params, Any, Output | None, Batch], tuple[jax.Array, dict[str, Any]]]


def one_pass(
    apply: Apply,
    loss_fn: LossFn,
    trained: dict[str, Params],
    batch: Batch,
    shift: jax.Array | None,
    teacher_output: Output | None,
    *,
    accumulate: int,
    axis: str | None,
) -> Passed:
    """The loss of the whole batch with its terms, and the gradients of ``trained``.

    Args:
      apply: what the student says of some rows, in training mode: of its parameters, the rows, and
        their part of ``shift``.
      loss_fn: the objective, of the losses' own parameters and a whole batch.
      trained: ``{"student": ..., "losses": ...}``.
      batch: this device's rows.
      shift: of the embeddings of their tokens, [B, T, D]; its gradient is wanted too. None where
        they stay.
      accumulate, axis: see ``make_step``.
    """
    if accumulate > 1 or axis is not None:
        return _by_parts(
            apply,
            loss_fn,
            trained,
            batch,
            shift,
            teacher_output,
            accumulate=accumulate,
            axis=axis,
        )

    def loss(trained: dict[str, Any], shift: Any) -> tuple[jax.Array, dict[str, Any]]:
        said = apply(trained["student"], batch, shift)
        return loss_fn(trained["losses"], said, teacher_output, batch)

    (total, terms), (grads, back) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        trained, shift
    )
    return Passed(total, terms, grads, back)


def rows_of(batch: Batch, axis: str | None) -> jax.Array:
    """int32 [B]: the place of each row of a device in the batch of all devices."""
    rows = len(batch.example_ids_B)
    first = jax.lax.axis_index(axis).astype(jnp.int32) * jnp.int32(rows) if axis else jnp.int32(0)
    return first + jnp.arange(rows, dtype=jnp.int32)


def _by_parts(
    apply: Apply,
    loss_fn: LossFn,
    trained: dict[str, Params],
    batch: Batch,
    shift: jax.Array | None,
    teacher_output: Output | None,
    *,
    accumulate: int,
    axis: str | None,
) -> Passed:
    """``one_pass`` in parts: row r goes to part ``r % accumulate``, so that every device of a mesh
    keeps its rows."""
    part_rows = rows_of(batch, axis)
    rows, first = len(part_rows), part_rows[0]
    parts = _cut((batch, part_rows, shift), accumulate)

    def apply_part(params: Params, rows: Batch, places: jax.Array, shift: Any) -> Any:
        with rows_of_batch(places):
            return apply(params, rows, shift)

    def loss_of_parts(loss_params: Params, said: Any, shared: Any, *others: Any) -> Any:
        return loss_fn(loss_params, said.with_shared(shared), *others)

    _, (said, shared) = jax.lax.scan(
        lambda _, part: (None, apply_part(trained["student"], *part).split_shared()),
        None,
        parts,
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

    def add(grads: Params, part_and_back: tuple[Any, Any]) -> tuple[Params, Any]:
        (part, places, own_shift), own_back = part_and_back
        _, pull = jax.vjp(
            lambda params, shift: apply_part(params, part, places, shift),
            trained["student"],
            own_shift,
        )
        own, shift_back = pull(own_back.with_shared(shared_back))
        return jax.tree.map(jnp.add, grads, in_float32(own)), shift_back

    zeros = in_float32(jax.tree.map(jnp.zeros_like, trained["student"]))
    grads, shift_back = jax.lax.scan(add, zeros, (parts, _cut(back, accumulate)))
    if axis:
        grads = jax.lax.psum(grads, axis)
    total, terms = value
    own = {"student": grads, "losses": loss_grads}
    return Passed(total, terms, own, _join(shift_back))


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
