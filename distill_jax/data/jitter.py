"""Images moved a few pixels, anew in every epoch: a pure function of example, seed and epoch."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from distill_jax.core.digests import digest_strings
from distill_jax.core.types import Batch
from distill_jax.data.draws import draw_below
from distill_jax.data.plan import TrainingTable


@dataclasses.dataclass(frozen=True, eq=False)
class Jitter:
    """``jitter(batch, seed, step)``: the batch with each image moved, see ``engine.work.Work``.

    Down and to the right by whole numbers of pixels from ``-most`` to ``most``, each as likely;
    what comes in is black. The draw belongs to the example's id, not to its place in a table.

    Attributes:
      table: that batches are of.
      most: pixels.
      steps_per_epoch: each example comes once in so many steps.
    """

    table: TrainingTable
    most: int
    steps_per_epoch: int

    def __call__(self, batch: Batch, seed: int, step: int) -> Batch:
        rows_B = np.asarray(batch.example_ids_B)
        names_B = self._numbers_N[np.maximum(rows_B, 0)]
        epoch, span = step // self.steps_per_epoch, 2 * self.most + 1
        down_B, right_B = (draw_below(span, seed, epoch, names_B, axis) for axis in (0, 1))
        pixels = moved(np.asarray(batch.pixels_BHWC), down_B - self.most, right_B - self.most)
        return batch.replace(pixels_BHWC=pixels)  # type: ignore[attr-defined]

    @functools.cached_property
    def _numbers_N(self) -> np.ndarray:
        """int64 [N], a number for each id."""
        numbers = (int(digest_strings([each])[:15], 16) for each in self.table.ids)
        return np.fromiter(numbers, np.int64, len(self.table.ids))


def moved(pixels_BHWC: np.ndarray, down_B: np.ndarray, right_B: np.ndarray) -> np.ndarray:
    """Each image so many pixels down and to the right, up and to the left where negative."""
    count, height, width, _ = pixels_BHWC.shape
    rows_BH = np.arange(height)[None, :] - down_B[:, None]
    columns_BW = np.arange(width)[None, :] - right_B[:, None]
    there_BHW = _inside(rows_BH, height)[:, :, None] & _inside(columns_BW, width)[:, None, :]
    found_BHWC = pixels_BHWC[
        np.arange(count)[:, None, None],
        np.clip(rows_BH, 0, height - 1)[:, :, None],
        np.clip(columns_BW, 0, width - 1)[:, None, :],
    ]
    return np.where(there_BHW[..., None], found_BHWC, np.zeros((), pixels_BHWC.dtype))


def _inside(places: np.ndarray, size: int) -> np.ndarray:
    return (places >= 0) & (places < size)
