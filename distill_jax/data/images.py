"""Small images as arrays: one ``ImageTable`` a split, with the surface of a ``TokenTable``."""

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from distill_jax.core.types import Batch, TokenRange
from distill_jax.data.plan import example_arrays, filled
from distill_jax.data.table import Dataset, LabelledArrays, check_columns


@dataclasses.dataclass(frozen=True, eq=False)
class ImageTable(LabelledArrays):
    """One split of images, all of one size.

    Plans and feeds treat an image as a row of one token, so every batch has one shape.

    Attributes:
      pixels_NHWC: float32 [N, height, width, channels], in [0, 1].
      scores_N: float32 [N] mean human ratings, or None.
      asked_at_once, token_range, occurring_tokens, targets: see ``TokenTable``.
    """

    asked_at_once: ClassVar[int] = 256
    token_range: ClassVar[TokenRange] = TokenRange()
    targets: ClassVar[None] = None
    occurring_tokens: ClassVar[np.ndarray] = np.zeros(1, np.int32)

    pixels_NHWC: np.ndarray
    scores_N: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.pixels_NHWC.ndim != 4 or self.pixels_NHWC.dtype != np.float32:
            raise ValueError(
                f"pixels must be float32 [N, H, W, C], not {self.pixels_NHWC.dtype} "
                f"{list(self.pixels_NHWC.shape)}"
            )
        check_columns(self)

    @functools.cached_property
    def lengths_N(self) -> np.ndarray:
        """int64 [N], all 1."""
        return np.ones(len(self), np.int64)

    @property
    def features_NF(self) -> np.ndarray:
        """float32 [N, F], the pixels in a row."""
        return self.pixels_NHWC.reshape(len(self), -1)

    @property
    def image(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        _, height, width, channels = self.pixels_NHWC.shape
        return height, width, channels

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> Batch:
        """Numpy arrays of ``rows``, filled up to ``batch_size`` with black images of id -1.

        Token ids are 0 and ``where_BT`` is True in the first column for images that are there.
        """
        if length < 1:
            raise ValueError(f"a batch of images has length 1, not {length}")
        where_BT = np.zeros((batch_size, length), bool)
        where_BT[: len(rows), 0] = True
        arrays: dict[str, Any] = dict(  # numpy arrays until the step takes them to a device
            input_ids_BT=np.zeros((batch_size, length), np.int32),
            token_type_ids_BT=np.zeros((batch_size, length), np.int32),
            where_BT=where_BT,
            pixels_BHWC=filled(self.pixels_NHWC[rows], batch_size),
        )
        return Batch(**arrays, **example_arrays(rows, self.labels_N, batch_size))


ImageDataset = Dataset[ImageTable]
