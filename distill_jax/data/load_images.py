"""``--data`` as text, of images: which data set, from where."""

from pathlib import Path
from typing import TYPE_CHECKING

from distill_jax.core.errors import unknown
from distill_jax.core.files import user_path

if TYPE_CHECKING:  # it brings JAX
    from distill_jax.data.images import ImageDataset

DIGITS = "digits"
_IMAGES, _TFDS = "images:", "tfds:"
FORMS = (DIGITS, "images:FILE.npz", "images:tfds:NAME")


def is_images(spec: str) -> bool:
    """Whether a data set's name is one of images."""
    return spec == DIGITS or spec.startswith(_IMAGES)


def load_images(spec: str, home: Path | None = None) -> "ImageDataset":
    """A data set of images by its name.

    Args:
      spec: ``digits``, scikit-learn's; ``images:FILE.npz``; or ``images:tfds:NAME`` for any TFDS
        name, ``images:tfds:mnist`` say.
      home: where prepared data are kept, ``core.files.home()`` by default.

    Raises:
      UserError: if there is no such data set, or its content is not as expected.
    """
    # Imported when needed: scikit-learn and TFDS take a while.
    if spec == DIGITS:
        from distill_jax.data import digits

        return digits.load()
    rest = spec.removeprefix(_IMAGES)
    if rest == spec or not rest:
        raise unknown("data set of images", spec, FORMS)
    if rest.startswith(_TFDS):
        from distill_jax.data import tfds_images

        return tfds_images.load(rest.removeprefix(_TFDS), home=home)
    from distill_jax.data import image_files

    return image_files.load(user_path(rest))
