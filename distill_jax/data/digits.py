"""scikit-learn's digits: 1,797 handwritten digits of 8 x 8 pixels, inside the package itself.

The test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI
Machine Learning Repository, https://doi.org/10.24432/C50P49).
"""

import numpy as np

from distill_jax.data.images import ImageDataset, ImageTable
from distill_jax.data.subsets import labelled_rows

NAME = "digits"
_TRAIN, _VALIDATION = 0.5, 0.2  # shares of every class; the rest is test
_MOST_INK = 16  # each pixel counts the dark ones among 4 x 4 of the scan


def load() -> ImageDataset:
    """The digits in fixed splits: of every class 50% train, 20% validation, 30% test.

    A hash of the example's id decides the split. No image occurs twice in the data, so none
    stands in two splits.
    """
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    everything = ImageTable(
        ids=tuple(f"{NAME}/{number}" for number in range(len(bunch.target))),
        pixels_NHWC=(bunch.images[..., None] / _MOST_INK).astype(np.float32),
        labels_N=bunch.target.astype(np.int32),
    )
    train = labelled_rows(everything, _TRAIN, salt="split")
    train_or_validation = labelled_rows(everything, _TRAIN + _VALIDATION, salt="split")
    rows = {
        "train": train,
        "validation": np.setdiff1d(train_or_validation, train),
        "test": np.setdiff1d(np.arange(len(everything)), train_or_validation),
    }
    return ImageDataset(
        name=NAME,
        label_names=tuple(str(name) for name in bunch.target_names),
        splits={split: everything.take(chosen) for split, chosen in rows.items()},
        notes=("the splits are drawn at random: they share the thirteen writers",),
    )
