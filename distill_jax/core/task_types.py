"""Models of several tasks: a ``TaskHead`` each; they read ``TaskBatch``, say ``ModelOutput``."""

from __future__ import annotations

import dataclasses
from typing import Literal

from flax import struct
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.types import Examples


@dataclasses.dataclass(frozen=True)
class TaskHead:
    """One head.

    Attributes:
      name: ``click``, ``buy``, ``rating`` ...
      kind: ``binary``: its output is a logit; ``number``: its output is the number itself.
    """

    name: str
    kind: Literal["binary", "number"] = "binary"

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.name.isidentifier():
            raise UserError(f"task {self.name!r}: a name of letters, digits and _ is needed.")


SHOP = (TaskHead("click"), TaskHead("buy"), TaskHead("rating", "number"))
"""What a shop asks."""


@struct.dataclass
class TaskBatch(Examples):
    """Examples of one step with a label for each task. A row of padding has example id -1.

    Attributes:
      example_ids_B: int32 [B].
      features_BF: float32 [B, F], numbers known when a prediction is asked for.
      ids_BC: int32 [B, C], categories (user, item, ...), a column each.
      labels_BK: float32 [B, K], 0 or 1 of binary tasks, a number of others; any value where
        ``label_where_BK`` is False.
      label_where_BK: bool [B, K].
      privileged_BP: float32 [B, P], what is known only afterwards (time on the page, say) or
        costs too much to serve: for teachers alone. None where there are none.
    """

    example_ids_B: Array
    features_BF: Array
    ids_BC: Array
    labels_BK: Array
    label_where_BK: Array
    privileged_BP: Array | None = None
