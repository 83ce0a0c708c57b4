"""Recipes: what a training does beside its objective, as text: ``"rdrop(2.0) + lora(rank=4)"``."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

from distill_jax.core.calls import Vocabulary, parse_sum
from distill_jax.core.errors import UserError
from distill_jax.training.ingredients.base import (
    Adapter,
    Around,
    Ingredient,
    Once,
    Passed,
    Say,
    Value,
)
from distill_jax.training.ingredients.kinds import kinds
from distill_jax.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Recipe:
    """Ingredients that go together; hashable. ``str`` is the canonical text.

    Attributes:
      ingredients: by their names.
    """

    ingredients: tuple[Ingredient, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ingredients)

    def __str__(self) -> str:
        return " + ".join(map(str, self.ingredients))

    @cached_property
    def adapter(self) -> Adapter | None:
        """Other parameters that are trained instead of the model's; None for the model's own."""
        return next((each.adapter for each in self.ingredients if each.adapter), None)

    @property
    def attacks(self) -> bool:
        """Whether embeddings of tokens are shifted."""
        return any(each.attacks for each in self.ingredients)

    def check(self, num_classes: int, embeddings: tuple[str, ...]) -> None:
        """See ``Ingredient.check``."""
        for each in self.ingredients:
            each.check(num_classes, embeddings)

    def optimizer(self, config: OptimizerConfig) -> OptimizerConfig:
        """How parameters are moved."""
        for each in self.ingredients:
            config = each.optimizer(config)
        return config

    def says(self, say: Say) -> Say:
        """How the student speaks."""
        for each in self.ingredients:
            say = each.says(say)
        return say

    def value(self, value: Value) -> Value:
        """What is made of what it says."""
        for each in self.ingredients:
            value = each.value(value)
        return value

    def gradients(self, once: Once, around: Around) -> Passed:
        """How gradients are taken, of a recipe that ``attacks``."""
        attack = next(each for each in self.ingredients if each.attacks)
        return attack.gradients(once, around)


PLAIN = Recipe()


def parse_recipe(text: str) -> Recipe:
    """Reads a recipe; ``""`` is the plain one.

    Raises:
      UserError: with the column of the mistake and, for a name, the nearest one that exists.
    """
    found = parse_sum(text, Vocabulary(kinds(), "ingredient", "rdrop(1.0)"))
    for one, other in itertools.combinations(found, 2):
        if one.kind == other.kind:
            raise UserError(f"the recipe {text!r} has {one.kind} twice")
        if one.place == other.place:
            raise UserError(
                f"the recipe {text!r}: {one.kind} and {other.kind} do not go together; take one"
            )
    return Recipe(tuple(sorted(found, key=lambda each: each.kind)))
