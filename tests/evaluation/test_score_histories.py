"""Scores of neural recommenders: at any batch size, for anybody, at few compiled shapes."""

import functools

import jax
import numpy as np
import pytest
from recsys import small_split

from distill_jax.core.mesh import make_mesh
from distill_jax.core.ranking_types import scores_last
from distill_jax.data.histories import questions
from distill_jax.data.interactions import histories_of
from distill_jax.evaluation import score_histories
from distill_jax.evaluation.recommend import rank_cases, recommend
from distill_jax.evaluation.score_histories import HistoryScorer, scores_of
from distill_jax.models.recommenders.bert4rec import Bert4RecConfig
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.sasrec import SasRecConfig
from distill_jax.models.recommenders.text_items import ItemConfig


@pytest.fixture(scope="module")
def split():
    return small_split(num_users=9)


@functools.cache
def model_of(kind, num_items):
    recommender = Recommender(kind(ItemConfig(num_items, 8), num_layers=1, max_length=7))
    return recommender, recommender.init(jax.random.key(0))


@pytest.mark.parametrize("kind", [SasRecConfig, Bert4RecConfig])
def test_scores_are_the_models_last_ones_whatever_the_shape(split, kind, monkeypatch):
    monkeypatch.setattr(score_histories, "LENGTHS", (4,))
    monkeypatch.setattr(score_histories, "rows_at_once", lambda _: 16)
    recommender, params = model_of(kind, split.data.num_items)
    histories = split.test.histories(split.data)
    task = recommender.config.task

    @jax.jit
    def plain(batch):
        return scores_last(recommender.apply({"params": params}, batch))

    expected = plain(questions(histories, task, 7, len(histories)))
    scorer = HistoryScorer(recommender)
    assert scorer.lengths == (4, 7)
    ready = scorer.of(params)
    np.testing.assert_allclose(ready(histories), expected, rtol=1e-4, atol=1e-6)
    shapes = set()
    for row in range(len(histories)):
        one = histories.part(row, row + 1)
        shapes.add(scorer.batch(one).item_ids_BT.shape)
        np.testing.assert_allclose(ready(one)[0], expected[row], rtol=1e-4, atol=1e-6)
    assert shapes == {(1, 4), (1, 7)}
    many, few = (
        rank_cases(ready, split.data, split.test, batch_size=size, list_length=3)
        for size in (99, 2)
    )
    np.testing.assert_array_equal(many.ranks_E, few.ranks_E)


def test_people_who_are_not_in_the_data_are_served(split):
    recommender, params = model_of(SasRecConfig, split.data.num_items)
    histories = histories_of([[3, 5], [], [2] * 20], split.data.num_items)
    scores = scores_of(recommender, params, histories)
    assert scores.shape == (3, split.data.num_items) and np.isfinite(scores).all()
    top, _ = recommend(HistoryScorer(recommender).of(params), histories, 4)
    assert not set(top[0]) & {3, 5} and 2 not in top[2]


def test_devices_share_the_items_of_a_large_catalogue(split, monkeypatch):
    """Of 17 items one of eight devices has none that is real."""
    recommender, params = model_of(SasRecConfig, split.data.num_items)
    histories = split.test.histories(split.data)
    scorer, mesh = HistoryScorer(recommender), make_mesh(fsdp=4)
    alone = np.asarray(scorer.of(params, mesh=mesh)(histories))
    placed = []
    monkeypatch.setattr(score_histories, "LARGE", split.data.num_items)
    monkeypatch.setattr(scorer, "_score", spied := functools.partial(_spy, scorer._score, placed))
    shared = scorer.of(params, mesh=mesh)(histories)
    assert spied.args[1] == [{(3, 8)}]
    assert shared.shape == alone.shape
    assert not HistoryScorer(model_of(Bert4RecConfig, 17)[0])._shares(17, mesh)
    np.testing.assert_allclose(shared, alone, rtol=1e-5, atol=1e-6)


def _spy(score, placed, params, items_ID, batch):
    placed.append({part.data.shape for part in items_ID.addressable_shards})
    assert len(items_ID.addressable_shards) == 8
    return score(params, items_ID, batch)
