"""Targets among a few sampled items, against plain numpy."""

import dataclasses

import numpy as np
import pytest
from recsys import save_model, small_split

from distill_jax.core.errors import UserError
from distill_jax.data.build_interactions import Rows, build_interactions
from distill_jax.data.continual_splits import ContinualRule
from distill_jax.data.continued_splits import continued
from distill_jax.evaluation.among import at_items, metrics_among, others_of, ranks_among
from distill_jax.evaluation.recommend import rank_cases
from distill_jax.evaluation.score_histories import HistoryScorer
from distill_jax.tables.evidence import SAMPLED_RANK, pack_numbers, scores_by_example
from distill_jax.tables.ledger import LedgerRow


@pytest.fixture(scope="module")
def split():
    return small_split(num_items=30)


def test_others_are_different_items_that_the_user_never_took_in_any_part(split):
    others_UN = others_of(split, 9, 3)
    for user, own in enumerate(others_UN):
        took = split.data.items_N[split.data.offsets_U1[user] : split.data.offsets_U1[user + 1]]
        assert len(set(own)) == 9 and not set(own) & set(took)
    others_of.cache_clear()
    np.testing.assert_array_equal(others_of(split, 9, 3), others_UN)
    assert (others_of(split, 9, 4) != others_UN).any()


def test_a_user_who_took_nearly_all_has_too_few_left(split):
    with pytest.raises(UserError, match=r"has left \d+ items; 25 were to be sampled"):
        others_of(split, 25, 0)


def test_ranks_are_one_more_than_the_others_that_score_as_high(split):
    rng = np.random.default_rng(0)
    table_UI = rng.integers(0, 6, (split.data.num_users, 30)).astype(np.float32)  # many ties
    others_UN = others_of(split, 9, 0)
    ranks_E = ranks_among(at_items(lambda h: table_UI[h.users_E]), split, split.test, others_UN)
    for user, target, rank in zip(
        split.test.users_E, split.test.targets_E(split.data), ranks_E, strict=True
    ):
        assert rank == 1 + np.sum(table_UI[user, others_UN[user]] >= table_UI[user, target])
    hits = np.mean(ranks_E <= 5)
    assert metrics_among(ranks_E)["sampled_hr@5"] == pytest.approx(hits)
    row = LedgerRow.__new__(LedgerRow)
    object.__setattr__(row, "test_correct", None)
    object.__setattr__(row, "test_scores", {SAMPLED_RANK: pack_numbers(ranks_E)})
    assert scores_by_example(row, "test/sampled_hr@5").mean() == pytest.approx(hits)
    assert scores_by_example(row, "test/hr@5") is None  # those ranks were not kept


def test_what_is_held_out_of_an_update_is_asked_for_in_all_interactions(split):
    data = split.data
    rows = [(user, "the newest") for user in data.user_names]
    new = build_interactions("new", Rows(*zip(*rows, strict=True)))
    goes_on = continued(split, new, None, ContinualRule(witnesses=0.5))[0].update()
    asked, others_UN = goes_on.asked_data, others_of(goes_on, 9, 0)
    assert len(asked) > len(goes_on.data)
    table_UI = np.random.default_rng(0).normal(size=(len(others_UN), 31))
    scorer = at_items(lambda histories: table_UI[histories.users_E])
    everybody = dataclasses.replace(goes_on, known_U=np.ones(asked.num_users, bool))
    ranks_E = ranks_among(scorer, everybody, everybody.validation, others_UN)
    users_E, targets_E = everybody.validation.users_E, everybody.validation.targets_E(asked)
    for user, target, rank in zip(users_E, targets_E, ranks_E, strict=True):
        assert target not in others_UN[user]
        assert rank == 1 + np.sum(table_UI[user, others_UN[user]] >= table_UI[user, target])


def test_nan_has_rank_0(split):
    def broken(histories, items_EN):
        return np.full(items_EN.shape, np.nan)

    assert not ranks_among(broken, split, split.test, others_of(split, 9, 0)).any()


def test_a_few_items_score_as_in_the_whole_catalogue(split, tmp_path):
    """Among all that the user never took the rank is that over the catalogue."""
    recommender, params = save_model(tmp_path, "bpr_mf-4", split=split)
    scorer = HistoryScorer(recommender)
    few = [user for user in split.test.users_E if len(_taken(split, user)) == 12][:1]
    count = split.data.num_items - 12
    others_UN = np.zeros((split.data.num_users, count), np.int32)
    others_UN[few[0]] = np.setdiff1d(np.arange(30), _taken(split, few[0]))
    cases = split.test.take(np.flatnonzero(split.test.users_E == few[0]))
    ranks_E = ranks_among(scorer.at_items(params), split, cases, others_UN)
    whole = rank_cases(scorer.of(params), split.data, cases, learned_U=split.learned_U)
    np.testing.assert_array_equal(ranks_E, whole.ranks_E)


def _taken(split, user):
    offsets = split.data.offsets_U1
    return np.unique(split.data.items_N[offsets[user] : offsets[user + 1]])
