import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from searches import VOCABULARY, toy_table

from distill_jax.core.errors import UserError
from distill_jax.core.types import as_batch
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.models.cross_encoder import CrossEncoder, CrossEncoderConfig
from distill_jax.models.narrowed import embeddings_from
from distill_jax.models.two_tower import (
    TwoTower,
    TwoTowerConfig,
    init_two_tower,
    pretrained_towers,
)
from distill_jax.training.feed import Feed

TOWER = BertConfig(VOCABULARY, 8, 1, 2, 16, max_positions=16, pooling="mean", num_labels=6)


def drawn(kind="towers"):
    table = toy_table(kind)
    return Feed(table, (table.query_length,), 5, 0, draws=table.draw)(1)[0]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_scores_are_the_inner_products_of_the_vectors(shared, similarity):
    config = TwoTowerConfig(TOWER, shared, similarity, 10.0)
    params = init_two_tower(config, jax.random.key(0))
    assert set(params) == ({"tower"} if shared else {"query_tower", "item_tower"})
    batch = drawn()
    output = jax.jit(TwoTower(config).apply)({"params": params}, batch)
    apply = jax.jit(Bert(TOWER).apply)
    queries = apply(
        {"params": params.get("tower", params.get("query_tower"))},
        as_batch(batch.query_ids_BT, batch.query_where_BT),
    )
    items = apply(
        {"params": params.get("tower", params.get("item_tower"))},
        as_batch(batch.item_ids_BNT[:, 2], batch.item_where_BNT[:, 2]),
    )
    q, v = np.asarray(queries.logits_BC, np.float64), np.asarray(items.logits_BC, np.float64)
    expected = (q * v).sum(1) / np.sqrt(6)
    if similarity == "cosine":
        expected = 10 * (q * v).sum(1) / np.linalg.norm(q, axis=1) / np.linalg.norm(v, axis=1)
    there = np.asarray(batch.there_BN)[:, 2]
    assert np.asarray(output.scores_BN)[there, 2] == pytest.approx(expected[there], rel=1e-4)
    assert np.isneginf(np.asarray(output.scores_BN)[~np.asarray(batch.there_BN)]).all()


def test_padding_changes_no_score():
    config = TwoTowerConfig(TOWER)
    params = init_two_tower(config, jax.random.key(0))
    batch = drawn()

    def padded(ids, where):
        pad = [(0, 0)] * (ids.ndim - 1) + [(0, 3)]
        return np.pad(ids, pad, constant_values=7), np.pad(where, pad)

    query = padded(batch.query_ids_BT, batch.query_where_BT)
    item = padded(batch.item_ids_BNT, batch.item_where_BNT)
    wider = batch.replace(
        query_ids_BT=query[0], query_where_BT=query[1], item_ids_BNT=item[0], item_where_BNT=item[1]
    )
    apply = jax.jit(TwoTower(config).apply)
    one, other = (apply({"params": params}, b).scores_BN for b in (batch, wider))
    assert np.asarray(one) == pytest.approx(np.asarray(other), abs=1e-5)


def test_gradients_reach_every_parameter_that_is_used():
    for config in (TwoTowerConfig(TOWER), TwoTowerConfig(TOWER, shared=False)):
        params = init_two_tower(config, jax.random.key(0))
        batch = drawn()

        def loss(p, config=config, batch=batch):
            said = TwoTower(config).apply({"params": p}, batch)
            return jnp.sum(jnp.where(batch.there_BN, said.scores_BN, 0) ** 2)

        for path, grad in jax.tree_util.tree_leaves_with_path(jax.grad(loss)(params)):
            name = jax.tree_util.keystr(path)
            # A key's bias moves all scores of a row alike; the last positions are never used.
            assert np.isfinite(grad).all()
            assert np.abs(grad).max() > 0 or ("key" in name and "bias" in name), name


def test_a_cross_encoder_scores_each_pair_by_itself():
    bert = dataclasses.replace(TOWER, num_labels=1)
    params = init_bert(bert, jax.random.key(0))
    batch = drawn("pairs")
    model = CrossEncoder(CrossEncoderConfig(bert))
    scores = np.asarray(jax.jit(model.apply)({"params": {"encoder": params}}, batch).scores_BN)
    row, place = 1, 2
    alone = as_batch(
        *(
            jnp.asarray(x[row, place][None])
            for x in (batch.pair_ids_BNT, batch.pair_where_BNT, batch.pair_types_BNT)
        )
    )
    assert scores[row, place] == pytest.approx(
        float(jax.jit(Bert(bert).apply)({"params": params}, alone).logits_BC[0, 0]), rel=1e-5
    )


def test_pretrained_towers_give_the_encoders_own_vectors():
    encoder = dataclasses.replace(TOWER, num_labels=2)
    params = init_bert(encoder, jax.random.key(3))
    config, towers = pretrained_towers(encoder, params, cosine_scale=1.0)
    batch = drawn()
    vectors = TwoTower(config).apply(
        {"params": towers}, batch.query_ids_BT, batch.query_where_BT, side="query", method="encode"
    )
    said = Bert(encoder).apply(
        {"params": params}, as_batch(batch.query_ids_BT, batch.query_where_BT)
    )
    where = np.asarray(batch.query_where_BT)[..., None]
    mean = np.sum(np.asarray(said.hidden_states[1]) * where, axis=1) / where.sum(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    assert np.asarray(vectors) == pytest.approx(mean, abs=1e-5)


def test_projected_embeddings_keep_what_is_near():
    wide = init_bert(dataclasses.replace(TOWER, hidden_size=24), jax.random.key(0))
    rng = np.random.default_rng(0)
    low = rng.normal(size=(VOCABULARY, 4)) @ rng.normal(size=(4, 24))  # of rank 4: nothing is lost
    wide["embeddings"]["word"]["embedding"] = low.astype(np.float32)
    narrow = embeddings_from(init_bert(TOWER, jax.random.key(1)), wide)
    words = narrow["embeddings"]["word"]["embedding"]
    centred = low - low.mean(axis=0)
    assert words @ words.T == pytest.approx(centred @ centred.T, abs=1e-3)
    with pytest.raises(UserError, match="cannot start from"):
        embeddings_from(wide, narrow)


def test_models_and_lists_that_do_not_fit_say_so():
    with pytest.raises(UserError, match="kind 'towers'"):
        TwoTower(TwoTowerConfig(TOWER)).init(jax.random.key(0), drawn("pairs"))
    one = CrossEncoderConfig(dataclasses.replace(TOWER, num_labels=1))
    with pytest.raises(UserError, match="kind 'pairs'"):
        CrossEncoder(one).init(jax.random.key(0), drawn())
    with pytest.raises(UserError, match="one output, not 6"):
        CrossEncoderConfig(TOWER)
    with pytest.raises(UserError, match="similarity"):
        TwoTowerConfig(TOWER, similarity="euclid")


def test_a_cross_encoder_corrects_what_a_retriever_says():
    table = toy_table("pairs")
    rng = np.random.default_rng(0)
    vectors = tuple(rng.normal(size=(24, 5)).astype(np.float32) for _ in range(2))
    informed = dataclasses.replace(table, prior=vectors)
    one, other = (Feed(t, (4,), 5, 0, draws=t.draw)(1)[0] for t in (table, informed))
    bert = dataclasses.replace(TOWER, num_labels=1)
    apply = jax.jit(CrossEncoder(CrossEncoderConfig(bert)).apply)
    params = {"params": {"encoder": init_bert(bert, jax.random.key(0))}}
    difference = np.asarray(apply(params, other).scores_BN) - np.asarray(
        apply(params, one).scores_BN
    )
    for row, query in enumerate(one.example_ids_B):
        for place in np.flatnonzero(one.there_BN[row]):
            expected = vectors[0][query] @ vectors[1][one.items_BN[row, place]]
            assert difference[row, place] == pytest.approx(expected, abs=1e-4)
