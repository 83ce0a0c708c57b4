"""The small catalogue of a batch: numbers mean the same items, and the model says the same."""

import dataclasses

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from recsys import small_split

from distill_jax.core.ranking_types import Negatives
from distill_jax.core.top_items import TopItems
from distill_jax.data.histories import Draws, Hiding, HistoryTable
from distill_jax.models.recommenders.build import Recommender, recommender_family
from distill_jax.models.recommenders.occurring_items import OccurringItems, OfRows
from distill_jax.models.recommenders.text_items import ItemConfig

ITEMS, ROWS, LENGTH = 90, 4, 6


@pytest.fixture(scope="module")
def table():
    return HistoryTable(small_split(num_users=9, num_items=ITEMS), "next", LENGTH)


@pytest.fixture
def batch(table):
    drawn = Draws(table, None, Negatives(3, "row"))
    return drawn(table.batch(np.arange(3), LENGTH, ROWS), 0, 0)


def told(batch, top=2):
    """A teacher's word, whose items are named by the position."""
    shape = batch.where_BT.shape
    ids_BTK = np.arange(np.prod(shape) * top).reshape(*shape, top) % ITEMS
    some = np.zeros(shape, np.float32)
    return TopItems(ids_BTK.astype(np.int32), ids_BTK / 9, some, some, batch.where_BT)


def test_numbers_mean_the_same_items(batch):
    said = told(batch)
    smaller, heard = OccurringItems(ITEMS).renumber(batch, said)
    rows_R = smaller.rows_BC.ravel()
    for name in ("targets_BT", "negatives_BTN"):
        np.testing.assert_array_equal(rows_R[getattr(smaller, name)], getattr(batch, name))
    np.testing.assert_array_equal(rows_R[heard.ids_BTK], said.ids_BTK)
    padding = batch.item_ids_BT == 0
    np.testing.assert_array_equal(smaller.item_ids_BT == 0, padding)
    back = np.where(padding, 0, rows_R[smaller.item_ids_BT - 1] + 1)
    np.testing.assert_array_equal(back, batch.item_ids_BT)
    known_R = rows_R[rows_R < ITEMS]
    assert (np.diff(known_R) > 0).all() and len(known_R) < ITEMS
    assert set(rows_R[len(known_R) :]) <= {ITEMS}


def test_hidden_items_stay_hidden(table):
    hidden = Draws(table, Hiding(share=0.5))(table.batch(np.arange(3), LENGTH, ROWS), 0, 0)
    smaller, _ = OccurringItems(ITEMS).renumber(hidden, None)
    there = hidden.item_ids_BT == ITEMS + 1
    assert there.any()
    np.testing.assert_array_equal(smaller.item_ids_BT == smaller.rows_BC.size + 1, there)


@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_it_says_the_same(batch, kind):
    items = ItemConfig(ITEMS, 4, initializer_range=0.5)
    family = recommender_family(kind)
    recommender = Recommender(
        family.fitted(items, num_layers=1, max_length=LENGTH, num_heads=1, dropout=0.0)
    )
    params = dict(recommender.init(jax.random.key(0)))
    tables = OccurringItems.tables(params)
    assert (("item_bias",) in tables) is (kind == "bert4rec")
    smaller, _ = OccurringItems(ITEMS).renumber(batch, None)
    rows_R = np.minimum(smaller.rows_BC.ravel(), ITEMS - 1)
    own = {**params, "items": {"embedding": params["items"]["embedding"][rows_R]}}
    if kind == "bert4rec":
        params["item_bias"] = jax.random.normal(jax.random.key(1), (ITEMS,))
        own["item_bias"] = params["item_bias"][rows_R]
    whole = recommender.apply({"params": params}, batch)
    part = OfRows(recommender).apply({"params": own}, dataclasses.replace(smaller, rows_BC=None))
    assert part.items_ID.shape == (len(rows_R), 4)
    there = np.asarray(batch.where_BT)
    assert_allclose(part.queries_BTD[there], whole.queries_BTD[there], atol=1e-6)
