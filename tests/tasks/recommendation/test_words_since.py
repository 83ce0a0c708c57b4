"""Of each user the word of the moment, and none of items that a teacher did not know then."""

import numpy as np
import pytest
from recsys import save_model, small_split

from distill_jax.core.errors import UserError
from distill_jax.core.top_items import Wanted
from distill_jax.data.histories import HistoryTable
from distill_jax.tasks.recommendation.words_since import by_user, of_known_targets
from distill_jax.teachers.factor_words import factor_words
from distill_jax.teachers.recommender_speaker import RecommenderSpeaker


def test_a_teacher_says_nothing_where_an_item_came_that_it_does_not_know(tmp_path):
    split = small_split()
    recommender, params = save_model(tmp_path, split=split)
    batch = HistoryTable(split, "next", 6).batch(np.arange(8), 6, 8)
    speaker = RecommenderSpeaker(recommender, params, 5, among=12)
    said = of_known_targets(speaker, 12)(batch)
    assert np.asarray(said.ids_BTK).max() < 12
    unknown = np.asarray(batch.targets_BT) >= 12
    where = np.asarray(batch.where_BT)
    assert (unknown & where).any()
    np.testing.assert_array_equal(said.where_BT, where & ~unknown)
    with pytest.raises(UserError, match="of 5 items a teacher names 1 to 4"):
        RecommenderSpeaker(recommender, params, 5, among=5)


def test_of_rows_that_another_teacher_speaks_of_an_earlier_one_knows_no_items(tmp_path):
    grown = small_split(num_items=20)
    batch = HistoryTable(grown, "next", 6).batch(np.arange(8), 6, 8)
    known_B = (np.asarray(batch.targets_BT) < 17).all(axis=1)
    second_U = np.ones(grown.data.num_users, bool)
    second_U[np.asarray(batch.example_ids_B)[known_B]] = False
    assert known_B.any() and not known_B.all()
    said = []
    for split in (small_split(), grown):
        model, params = save_model(tmp_path / str(split.data.num_items), "bpr_mf-4", split=split)
        said.append(factor_words(model, params, split, 3).listen(Wanted(top=3)))
    heard = by_user(*said, second_U)(batch)
    for rows_B, own in ((known_B, said[0]), (~known_B, said[1])):
        some = HistoryTable(grown, "next", 6).batch(np.flatnonzero(rows_B), 6, 8)
        count = int(rows_B.sum())
        np.testing.assert_array_equal(heard.target_BT[rows_B], own(some).target_BT[:count])
        np.testing.assert_array_equal(heard.ids_BTK[rows_B], own(some).ids_BTK[:count])
