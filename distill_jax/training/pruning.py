"""Weights that go for good: masks beside the parameters, moved by the one step.

A pruned weight is exactly 0, and a weight of a kernel that is exactly 0 counts as pruned. So a
saved model needs no masks beside it, and whoever trains it further knows what must stay away.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.training.state import Params, TrainState, in_float32

By = Literal["kept", "magnitude", "movement", "gradient"]
Scope = Literal["global", "layer"]
Path = tuple[str, ...]
HEAD = "classifier"
"""The part of a model that is never pruned."""
UPDATES = 20
"""Times that weights go over a schedule: sorting all of them at each step would cost more than the
step."""


@dataclass(frozen=True)
class Pruning:
    """How weights go while a student is trained.

    ``sparsity`` rises by the cubic schedule of Zhu and Gupta 2017, "To prune, or not to prune"
    (eq. 1, from 0): ``s_t = s (1 - (1 - t / n)^3)`` after t of the n steps that it takes.

    Attributes:
      by: ``kept``: no more go than are gone. ``magnitude``: the smallest |w|. ``movement``: those
        that moved least away from 0, by the sum of ``-w g`` over the steps so far, g the gradient
        (Sanh et al. 2020, "Movement Pruning", eq. 4; here a weight that is gone stays away).
        ``gradient``: those of the smallest sum of ``|w g|`` (Molchanov et al. 2019, "Importance
        Estimation for Neural Network Pruning", eq. 4).
      scope: weights are compared all together (``global``) or within each kernel (``layer``).
      sparsity: share of the kernels' weights that is gone in the end.
      until: share of the steps after which it is; the rest of them mends.
    """

    by: By = "kept"
    scope: Scope = "global"
    sparsity: float = 0.0
    until: float = 0.7

    @property
    def static(self) -> Pruning:
        """What of it is compiled: the rest are numbers in the state."""
        return dataclasses.replace(self, sparsity=0.0, until=0.7)

    def start(self, params: Params, steps: int) -> dict[str, Any]:
        """The masks before the first of so many steps; what is 0 is gone already."""
        left = {path: np.asarray(x) != 0 for path, x in kernels(params).items()}
        masks: dict[str, Any] = {"left": unflatten_dict(left)}
        if self.by == "kept":
            return masks
        over = max(1, round(self.until * steps))
        numbers = {"over": over, "every": max(1, over // UPDATES)}
        masks |= {name: np.asarray(number, np.int32) for name, number in numbers.items()}
        masks["sparsity"] = np.asarray(self.sparsity, np.float32)
        if self.by != "magnitude":
            zeros = {path: np.zeros(x.shape, np.float32) for path, x in left.items()}
            masks["scores"] = unflatten_dict(zeros)
        return masks

    def of_the_left(self, tree: Params, masks: Mapping[str, Any]) -> Params:
        """Parameters or their gradients, 0 where a weight is gone."""
        flat = flatten_dict(tree)
        for path, left in flatten_dict(masks["left"]).items():
            flat[path] = jnp.where(left, flat[path], jnp.zeros((), flat[path].dtype))
        return unflatten_dict(flat)

    def pruned(self, state: TrainState, before: Params, grads: Params) -> TrainState:
        """The state after an update, what has to go gone.

        Args:
          state: updated, with the masks before the update.
          before: the parameters before it.
          grads: of those, float32.
        """
        masks = dict(state.masks)
        if self.by != "kept":
            masks = self._moved(masks, state, before, grads)
        return state.replace(  # type: ignore[attr-defined]
            params=self.of_the_left(state.params, masks), masks=masks
        )

    def _moved(
        self, masks: dict[str, Any], state: TrainState, before: Params, grads: Params
    ) -> dict[str, Any]:
        left = flatten_dict(masks["left"])
        if self.by == "magnitude":
            now = kernels(in_float32(state.params))
            scores = {path: jnp.abs(now[path]) for path in left}
        else:
            scores = self._added(flatten_dict(masks["scores"]), before, grads)
            masks = {**masks, "scores": unflatten_dict(scores)}
        over, every = masks["over"], masks["every"]
        due = (state.step % every == 0) & (state.step < over) | (state.step == over)
        gone = 1 - jnp.minimum(state.step.astype(jnp.float32) / over.astype(jnp.float32), 1)
        share = masks["sparsity"] * (1 - gone**3)
        chosen = jax.lax.cond(
            due, lambda: largest(scores, left, share, scope=self.scope), lambda: left
        )
        return {**masks, "left": unflatten_dict(chosen)}

    def _added(self, scores: dict[Path, Array], before: Params, grads: Params) -> dict[Path, Array]:
        weights, slopes = flatten_dict(in_float32(before)), flatten_dict(grads)
        added = {}
        for path, score in scores.items():
            moved = -weights[path] * slopes[path]
            added[path] = score + (moved if self.by == "movement" else jnp.abs(moved))
        return added


def kernels(params: Params) -> dict[Path, Any]:
    """What may be pruned, by path: the weights of all layers but the head's; no embeddings."""
    flat = flatten_dict(params)
    return {
        path: leaf
        for path, leaf in flat.items()
        if path[-1] == "kernel" and path[0] != HEAD and leaf.ndim > 1
    }


def sparsity(params: Params) -> float:
    """Share of the kernels' weights that are 0."""
    found = [np.asarray(leaf) for leaf in kernels(params).values()]
    return sum(int((x == 0).sum()) for x in found) / max(1, sum(x.size for x in found))


def largest(
    scores: Mapping[Path, Array],
    left: Mapping[Path, Array],
    share: Array | float,
    *,
    scope: Scope,
) -> dict[Path, Array]:
    """Masks of the weights of the largest scores; of equal ones those that stand later.

    Args:
      scores: by kernel, float32.
      left: masks of those that are not gone; the others stay so.
      share: of all that goes, in [0, 1).
    """
    if scope == "layer":
        return {
            path: _largest(score.reshape(-1), left[path].reshape(-1), share).reshape(score.shape)
            for path, score in scores.items()
        }
    flat = jnp.concatenate([jnp.asarray(score).reshape(-1) for score in scores.values()])
    still = jnp.concatenate([jnp.asarray(left[path]).reshape(-1) for path in scores])
    chosen, start, masks = _largest(flat, still, share), 0, {}
    for path, score in scores.items():
        size = math.prod(score.shape)
        masks[path] = chosen[start : start + size].reshape(score.shape)
        start += size
    return masks


def _largest(scores_N: Array, left_N: Array, share: Array | float) -> Array:
    count = len(scores_N)
    order_N = jnp.argsort(jnp.where(left_N, scores_N, -jnp.inf))
    places_N = jnp.arange(count, dtype=jnp.int32)
    rank_N = jnp.zeros(count, jnp.int32).at[order_N].set(places_N)
    goes = jnp.round(jnp.asarray(share, jnp.float32) * count).astype(jnp.int32)
    return left_N & (rank_N >= goes)


def best_of_group(score_KF: np.ndarray, keep: int, of: int, *, name: str) -> np.ndarray:
    """The mask of N:M sparsity: of every ``of`` inputs in a row that an output reads, ``keep``.

    Raises:
      UserError: when a kernel's inputs are no multiple of ``of``.
    """
    inputs, outputs = score_KF.shape
    if inputs % of:
        raise UserError(f"{keep}:{of} pruning: {name} has {inputs} inputs, no multiple of {of}")
    grouped = score_KF.reshape(inputs // of, of, outputs)
    rank = np.argsort(np.argsort(grouped, axis=1, kind="stable"), axis=1, kind="stable")
    return (rank >= of - keep).reshape(inputs, outputs)
