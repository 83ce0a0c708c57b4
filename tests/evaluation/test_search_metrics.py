import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from searches import VOCABULARY, toy_table

from distill_jax.core.errors import UserError
from distill_jax.core.types import as_batch
from distill_jax.data.query_product import Judgement, build_search_data
from distill_jax.evaluation.search import (
    Encoder,
    exact_top_k,
    ndcg,
    relevant_from,
    retrieval_scores,
    top_k,
)
from distill_jax.models.bert import Bert, BertConfig
from distill_jax.models.two_tower import TwoTower, TwoTowerConfig, init_two_tower


def toy(gains, more=3):
    """One query in each split with these gains of products a, b, ...; some products unjudged."""
    names = "abcdefgh"[: len(gains)]
    rows = [
        Judgement(f"{split} q", name, name, gain, split)
        for split in ("train", "validation", "test")
        for name, gain in zip(names, gains, strict=True)
    ]
    return build_search_data("toy", rows, more_items={f"u{n}": f"u{n}" for n in range(more)})


def test_metrics_by_hand():
    # Products: u0 u1 u2 are 0 1 2, a b c are 3 4 5. Found: b, u0, a (c is missed).
    data = toy([1.0, 0.1, 1.0])
    test = data.splits["test"]
    found = np.array([[4, 0, 3]], np.int32)
    scores = retrieval_scores(data, test, found, ndcg_at=(3, 1), mrr_at=(2, 10), recall_at=(1, 3))
    dcg = 0.1 / np.log2(2) + 0 + 1 / np.log2(4)
    best = 1 / np.log2(2) + 1 / np.log2(3) + 0.1 / np.log2(4)
    assert scores.means == pytest.approx(
        {
            "ndcg@3": dcg / best,
            "ndcg@1": 0.1,
            "mrr@2": 0.0,
            "mrr@10": 1 / 3,
            "recall@1": 0.0,
            "recall@3": 0.5,
        }
    )
    assert relevant_from(data) == 0.5


def test_queries_without_a_relevant_product_are_left_out():
    rows = [
        Judgement("t", "a", "a", 1.0, "train"),
        Judgement("v", "a", "a", 1.0, "validation"),
        Judgement("x", "a", "a", 1.0, "test"),
        Judgement("y", "b", "b", 0.1, "test"),
    ]
    data = build_search_data("toy", rows)
    found = np.zeros((2, 1), np.int32)
    assert retrieval_scores(data, data.splits["test"], found).queries.tolist() == [2]
    with pytest.raises(UserError, match="none of these queries"):
        retrieval_scores(data, data.splits["test"][1:], found[1:])


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 9), st.integers(1, 5))
def test_exact_top_k_is_a_sort_whatever_the_ties_and_blocks(seed, num_items, k, block):
    rng = np.random.default_rng(seed)
    queries = rng.integers(-2, 3, (4, 2)).astype(np.float32)
    items = rng.integers(-2, 3, (num_items, 2)).astype(np.float32)
    found, scores = exact_top_k(queries, items, k, block=block)
    every = queries @ items.T
    for row in range(4):
        naive = sorted(range(num_items), key=lambda i: (-every[row, i], i))[:k]
        assert found[row].tolist() == naive
        assert scores[row].tolist() == every[row, naive].tolist()


@given(st.integers(0, 10_000))
def test_ndcg_is_1_for_the_best_order_and_never_more(seed):
    rng = np.random.default_rng(seed)
    gains = rng.choice([0, 0.01, 0.1, 1], 6)
    if gains.max() == 0:
        assert ndcg(gains, gains, 5) == 0
        return
    assert ndcg(np.sort(gains)[::-1], gains, 5) == pytest.approx(1)
    assert 0 <= ndcg(rng.permutation(gains), gains, 5) <= 1 + 1e-12


def test_k_must_be_positive_and_may_exceed_the_catalogue():
    with pytest.raises(UserError, match="at least 1"):
        exact_top_k(np.zeros((1, 2)), np.zeros((3, 2)), 0)
    assert top_k(np.array([[1.0, 3.0, 2.0]]), 9)[0].tolist() == [[1, 2, 0]]


def test_an_encoder_gives_each_rows_own_vector_in_order():
    table = toy_table()
    config = TwoTowerConfig(
        BertConfig(VOCABULARY, 8, 1, 2, 16, max_positions=16, pooling="mean", num_labels=6)
    )
    params = init_two_tower(config, jax.random.key(0))
    vectors = Encoder(TwoTower(config), batch_size=7)(params, table.items, "item")
    assert vectors.shape == (24, 6)
    own = table.items.batch(np.array([5]), 4, 1)
    said = Bert(config.tower).apply(
        {"params": params["tower"]}, as_batch(own.input_ids_BT, own.where_BT)
    )
    assert vectors[5] == pytest.approx(np.asarray(said.logits_BC)[0] * 6**-0.25, abs=1e-5)
