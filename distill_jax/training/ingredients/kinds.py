"""Every kind of ingredients there is; being imported they are registered."""

from distill_jax.training.ingredients import bitfit, fgm, freelb, lora, rdrop  # noqa: F401
from distill_jax.training.ingredients.base import Ingredient, registered


def kinds() -> dict[str, type[Ingredient]]:
    """All kinds by name."""
    return registered()
