"""A finished classifier of images in use: anybody's images in, classes with probabilities out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.images import ImageTable
from distill_jax.data.table import NO_LABEL
from distill_jax.evaluation.answers import Answer, softmax
from distill_jax.evaluation.calibration import is_temperature, read_temperature
from distill_jax.evaluation.predict import LogitsOf, logits_of
from distill_jax.models.build import build_model, family_in, load_model
from distill_jax.models.loaded import Loaded

BATCH = 256


@dataclasses.dataclass(frozen=True, eq=False)
class OpenImages:
    """A classifier of images.

    Attributes:
      model: as it was loaded.
      label_names: the classes.
      temperature: by which logits are divided before the softmax; no class hangs on it.
      apply: its forward pass, compiled once.
    """

    model: Loaded
    label_names: tuple[str, ...]
    temperature: float
    apply: LogitsOf

    def classify(self, images_NHWC: np.ndarray, *, batch_size: int | None = None) -> list[Answer]:
        """The answer for each image, in the order given.

        Args:
          images_NHWC: uint8, or float32 in [0, 1], of the size that the model was trained on; the
            last axis may be missing where there is one channel.
          batch_size: images that the model is asked about at a time; None for what is usual.

        Raises:
          UserError: for images of another size or type, or a batch size below 1.
        """
        return [x for some in self.answers(images_NHWC, batch_size=batch_size) for x in some]

    def answers(
        self, images_NHWC: np.ndarray, *, batch_size: int | None = None
    ) -> Iterator[list[Answer]]:
        """As ``classify``, batch by batch."""
        size = BATCH if batch_size is None else batch_size
        if size < 1:
            raise UserError(f"the batch size must be at least 1, not {size}")
        pixels_NHWC = self._pixels(images_NHWC)
        for start in range(0, len(pixels_NHWC), size):
            yield self._answers(pixels_NHWC[start : start + size], size)

    def _answers(self, pixels_NHWC: np.ndarray, batch_size: int) -> list[Answer]:
        count = len(pixels_NHWC)
        labels_N = np.full(count, NO_LABEL, np.int32)
        table = ImageTable(tuple(map(str, range(count))), labels_N, pixels_NHWC)
        batch = table.batch(np.arange(count), 1, batch_size)
        logits_NC = np.asarray(self.apply(self.model.params, batch), np.float32)[:count]
        probs_NC = softmax(logits_NC / np.float32(self.temperature))
        names = self.label_names
        return [
            Answer(names[best], dict(zip(names, probs, strict=True)))
            for best, probs in zip(
                logits_NC.argmax(axis=1).tolist(), probs_NC.tolist(), strict=True
            )
        ]

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        """float32 [N, H, W, C], in [0, 1]."""
        wanted = self.model.config.image
        if images.ndim == 3:
            images = images[..., None]
        if images.shape[1:] != wanted or images.dtype not in (np.uint8, np.float32):
            raise UserError(
                f"images of {images.dtype} {list(images.shape)}; this model reads uint8 (or "
                f"float32 in [0, 1]) [N, {', '.join(map(str, wanted))}]"
            )
        if images.dtype == np.uint8:
            return images / np.float32(255)
        if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
            raise UserError("pixels of float32 must lie in [0, 1]")
        return images


def reads_images(folder: Path) -> bool:
    """Whether the model in a run's folder, or in a folder of its own, is one of images."""
    return family_in(_model_in(folder)).reads == "images"


def open_images(folder: Path | str, *, temperature: float | Literal["auto"] = "auto") -> OpenImages:
    """Open a run's folder, or its ``model``, with a classifier of images.

    Args:
      temperature: see ``open_classifier``.

    Raises:
      UserError: when there is none; for a temperature that is no positive number.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no model at {folder}: expected the folder of a finished run")
    inner = _model_in(folder)
    if not reads_images(folder):
        raise UserError(f"{folder} has no classifier of images")
    if temperature == "auto":
        temperature = read_temperature(inner) or 1.0
    if not is_temperature(temperature):
        raise UserError(f"the temperature must be a positive number or auto, not {temperature}")
    model = load_model(inner)
    assert model.label_names is not None, "a folder of ours names its classes"
    apply = logits_of(build_model(model.config))
    return OpenImages(model, model.label_names, float(temperature), apply)


def _model_in(folder: Path) -> Path:
    return folder / "model" if (folder / "model").is_dir() else folder
