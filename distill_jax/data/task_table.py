"""Examples with several labels each, as training reads them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_jax.core.digests import digest, digest_arrays, digest_strings
from distill_jax.core.errors import UserError
from distill_jax.core.task_types import TaskBatch
from distill_jax.data.plan import PADDING_ID, filled


@dataclass(frozen=True, eq=False)
class TaskTable:
    """N examples.

    Attributes:
      ids: unique.
      features_NF: float32 [N, F].
      ids_NC: int32 [N, C], categories.
      labels_NK: float32 [N, K], NaN where an example has no label of that task.
      privileged_NP: float32 [N, P], or None.
    """

    ids: tuple[str, ...]
    features_NF: np.ndarray
    ids_NC: np.ndarray
    labels_NK: np.ndarray
    privileged_NP: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ("features_NF", "ids_NC", "labels_NK", "privileged_NP"):
            array = getattr(self, name)
            if array is not None and (array.ndim != 2 or len(array) != len(self.ids)):
                raise ValueError(f"{name} has shape {array.shape} for {len(self.ids)} ids")
        for name in ("features_NF", "privileged_NP"):
            array = getattr(self, name)
            if array is not None and not np.isfinite(array).all():
                row = int(np.argmin(np.isfinite(array).all(axis=1)))
                raise UserError(f"example {self.ids[row]!r} has a feature that is not finite.")

    @functools.cached_property
    def lengths_N(self) -> np.ndarray:
        """int64 [N], all 1: examples are of one size."""
        return np.ones(len(self), np.int64)

    @functools.cached_property
    def digest(self) -> str:
        """Digest of every column."""
        arrays = {k: v for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        arrays.pop("lengths_N", None)
        return digest({"ids": digest_strings(self.ids), "arrays": digest_arrays(arrays)})

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> TaskBatch:
        """The batch of ``rows``, filled up to ``batch_size`` rows; ``length`` is always 1."""
        example_ids_B = filled(rows, batch_size, PADDING_ID)
        labels_BK = filled(self.labels_NK[rows], batch_size)
        privileged_NP = self.privileged_NP
        known_BK = ~np.isnan(labels_BK) & (example_ids_B >= 0)[:, None]
        arrays: dict[str, Any] = {
            "example_ids_B": example_ids_B,
            "features_BF": filled(self.features_NF[rows], batch_size),
            "ids_BC": filled(self.ids_NC[rows], batch_size),
            "labels_BK": np.where(known_BK, labels_BK, np.float32(0)),
            "label_where_BK": known_BK,
            "privileged_BP": None
            if privileged_NP is None
            else filled(privileged_NP[rows], batch_size),
        }
        return TaskBatch(**arrays)
