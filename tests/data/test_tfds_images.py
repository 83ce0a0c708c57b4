"""Images of TFDS: splits, classes and pixels as they are there; others are refused by name."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from image_files import NAMES, quarters
from PIL import Image

from distill_jax.core.errors import UserError
from distill_jax.data import tfds_images
from distill_jax.data.load import load_dataset
from distill_jax.data.load_images import load_images

IMAGES, LABELS = quarters(120)


class ToyImages(tfds.core.GeneratorBasedBuilder):
    """MNIST's layout: train and test, an image and its class."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None
    shape: tuple = (8, 8, 1)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=self.shape),
                    "label": tfds.features.ClassLabel(names=list(NAMES)),
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(range(100)),
            "test": self._generate_examples(range(100, 120)),
        }

    def _generate_examples(self, numbers):
        for n in numbers:
            png = io.BytesIO()
            Image.fromarray(IMAGES[n]).save(png, format="png")
            png.seek(0)
            yield n, {"image": png, "label": int(LABELS[n])}


class ToyImagesOfAnySize(ToyImages):
    shape = (None, None, 1)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "own"))
    return tmp_path / "home"


def test_pixels_and_classes_are_those_of_tfds(home):
    dataset = load_images("images:tfds:toy_images", home)
    assert dataset.label_names == NAMES and dataset.name == "images:tfds:toy_images"
    sizes = {split: len(table) for split, table in dataset.splits.items()}
    assert sizes["test"] == 20 and sizes["train"] + sizes["validation"] == 100
    found = sorted(map(bytes, np.rint(255 * dataset.splits["test"].pixels_NHWC).astype(np.uint8)))
    assert found == sorted(map(bytes, IMAGES[100:]))
    labels = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    table = dataset.splits["train"]
    pixels = np.rint(255 * table.pixels_NHWC[..., 0]).astype(np.uint8)
    assert [labels[image.tobytes()] for image in pixels] == table.labels_N.tolist()


def test_what_is_not_read_here_is_said(home, monkeypatch):
    with pytest.raises(UserError, match="not all of one size"):
        load_images("images:tfds:toy_images_of_any_size", home)
    with pytest.raises(UserError, match="has images: name it images:tfds:toy_images"):
        load_dataset("tfds:toy_images", home=home)
    monkeypatch.setattr(tfds_images, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="7,680 bytes of images; at most 1,000 are read"):
        load_images("images:tfds:toy_images", home)


def test_mnist_itself_is_found_by_its_name():
    """Its builder is imported when it is asked for; nothing is downloaded."""
    from distill_jax.data.tfds_source import _import_builder

    _import_builder("mnist")
    features = tfds.builder_cls("mnist").__module__
    assert features.endswith("image_classification.mnist")
