"""Sentences of reviews, editorials and tweets, each rated by many people from -4 to 4.

Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media
Text", ICWSM 2014. What is made of the files:

- The mean rating is the GroundTruth file's. (For 199 tweets it differs from the mean of the
  individual ratings in the other file; those are given as they are.)
- HTML entities (``&amp;``) are unescaped; otherwise a text stays as it is.
- A text that occurred before, case and white space aside, is dropped: 2 movie, 11 product,
  71 news and 60 tweet texts. No text is in two splits.
- Splits are a fixed hash of the id: 80% train, 10% validation, 10% test. Product and news ids are
  ``review_sentence``; the hash is of the review, so its sentences stay together.
"""

import dataclasses
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from distill_jax.core.digests import unit_interval
from distill_jax.data import prepared
from distill_jax.data.table import TextDataset, TextTable, fold

LABEL_NAMES = ("negative", "positive")
DOMAINS = {
    "movie": "movieReviewSnippets",
    "product": "amazonReviewSnippets",
    "news": "nytEditorialSnippets",
    "tweet": "tweets",
}
_ENTITY = re.compile(r"&(#[0-9]+|#x[0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);")


@dataclasses.dataclass(frozen=True)
class Snippet:
    """One rated sentence."""

    id: str
    text: str
    rating: float
    ratings: tuple[int, ...]


def read_snippets(folder: Path, domain: str) -> list[Snippet]:
    """The snippets of a domain in file order, repeated texts dropped."""
    stem = DOMAINS[domain]
    ratings = {row[0]: json.loads(row[3]) for row in _rows(folder / f"{stem}_anonDataRatings.txt")}
    snippets, seen = [], set()
    for example, rating, raw in _rows(folder / f"{stem}_GroundTruth.txt"):
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), raw).strip()
        if fold(text) not in seen:
            seen.add(fold(text))
            snippets.append(Snippet(example, text, float(rating), tuple(ratings[example])))
    return snippets


def split_of(domain: str, example: str) -> str:
    """The split of an id; all sentences of one review fall into the same one."""
    review = example.split("_")[0]
    return prepared.split_of(unit_interval(f"review_snippets/{domain}/{review}"))


class ReviewSnippets(prepared.AssetBuilder):
    """TFDS builder of the four domains, from the asset ``review-snippets``."""

    asset = "review-snippets"
    BUILDER_CONFIGS = [  # noqa: RUF012 - the name and the type are TFDS's
        tfds.core.BuilderConfig(name=domain, description=f"{stem} of Hutto and Gilbert (2014)")
        for domain, stem in DOMAINS.items()
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            homepage="https://github.com/cjhutto/vaderSentiment",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "text": tfds.features.Text(),
                    "rating": np.float32,
                    "ratings": tfds.features.Sequence(np.int32),
                }
            ),
        )

    def _examples(self, folder: Path) -> Iterator[tuple[str, Snippet]]:
        domain = self.builder_config.name
        for snippet in read_snippets(folder, domain):
            yield split_of(domain, snippet.id), snippet


def load(domain: str, home: Path | None = None) -> TextDataset:
    """A domain as text with the sign of the mean rating as its label.

    Sentences rated exactly 0 on the mean have no sign and are left out. ``scores_N`` holds the
    mean rating.
    """
    builder = prepared.open_builder(ReviewSnippets, home, domain)
    return TextDataset(
        name=f"review_snippets/{domain}",
        label_names=LABEL_NAMES,
        splits={split: _table(prepared.read(builder, split)) for split in builder.info.splits},
    )


def _table(examples: list[dict[str, Any]]) -> TextTable:
    rated = [e for e in examples if e["rating"] != 0]
    rated.sort(key=lambda e: [int(part) for part in e["id"].split("_")])
    scores_N = np.array([e["rating"] for e in rated], np.float32)
    return TextTable(
        ids=tuple(e["id"] for e in rated),
        texts=tuple(e["text"] for e in rated),
        labels_N=(scores_N > 0).astype(np.int32),
        scores_N=scores_N,
    )


def _rows(path: Path) -> list[list[str]]:
    """Tab-separated cells of every line. ``splitlines`` would cut at rarer separators too."""
    lines = path.read_bytes().decode("utf-8-sig").split("\n")
    return [line.rstrip("\r").split("\t") for line in lines if line.strip()]
