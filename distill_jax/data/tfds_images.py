"""Images of TFDS, ``mnist`` and its like, read without TensorFlow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from distill_jax.core.errors import UserError
from distill_jax.data import prepared
from distill_jax.data.image_files import MOST_BYTES, RawImages, build_images
from distill_jax.data.images import ImageDataset
from distill_jax.data.table import check_named
from distill_jax.data.tfds_source import prepared_builder

IMAGE, LABEL = "image", "label"
"""The features of TFDS's sets of images with one class each."""
_SPLITS = {"train": "train", "validation": "validation", "dev": "validation", "test": "test"}


def load(name: str, *, home: Path | None = None) -> ImageDataset:
    """A TFDS data set of images of one size, 8 bits a channel, each with a class.

    Data that is prepared already, in ArrayRecord files, in the user's own TFDS folder is used;
    otherwise it is prepared under ``home``.

    Args:
      name: as TFDS spells it, ``"mnist"``.
      home: ``core.files.home()`` by default.

    Raises:
      UserError: for an unknown name, other features, or data that cannot be brought here.
    """
    builder = prepared_builder(name, home)
    where, features, infos = f"images:tfds:{name}", builder.info.features, builder.info.splits
    check_named((IMAGE, LABEL), features, where)
    shape = _shape(features, where)
    found = {theirs: ours for theirs, ours in _SPLITS.items() if theirs in infos}
    size = sum(infos[theirs].num_examples for theirs in found) * math.prod(shape)
    if size > MOST_BYTES:
        raise UserError(f"{where}: {size:,} bytes of images; at most {MOST_BYTES:,} are read.")
    rows = [(ours, row) for theirs, ours in found.items() for row in prepared.read(builder, theirs)]
    if not rows:
        raise UserError(f"{where}: splits {', '.join(infos)}; expected train and test.")
    names = tuple(features[LABEL].names)
    raw = RawImages(
        np.stack([row[IMAGE] for _, row in rows]),
        [names[row[LABEL]] if row[LABEL] >= 0 else None for _, row in rows],
        names,
        [ours for ours, _ in rows],
        where,
    )
    return build_images(where, raw)


def _shape(features: Any, where: str) -> tuple[int, ...]:
    """Height, width and channels."""
    image, label = features[IMAGE], features[LABEL]
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"{where}: feature {IMAGE!r} is no image of 8 bits a channel.")
    if None in image.shape:
        raise UserError(f"{where}: its images are not all of one size, which is wanted here.")
    if not isinstance(label, tfds.features.ClassLabel):
        raise UserError(f"{where}: feature {LABEL!r} is no class.")
    return tuple(image.shape)
