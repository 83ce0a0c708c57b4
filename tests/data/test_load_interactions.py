import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.build_interactions import Preparation
from distill_jax.data.load_interactions import load_interactions, load_ranking_split
from distill_jax.data.movielens import film_text


@pytest.fixture(scope="module")
def movielens(fetch_asset, shared_home):
    fetch_asset("movielens-100k")
    return lambda **options: load_ranking_split("movielens-100k", home=shared_home, **options)


def test_movielens_100k(movielens):
    data = movielens().data
    assert (len(data), data.num_users, data.num_items) == (100_000, 943, 1682)
    assert data.item_names[:2] == ("1", "2") and data.user_names[-1] == "943"
    assert data.item_texts[0] == "Toy Story (1995) | Animation, Children's, Comedy"
    assert data.item_texts[542] == "Misérables, Les (1995) | Drama, Musical"
    assert all(data.item_texts)
    # Facts of the data's README: every user rated at least 20 films, ratings are 1 to 5.
    assert data.lengths_U.min() == 20 and set(data.ratings_N.tolist()) == {1, 2, 3, 4, 5}
    assert data.ratings_N.mean() == pytest.approx(3.52986)
    first = data.item_names[data.items_N[0]], int(data.times_N[0])
    assert first == ("168", 874965478)
    assert data.notes == (
        "50561 interactions have the time of the one before them: the file's order decides",
    )


def test_splits_of_movielens_100k(movielens):
    split = movielens()
    assert len(split.test) == len(split.validation) == 943
    assert split.train_where_N.sum() == 100_000 - 2 * 943
    later = movielens(split="temporal:0.8,0.1,all")
    data = later.data
    assert abs(later.train_where_N.mean() - 0.8) < 1e-3
    latest = data.times_N[later.train_where_N].max()
    assert data.times_N[later.validation.ends_E].min() > latest
    assert data.times_N[later.test.ends_E].min() > data.times_N[later.validation.ends_E].max()
    liked = movielens(preparation=Preparation(min_rating=4, min_user_count=5, min_item_count=5))
    assert liked.data.ratings_N.min() == 4 and liked.data.lengths_U.min() >= 5
    assert np.bincount(liked.data.items_N).min() >= 5


def test_movielens_1m_in_the_form_of_sasrec(shared_data):
    data = load_interactions(f"files:{shared_data('ml-1m')}")
    assert (len(data), data.num_users, data.num_items) == (999_611, 6040, 3416)
    assert data.notes == ()
    assert data.item_names[0] == "1" and data.item_names[-1] == "3416"
    assert data.item_texts[0] == "Raiders of the Lost Ark (1981) | Action, Adventure"


def test_film_text():
    assert film_text("Good Morning", "1971", ("unknown",)) == "Good Morning (1971)"
    assert film_text("unkonwn", "unkonwn", ("unknown",)) == "unkonwn"
    assert film_text("M", "1931", ("Crime", "Film-Noir")) == "M (1931) | Crime, Film-Noir"


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("movielens-100", r"Did you mean 'movielens-100k'.*files:FOLDER.*tfds:"),
        ("files:", "unknown interactions 'files:'"),
        ("files:/nowhere/at/all", "no folder and no file"),
    ],
)
def test_unknown_data(spec, match):
    with pytest.raises(UserError, match=match):
        load_interactions(spec)


def test_an_unknown_split_is_told_before_anything_is_read():
    with pytest.raises(UserError, match="unknown split 'random'"):
        load_ranking_split("files:/nowhere", split="random")
