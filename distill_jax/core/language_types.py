"""What language models read: a batch of texts, and which of their tokens are asked for."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array

from distill_jax.core.types import Batch


@struct.dataclass
class LanguageBatch(Batch):
    """Texts of one step with the tokens that are asked for, P positions a row.

    A language model says logits [B, P, V] of these positions alone, in ``logits_BC`` of its
    ``ModelOutput``. ``targets``, int32 [B, P], are the tokens there, -1 where nothing is asked.

    Attributes:
      positions_BP: int32 [B, P], where a token is asked for; 0 where nothing is.
    """

    positions_BP: Array | None = None

    @property
    def asked_BP(self) -> Array:
        """bool [B, P], the positions that count."""
        assert self.targets is not None, "a batch of a language model asks for tokens"
        return self.targets >= 0


def least_batch() -> LanguageBatch:
    """The smallest batch there is, to draw parameters with."""
    ids_BT, some_BP = jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 1), jnp.int32)
    return LanguageBatch(
        example_ids_B=jnp.zeros(1, jnp.int32),
        input_ids_BT=ids_BT,
        token_type_ids_BT=ids_BT,
        where_BT=jnp.ones((1, 2), bool),
        labels_B=jnp.zeros(1, jnp.int32),
        label_where_B=jnp.zeros(1, bool),
        targets=some_BP,
        positions_BP=some_BP,
    )
