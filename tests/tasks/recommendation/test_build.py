"""What a grown catalogue gives a model: rows of new items, vectors in the scale of the old."""

import numpy as np
from recsys import save_model, small_split

from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.text_items import ItemTexts
from distill_jax.tasks.recommendation.build import item_vectors_of_file, with_new_rows


def test_a_new_row_is_the_mean_of_those_there_are(tmp_path):
    _, params = save_model(tmp_path / "a", "bpr_mf-4", split=small_split())
    split = small_split(num_users=15, num_items=20)
    new, _ = save_model(tmp_path / "b", "bpr_mf-4", split=split)
    grown = with_new_rows(new, params)
    for before, after in (
        (params["items"]["embedding"], grown["items"]["embedding"]),
        (params["item_bias"], grown["item_bias"]),
        (params["user_embedding"], grown["user_embedding"]),
    ):
        before = np.asarray(before)
        np.testing.assert_array_equal(after[: len(before)], before)
        for row in after[len(before) :]:
            np.testing.assert_allclose(row, before.mean(axis=0), rtol=1e-5)
    assert len(grown["user_embedding"]) == 15 and len(grown["item_bias"]) == 20


def test_beside_a_text_a_new_row_is_nothing_as_such_a_model_is_asked_about_new_items(tmp_path):
    texts = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    models = [
        save_model(
            tmp_path / str(items),
            "gru4rec-1x4-both",
            split=small_split(num_items=items),
            text_vectors=texts[:items],
        )
        for items in (17, 20)
    ]
    (old, params), (new, _) = models
    grown = with_new_rows(new, params)
    assert not grown["items"]["embedding"][17:].any()
    more = Recommender(old.config, ItemTexts(vectors_IE=texts))
    np.testing.assert_allclose(new.item_vectors(grown), more.item_vectors(params), rtol=1e-5)


def test_vectors_of_a_file_keep_the_scale_of_the_first_catalogue(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    vectors[4:] += 10
    np.save(tmp_path / "v.npy", vectors)
    names = tuple(f"i{n}" for n in range(6))
    (tmp_path / "v.txt").write_text("\n".join(names) + "\n")
    old = item_vectors_of_file(tmp_path / "v.npy", names[:4])[0]
    grown = item_vectors_of_file(tmp_path / "v.npy", names, 4)[0]
    np.testing.assert_allclose(grown[:4], old, rtol=1e-6)
    assert (grown[4:] > 3).all()
