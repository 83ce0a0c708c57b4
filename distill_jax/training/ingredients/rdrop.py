"""R-Drop: two passes with other dropout, which are to say the same."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import struct

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.types import Batch, Output
from distill_jax.losses.consistency import symmetric_kl
from distill_jax.training.ingredients.base import Ingredient, Say, Terms, Value, register
from distill_jax.training.state import Params


@struct.dataclass
class Twice(Output):
    """What a student says of a batch, twice."""

    first: Any
    second: Any

    def split_shared(self) -> tuple[Twice, dict[str, Any]]:
        """See ``Output``."""
        (first, one), (second, other) = self.first.split_shared(), self.second.split_shared()
        return Twice(first, second), {"first": one, "second": other}

    def with_shared(self, shared: dict[str, Any]) -> Twice:
        """The inverse of ``split_shared``."""
        first, second = shared["first"], shared["second"]
        return Twice(self.first.with_shared(first), self.second.with_shared(second))


@register
@dataclass(frozen=True)
class RDrop(Ingredient):
    """``L(1) + L(2) + alpha * (KL(p1 || p2) + KL(p2 || p1)) / 2``, L the objective of a pass.

    Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", eq. 2 to 4. The second
    pass has a dropout of its own, of the same rates. The divergence is of every example, labelled
    or not. ``passes="mean"`` halves the sum of the objectives, so that ``alpha`` weighs twice as
    much.
    """

    kind: ClassVar[str] = "rdrop"
    place: ClassVar[str] = "passes"

    alpha: float = 1.0
    passes: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.alpha < math.inf:
            raise UserError(f"alpha of rdrop must not be negative, not {self.alpha}")

    def check(self, num_classes: int, embeddings: tuple[str, ...]) -> None:
        if num_classes < 2:
            raise UserError(
                "rdrop compares distributions over classes, of which there are none here"
            )

    def says(self, say: Say) -> Say:
        def twice(params: Params, batch: Batch, key: jax.Array, shift: Any) -> Twice:
            first = say(params, batch, key, shift)
            return Twice(first, say(params, batch, jax.random.fold_in(key, 1), shift))

        return twice

    def value(self, value: Value) -> Value:
        def of_both(
            loss_params: Params, said: Twice, teacher: Output | None, batch: Batch
        ) -> tuple[jax.Array, Terms]:
            total, terms = value(loss_params, said.first, teacher, batch)
            other, others = value(loss_params, said.second, teacher, batch)
            both = {name: jax.tree.map(jnp.add, own, others[name]) for name, own in terms.items()}
            one_BC, other_BC = said.first.scores, said.second.scores
            apart_B = symmetric_kl(one_BC, other_BC, where=batch.where_B)
            apart = jnp.sum(apart_B)
            count = jnp.sum(batch.where_B, dtype=apart.dtype)
            share = 1.0 if self.passes == "sum" else 0.5
            total = share * (total + other) + self.alpha * apart / jnp.maximum(count, 1)
            return total, {**both, self.kind: (apart, count)}

        return of_both
