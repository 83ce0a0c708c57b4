"""Every kind of steps there is; being imported they are registered."""

from distill_jax.compression import distil, drop, int8, prune, vocabulary  # noqa: F401
from distill_jax.compression.steps import Step, registered


def kinds() -> dict[str, type[Step]]:
    """All kinds by name."""
    return registered()
