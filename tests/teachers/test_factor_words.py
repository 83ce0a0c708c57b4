"""What a factorisation teaches, against plain numpy."""

import numpy as np
import pytest
from recsys import save_model, small_split
from scipy.special import logsumexp

from distill_jax.core.errors import UserError
from distill_jax.core.top_items import Wanted
from distill_jax.data.histories import Draws, HistoryTable, Negatives
from distill_jax.teachers.factor_words import factor_words

ALL = Wanted(top=5, queries=True, items=True, unseen=4, negatives=1, fans=3, fans_of=2)


@pytest.fixture(scope="module")
def split():
    return small_split(num_items=30)


@pytest.fixture(scope="module")
def words(split, tmp_path_factory):
    recommender, params = save_model(tmp_path_factory.mktemp("mf"), "bpr_mf-4", split=split)
    return factor_words(recommender, params, split, 8)


@pytest.fixture(scope="module")
def batch(split):
    table = HistoryTable(split, "any", 3, True)
    return Draws(table, None, Negatives(2, "row"))(table.batch(np.arange(6), 3, 8), 0, 0)


def test_its_words_are_those_of_its_scores(words, split, batch):
    said = words.listen(ALL)(batch)
    scores_UI = words.users_UD @ words.items_ID.T + words.bias_I
    taken_UI = split.train_matrix().toarray() > 0
    for row, user in enumerate(batch.example_ids_B):
        if user < 0:
            assert not said.where_BT[row].any()
            continue
        order = np.argsort(-scores_UI[user])
        for t in np.flatnonzero(batch.where_BT[row]):
            assert said.where_BT[row, t]
            np.testing.assert_array_equal(said.ids_BTK[row, t], order[:5])
            np.testing.assert_allclose(said.logits_BTK[row, t], scores_UI[user, order[:5]], 1e-5)
            rest = logsumexp(scores_UI[user, order[5:]])
            np.testing.assert_allclose(said.rest_BT[row, t], rest, 1e-4)
            target = batch.targets_BT[row, t]
            np.testing.assert_allclose(said.target_BT[row, t], scores_UI[user, target], 1e-4)
            np.testing.assert_array_equal(said.queries_BTD[row, t], words.users_UD[user])
        free = [item for item in order if not taken_UI[user, item]]
        np.testing.assert_array_equal(said.unseen_BK[row], free[:4])
        own = batch.negatives_BTN[row, -1]
        np.testing.assert_array_equal(said.negatives_BND[row, 0], words.items_ID[own[0]])
        for item, fans in zip(own, said.fans_BNK[row], strict=True):
            ranked = np.argsort(-(words.users_UD @ words.items_ID[item]))
            np.testing.assert_array_equal(fans, [u for u in ranked if not taken_UI[u, item]][:3])


def test_a_placebo_tells_of_others(words, batch):
    plain, other = (words.listen(ALL, shuffle=seed)(batch) for seed in (None, 5))
    assert (plain.unseen_BK != other.unseen_BK).any()
    assert (plain.queries_BTD != other.queries_BTD).any()
    assert (plain.fans_BNK != other.fans_BNK).any()


def test_longer_lists_than_there_are_are_refused(words, batch):
    with pytest.raises(UserError, match="reads the teacher's likeliest 9 items; it names 8"):
        words.listen(Wanted(top=9))
    with pytest.raises(UserError, match="a list of 29 items is wanted where some have only"):
        words.listen(Wanted(unseen=29))(batch)
