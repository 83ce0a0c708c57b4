"""FGM: the same batch once more, its embeddings shifted to where the objective grows fastest."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.training.ingredients.attack import along, check_embeddings
from distill_jax.training.ingredients.base import Around, Ingredient, Once, Passed, register
from distill_jax.training.state import in_float32


@register
@dataclass(frozen=True)
class Fgm(Ingredient):
    """``L(x) + weight * L(x + epsilon * g / |g|)``, g the gradient of L by the embeddings of x.

    Miyato et al. 2017, "Adversarial Training Methods for Semi-Supervised Text Classification",
    eq. 5 and 6: a shift of length ``epsilon`` for each example, over all its tokens. Unlike there,
    the embeddings are not normalised, so that ``epsilon`` is in the model's own units; L is the
    whole objective, so that the teacher is heard of the shifted example too: it says of it what it
    says of the example itself. Both passes have the same dropout.
    """

    kind: ClassVar[str] = "fgm"
    place: ClassVar[str] = "attack"
    attacks: ClassVar[bool] = True

    epsilon: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not (0 < self.epsilon < math.inf and 0 < self.weight < math.inf):
            raise UserError(
                f"epsilon and weight of fgm must be positive, not {self.epsilon} and {self.weight}"
            )

    def check(self, num_classes: int, embeddings: tuple[str, ...]) -> None:
        check_embeddings(self.kind, embeddings)

    def gradients(self, once: Once, around: Around) -> Passed:
        easy = once(around.zeros_BTD)
        assert easy.shift_BTD is not None
        hard = once(self.epsilon * along(easy.shift_BTD, around.where_BT))
        grads = jax.tree.map(
            lambda one, other: one + self.weight * other,
            in_float32(easy.grads),
            in_float32(hard.grads),
        )
        terms = {**easy.terms, self.kind: (hard.total, jnp.ones_like(hard.total))}
        return Passed(easy.total + self.weight * hard.total, terms, grads, None)
