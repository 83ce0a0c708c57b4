"""Gradients of a batch whose model runs in parts: one after another, on several devices, or both.

The model speaks part by part, the losses judge the whole batch, and what they say goes back into
the model part by part, as in "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup" (Gao et al. 2021, section 3). So losses that compare examples with one another (RKD, SP,
CRD, CKA) see all of them, sums are divided by the counts of the whole batch, and the result is
that of one part. The price of several parts is a second forward pass.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from distill_jax.core.ranking_types import RankingOutput
from distill_jax.core.types import Batch, ModelOutput
from distill_jax.models.dropout import rows_of_batch
from distill_jax.training.state import Params, in_float32

Tree = TypeVar("Tree")
Say = Callable[[Params, Batch], ModelOutput]
Judge = Callable[[Params, ModelOutput, ModelOutput | None, Batch], tuple[jax.Array, dict[str, Any]]]


def gradients_by_parts(
    say: Say,
    judge: Judge,
    trained: dict[str, Params],
    batch: Batch,
    teacher_output: ModelOutput | None,
    *,
    accumulate: int,
    axis: str | None,
) -> tuple[tuple[jax.Array, dict[str, Any]], dict[str, Params]]:
    """The loss of the whole batch with its terms, and the gradients of ``trained``.

    Args:
      say: the student's output for a part, in training mode.
      judge: the objective, of the losses' own parameters and a whole batch.
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

    def speak(params: Params, part: tuple[Batch, jax.Array]) -> ModelOutput:
        with rows_of_batch(part[1]):
            return say(params, part[0])

    def judge_parts(loss_params: Params, said: Any, shared: Any, *others: Any) -> Any:
        return judge(loss_params, _merge(said, shared), *others)

    _, (said, shared) = jax.lax.scan(
        lambda _, part: (None, _split(speak(trained["student"], part))), None, parts
    )
    shared = jax.tree.map(lambda x: x[0], shared)
    said_by_all, teacher_by_all, everything = _gather((_join(said), teacher_output, batch), axis)
    value, (loss_grads, back, shared_back) = jax.value_and_grad(
        judge_parts, argnums=(0, 1, 2), has_aux=True
    )(trained["losses"], said_by_all, shared, teacher_by_all, everything)
    if axis:
        back = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, rows), back)
    sayings = accumulate * (jax.lax.axis_size(axis) if axis else 1)
    shared_back = jax.tree.map(lambda x: x / sayings, shared_back)  # each part gives its share

    def add(grads: Params, part_and_back: tuple[Any, ModelOutput]) -> tuple[Params, None]:
        part, own_back = part_and_back
        _, pull = jax.vjp(lambda params: speak(params, part), trained["student"])
        own = pull(_merge(own_back, shared_back))[0]
        return jax.tree.map(jnp.add, grads, in_float32(own)), None

    zeros = in_float32(jax.tree.map(jnp.zeros_like, trained["student"]))
    grads, _ = jax.lax.scan(add, zeros, (parts, _cut(back, accumulate)))
    if axis:
        grads = jax.lax.psum(grads, axis)
    return value, {"student": grads, "losses": loss_grads}


def _split(output: Any) -> tuple[Any, Any]:
    """What has a row an example, and what is said once for all of them (None where nothing is)."""
    if not isinstance(output, RankingOutput):
        return output, None
    rows = output.replace(items_ID=None, item_bias_I=None)  # type: ignore[attr-defined]
    return rows, (output.items_ID, output.item_bias_I)


def _merge(rows: Any, shared: Any) -> Any:
    """The inverse of ``_split``."""
    return rows if shared is None else rows.replace(items_ID=shared[0], item_bias_I=shared[1])


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
