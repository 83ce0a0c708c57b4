import numpy as np
import pytest
import tensorflow_datasets as tfds

from distill_jax.core.errors import UserError
from distill_jax.data import tfds_interactions
from distill_jax.data.load_interactions import load_interactions

FEATURES = {
    "user_id": tfds.features.Text(),
    "movie_id": tfds.features.Text(),
    "timestamp": np.int64,
    "user_rating": np.float32,
    "movie_title": tfds.features.Text(),
    "movie_genres": tfds.features.Sequence(tfds.features.ClassLabel(names=["Drama", "Comedy"])),
}


class ToyFilms(tfds.core.GeneratorBasedBuilder):
    """The features of ``movielens/100k-ratings``, as far as they are read."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({**FEATURES, "stars": np.int64})
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number, (user, film, time, genres) in enumerate(
            [("1", "7", 30, [0, 1]), ("1", "8", 10, [1]), ("2", "7", 20, [0, 1])]
        ):
            yield (
                number,
                {
                    "user_id": user,
                    "movie_id": film,
                    "timestamp": time,
                    "user_rating": 4.0,
                    "movie_title": f"Filmé {film} (1999)",
                    "movie_genres": genres,
                    "stars": 4,
                },
            )


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "own"))
    return tmp_path / "home"


def test_ratings_of_tfds(home):
    data = load_interactions("tfds:toy_films", home=home)
    assert data.user_names == ("1", "2") and data.item_names == ("7", "8")
    assert data.items_N.tolist() == [1, 0, 0] and data.times_N.tolist() == [10, 30, 20]
    assert data.ratings_N.tolist() == [4, 4, 4]
    assert data.item_texts == ("Filmé 7 (1999) | Drama, Comedy", "Filmé 8 (1999) | Comedy")


def test_names_and_columns_that_are_not_there(home, monkeypatch):
    columns = ("user_id", "movie", *tfds_interactions.COLUMNS[2:])
    with monkeypatch.context() as patched:
        patched.setattr(tfds_interactions, "COLUMNS", columns)
        with pytest.raises(UserError, match="unknown column 'movie' in tfds:toy_films"):
            tfds_interactions.read("toy_films", home=home)
    with pytest.raises(UserError, match="unknown configuration '100k' of tfds:movielens"):
        load_interactions("tfds:movielens/100k", home=home)


def test_the_features_of_movielens_are_those_that_are_read(home):
    builder = tfds.builder("movielens/100k-ratings", data_dir=home)
    assert set(tfds_interactions.COLUMNS) <= set(builder.info.features)
    genres = builder.info.features["movie_genres"]
    assert "Comedy" in tfds_interactions._class_names(genres)
