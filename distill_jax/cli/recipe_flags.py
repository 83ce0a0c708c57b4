"""``--recipe``, ``--freeze``, ``--rate``, ``--layer-decay``, ``--augment``: how students train."""

import dataclasses
from typing import TYPE_CHECKING

from distill_jax.cli.compare_flags import CompareLosses
from distill_jax.core.errors import UserError

if TYPE_CHECKING:
    from distill_jax.tasks.classification.cells import TrainingConfig


def with_recipe(args: CompareLosses, training: "TrainingConfig") -> "TrainingConfig":
    """The training of students, as the flags say beside its objective."""
    optimizer = dataclasses.replace(
        training.optimizer, rates=rates_of(args), layer_decay=args.layer_decay
    )
    return dataclasses.replace(training, recipe=args.recipe, optimizer=optimizer)


def rates_of(args: CompareLosses) -> tuple[tuple[str, float], ...]:
    """Learning-rate factors, (regular expression, factor) each; 0 for what is frozen.

    Raises:
      UserError: for a factor that is no number.
    """
    rates = [(pattern, 0.0) for pattern in args.freeze]
    for text in args.rate:
        pattern, equals, factor = text.rpartition("=")
        try:
            if not equals or not pattern:
                raise ValueError
            rates.append((pattern, float(factor)))
        except ValueError:
            raise UserError(
                f"--rate is REGEX=FACTOR, such as 'embeddings=0.1', not {text!r}"
            ) from None
    return tuple(rates)


def recipe_protocol(args: CompareLosses, canonical: str) -> list[str]:
    """What is said below the table of how its students are trained and on what.

    Args:
      canonical: text of the recipe.
    """
    said = []
    if canonical:
        said.append(f"Recipe of all students: `{canonical}`.")
    if frozen := ", ".join(f"`{pattern}`" for pattern in args.freeze):
        said.append(f"Frozen in students: {frozen}.")
    if args.rate:
        factors = ", ".join(f"`{text}`" for text in args.rate)
        said.append(f"Learning-rate factors of students: {factors}.")
    if args.layer_decay != 1:
        said.append(f"Learning rates of students fall by {args.layer_decay:g} a layer downwards.")
    if args.augment:
        said.append(f"The transfer set has copies of the training sentences too: `{args.augment}`.")
    return said
