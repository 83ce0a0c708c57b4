"""``prune``: weights that matter least become 0, at once or over the steps of the distil after."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from distill_jax.compression.steps import Step, StepContext, Student, register
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.training.pruning import (
    Pruning,
    Scope,
    best_of_group,
    kernels,
    largest,
    sparsity,
)
from distill_jax.training.state import Params

BATCHES = 16
"""Of training examples, on which gradients are taken."""


@register
@dataclass(frozen=True)
class Prune(Step):
    """Weights of kernels become 0; embeddings, biases, norms and the head are left alone.

    Attributes:
      share: of all weights of kernels that is 0 afterwards.
      by: ``magnitude``, ``gradient`` or ``movement``, see ``training.pruning``; by gradients at
        once, those of the run's objective on the training examples count.
      scope: ``global`` compares weights of all kernels, ``layer`` those of each.
      schedule: ``once``, or ``cubic`` over the steps of the distil that follows.
      pattern: ``2:4`` leaves 2 of every 4 inputs in a row that an output reads; its share is
        then the pattern's.
    """

    kind: ClassVar[str] = "prune"
    names_first: ClassVar[bool] = True

    share: float = 0.5
    by: Literal["magnitude", "gradient", "movement"] = "magnitude"
    scope: Scope = "global"
    schedule: Literal["once", "cubic"] = "once"
    pattern: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.share < 1:
            raise UserError(f"the share that is pruned must be in (0, 1), not {self.share:g}")
        if self.by == "movement" and self.schedule == "once":
            raise UserError("weights move while they are trained: by=movement needs schedule=cubic")
        if self.pattern:
            keep, of = self.groups
            if self.schedule != "once" or self.scope != "global" or self.share != 0.5:
                raise UserError("a pattern has its own share and no schedule: name it alone")
            if not 0 < keep < of:
                raise UserError(f"a pattern keeps some of a group, as 2:4, not {self.pattern}")

    @property
    def groups(self) -> tuple[int, int]:
        """Of the pattern: how many are kept, of how many."""
        found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", self.pattern)
        if not found:
            raise UserError(f"a pattern is KEPT:OF, as 2:4, not {self.pattern!r}")
        return int(found[1]), int(found[2])

    @property
    def waits(self) -> bool:
        return self.schedule == "cubic"

    def apply(self, student: Student, context: StepContext) -> Student:
        if self.waits:
            return student.but(pruning=Pruning(self.by, self.scope, self.share))
        scores = self._scores(student, context)
        if self.pattern:
            masks = {
                path: best_of_group(np.asarray(score), *self.groups, name="/".join(path))
                for path, score in scores.items()
            }
        else:
            left = {path: x != 0 for path, x in kernels(student.params).items()}
            masks = _largest(self.scope)(scores, left, np.float32(self.share))
        params = masked(student.params, masks)
        note = f"{100 * sparsity(params):.1f}% of the kernels' weights are 0"
        return student.but(params=params, notes=(note,))

    def _scores(self, student: Student, context: StepContext) -> dict[tuple[str, ...], Any]:
        weights = kernels(student.params)
        if self.by == "magnitude":
            return {path: jnp.abs(x) for path, x in weights.items()}
        slopes = [flatten_dict(found) for found in context.gradients(student, BATCHES)]
        return {
            path: sum((jnp.abs(x * found[path]) for found in slopes), jnp.zeros_like(x))
            for path, x in weights.items()
        }


def _largest(scope: Scope) -> Any:
    return jax.jit(lambda scores, left, share: largest(scores, left, share, scope=scope))


def masked(params: Params, masks: dict[tuple[str, ...], Any]) -> Params:
    """Parameters, 0 where a mask says so."""
    flat = flatten_dict(params)
    kept = {path: jnp.where(mask, flat[path], 0) for path, mask in masks.items()}
    return unflatten_dict({**flat, **kept})
