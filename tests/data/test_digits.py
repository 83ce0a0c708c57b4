"""scikit-learn's digits: the splits are fixed, stratified, and share no image."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from distill_jax.data import digits


@pytest.fixture(scope="module")
def dataset():
    return digits.load()


def test_the_splits_are_the_data_and_nothing_else(dataset):
    assert list(dataset.splits) == ["train", "validation", "test"]
    bunch = load_digits()
    seen = []
    for table in dataset.splits.values():
        rows = [int(example.removeprefix("digits/")) for example in table.ids]
        np.testing.assert_array_equal(table.labels_N, bunch.target[rows])
        np.testing.assert_array_equal(table.pixels_NHWC[..., 0] * 16, bunch.images[rows])
        seen += rows
    assert sorted(seen) == list(range(1797))
    assert dataset.label_names == tuple("0123456789")


def test_every_class_has_its_share_of_every_split(dataset):
    counts = {s: np.bincount(table.labels_N) for s, table in dataset.splits.items()}
    total = sum(counts.values())
    for split, share in {"train": 0.5, "validation": 0.2, "test": 0.3}.items():
        np.testing.assert_allclose(counts[split], share * total, atol=1)


def test_no_image_stands_twice(dataset):
    images = np.concatenate([table.pixels_NHWC for table in dataset.splits.values()])
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


def test_pixels_fill_the_unit_interval(dataset):
    pixels = dataset.splits["train"].pixels_NHWC
    assert pixels.shape[1:] == (8, 8, 1) and pixels.dtype == np.float32
    assert pixels.min() == 0 and pixels.max() == 1


def test_the_splits_never_change(dataset):
    """Golden: published numbers depend on which digit is in which split."""
    assert {s: len(table) for s, table in dataset.splits.items()} == {
        "train": 898,
        "validation": 360,
        "test": 539,
    }
    assert dataset.digest == "69f9cbb9d3a2a262"
