"""What families of models of images have in common: names FAMILY-..., and a start by chance."""

from __future__ import annotations

from typing import Any

from distill_jax.models.family import Classifiers, ImageShape

DIGITS_IMAGE: ImageShape = (8, 8, 1)
"""Of scikit-learn's digits, where nobody says otherwise."""
MAX_SIZE = 2**20
"""Of a layer or an image: a damaged or hostile config is refused before it is worked on."""


class ImageClassifiers(Classifiers):
    """Students of images, and teachers that start by chance."""

    def parse(self, name: str, num_labels: int, image: ImageShape) -> Any:
        """The config of a model by its name.

        Raises:
          UserError: for a name that goes wrong, or an image that such a model cannot read.
        """
        raise NotImplementedError

    def claims(self, name: str) -> bool:
        return name.startswith(f"{self.name}-")

    def claims_teacher(self, name: str) -> bool:
        return self.claims(name)

    def student(self, name: str, teacher: Any, **options: Any) -> Any:
        return self.parse(name, teacher.num_labels, teacher.image)

    def alone(self, name: str, num_labels: int, image: ImageShape | None = None) -> Any:
        return self.parse(name, num_labels, image or DIGITS_IMAGE) if self.claims(name) else None
