"""Every kind of steps there is; being imported they are registered."""

from distill_jax.compression import distil, drop, int8, prune, vocabulary  # noqa: F401
