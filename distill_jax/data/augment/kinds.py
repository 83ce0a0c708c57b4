"""Every kind of augmentation there is; being imported they are registered."""

from distill_jax.data.augment import (  # noqa: F401
    delete,
    mask,
    mlm,
    neighbours,
    ngram,
    paraphrases,
    swap,
    synonyms,
)
from distill_jax.data.augment.base import Augment, registered


def kinds() -> dict[str, type[Augment]]:
    """All kinds by name."""
    return registered()
