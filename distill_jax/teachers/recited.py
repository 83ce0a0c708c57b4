"""A teacher that was asked elsewhere: what it said of examples, looked up by their rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distill_jax.core.types import Batch, ModelOutput


@dataclass(frozen=True, eq=False)
class Recited:
    """``recited(batch)``: the logits of the batch's examples, as a live teacher would give them.

    Attributes:
      logits_NC: float32 [N, C], a row for each of the table that batches are taken of.
      heard_N: bool [N], False for rows of which nothing was said.
    """

    logits_NC: np.ndarray
    heard_N: np.ndarray

    def __call__(self, batch: Batch) -> ModelOutput:
        rows_B = np.asarray(batch.example_ids_B)
        places = np.flatnonzero(rows_B >= 0)
        logits_BC = np.zeros((len(rows_B), self.logits_NC.shape[1]), np.float32)
        logits_BC[places] = self.logits_NC[rows_B[places]]
        heard_B = None
        if not self.heard_N.all():
            heard_B = np.zeros(len(rows_B), bool)
            heard_B[places] = self.heard_N[rows_B[places]]
        return ModelOutput(logits_BC=logits_BC, heard_B=heard_B)  # type: ignore[arg-type]
