"""Ratings of TFDS, ``movielens/100k-ratings`` and its like, read without TensorFlow."""

from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data import prepared
from distill_jax.data.build_interactions import RawInteractions, Rows, join_texts
from distill_jax.data.table import check_named
from distill_jax.data.tfds_source import prepared_builder

COLUMNS = ("user_id", "movie_id", "timestamp", "user_rating", "movie_title", "movie_genres")
"""User, item, seconds, rating, title, genres: the features of TFDS's MovieLens."""


def read(name: str, *, home: Path | None = None) -> RawInteractions:
    """All rows of the split ``train``, the only one that rating data in TFDS has.

    Data that is prepared already in the user's own TFDS folder is used; otherwise it is
    prepared under ``home``.

    Args:
      name: as TFDS spells it, ``"movielens/1m-ratings"``.

    Raises:
      UserError: for an unknown name or feature, or data that cannot be brought here.
    """
    builder = prepared_builder(name, home)
    features = builder.info.features
    check_named(COLUMNS, features, f"tfds:{name}")
    if list(builder.info.splits) != ["train"]:
        found = ", ".join(builder.info.splits)
        raise UserError(f"tfds:{name}: splits {found}; expected 'train' alone.")
    user, item, time, rating, title, genres = COLUMNS
    rows = prepared.read(builder, "train")
    genre_names = _class_names(features[genres])
    texts = {str(row[item]): _text(row[title], row[genres], genre_names) for row in rows}
    return RawInteractions(
        Rows(
            [str(row[user]) for row in rows],
            [str(row[item]) for row in rows],
            np.array([row[time] for row in rows], np.float64),
            np.array([row[rating] for row in rows], np.float32),
        ),
        texts,
    )


def _class_names(feature: Any) -> list[str] | None:
    inner = getattr(feature, "feature", feature)
    return getattr(inner, "names", None)


def _text(title: str, genres: Any, names: list[str] | None) -> str:
    words = [names[genre] if names else str(genre) for genre in np.atleast_1d(genres)]
    return join_texts([title, ", ".join(words)])
