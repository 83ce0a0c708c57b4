"""FreeLB: several passes, each from a worse place, all of which teach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.models.dropout import hash_bits, rows_of_batch
from distill_jax.training.ingredients.attack import TINY, along, check_embeddings, length
from distill_jax.training.ingredients.base import Around, Ingredient, Once, Passed, register
from distill_jax.training.state import in_float32


@register
@dataclass(frozen=True)
class FreeLb(Ingredient):
    """The mean gradient over ``steps`` shifts of the embeddings, each an ascent from the last.

    Zhu et al. 2020, "FreeLB: Enhanced Adversarial Training for Natural Language Understanding",
    algorithm 1: the first shift is uniform in ``[-epsilon, epsilon]`` over the root of the number
    of its elements; each further one goes ``rate`` along the gradient, and back into the ball of
    radius ``epsilon``. A shift is of one example, over all its tokens; all passes have the same
    dropout (section 3.3).
    """

    kind: ClassVar[str] = "freelb"
    place: ClassVar[str] = "attack"
    attacks: ClassVar[bool] = True

    steps: int = 3
    rate: float = 0.1
    epsilon: float = 0.6

    def __post_init__(self) -> None:
        check_fields(self)
        if not 1 <= self.steps <= 100:
            raise UserError(f"steps of freelb must be from 1 to 100, not {self.steps}")
        if not (0 < self.rate < math.inf and 0 < self.epsilon < math.inf):
            raise UserError(
                f"rate and epsilon of freelb must be positive, not {self.rate} and {self.epsilon}"
            )

    def check(self, num_classes: int, embeddings: tuple[str, ...]) -> None:
        check_embeddings(self.kind, embeddings)

    def gradients(self, once: Once, around: Around) -> Passed:
        def ascend(shift_BTD: jax.Array) -> tuple[jax.Array, Any]:
            passed = once(shift_BTD)
            assert passed.shift_BTD is not None
            further_BTD = shift_BTD + self.rate * along(passed.shift_BTD, around.where_BT)
            said = passed.total, passed.terms, in_float32(passed.grads)
            return self._inside(further_BTD), said

        def taken(carry: Any, _: None) -> tuple[Any, None]:
            shift_BTD, so_far = carry
            shift_BTD, said = ascend(shift_BTD)
            return (shift_BTD, jax.tree.map(jnp.add, so_far, said)), None

        start_BTD = self._first(around)
        _, shapes = jax.eval_shape(ascend, start_BTD)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (_, sums), _ = jax.lax.scan(taken, (start_BTD, nothing), length=self.steps)
        total, terms, grads = sums
        share = 1 / self.steps
        return Passed(total * share, terms, jax.tree.map(lambda x: x * share, grads), None)

    def _first(self, around: Around) -> jax.Array:
        with rows_of_batch(around.rows_B):
            bits_BTD = hash_bits(around.key, around.zeros_BTD.shape)
        unit_BTD = bits_BTD.astype(jnp.float32) * 2.0**-31 - 1
        tokens_B11 = jnp.sum(around.where_BT, axis=1, dtype=jnp.float32)[:, None, None]
        elements_B11 = jnp.maximum(tokens_B11 * bits_BTD.shape[-1], 1)
        first_BTD = self.epsilon * unit_BTD / jnp.sqrt(elements_B11)
        return jnp.where(around.where_BT[:, :, None], first_BTD, 0)

    def _inside(self, shift_BTD: jax.Array) -> jax.Array:
        return shift_BTD * jnp.minimum(1, self.epsilon / jnp.maximum(length(shift_BTD), TINY))
