"""How large a model is: parameters and bytes, embeddings apart from the rest."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """Counts of scalars and bytes. Embeddings are apart: they cost memory, not compute.

    Attributes:
      parameters: all parameters.
      embedding_parameters: those under a key that contains ``embedding`` (word, position and
        token-type tables, and the normalisation that sits with them).
      bytes: storage of all parameters in their present dtypes.
    """

    parameters: int
    embedding_parameters: int
    bytes: int


def model_size(params: Any) -> ModelSize:
    """Size of a pytree of arrays (or of ``jax.ShapeDtypeStruct``s: nothing is computed)."""
    total = embeddings = size_bytes = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        count = math.prod(leaf.shape)
        total += count
        size_bytes += count * np.dtype(leaf.dtype).itemsize
        if any("embedding" in _key_name(key).lower() for key in path):
            embeddings += count
    return ModelSize(parameters=total, embedding_parameters=embeddings, bytes=size_bytes)


def _key_name(key: Any) -> str:
    """The name in one step of a pytree path: dict key, attribute or index."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
