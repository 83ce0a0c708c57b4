"""Models that tell kinds of feedback apart: a vector a kind of event, a head a kind of question."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch
from distill_jax.models.family import registered
from distill_jax.models.recommenders.build import Recommender, parse_model, recommender_family
from distill_jax.models.recommenders.save import (
    config_from_json,
    config_to_json,
    load_recommender,
    save_recommender,
)
from distill_jax.models.recommenders.sequence import Inputs, KindHeads, Recommenders
from distill_jax.models.recommenders.text_items import ItemConfig

ITEMS, D, T = 9, 4, 3
KINDS = ("buy", "click")
NAMES = [
    each.name
    for each in registered(Recommenders)
    if "kinds" in {field.name for field in dataclasses.fields(each.config_type)}
]


def build(name, kinds, fields=()):
    config = recommender_family(name).fitted(
        ItemConfig(ITEMS, D),
        num_users=3,
        num_layers=1,
        max_length=T,
        num_heads=1,
        kinds=kinds,
        event_fields=fields,
    )
    return Recommender(config)


def batch_of(kinds, asked):
    ids = jnp.array([[1, 2, 3], [0, 4, 5]], jnp.int32)
    users = jnp.array([0, -1], jnp.int32)
    return HistoryBatch(users, ids, ids > 0, ids, ids > 0, kinds_BT=kinds, target_kinds_BT=asked)


def test_the_heads_by_their_formula():
    rng = np.random.default_rng(0)
    queries, kernel, bias = (
        rng.normal(size=shape).astype(np.float32) for shape in ((2, T, D), (2, D, D), (2, D))
    )
    kinds = np.array([[0, 1, 1], [1, 0, 0]], np.int32)
    params = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    said = KindHeads(2).apply({"params": params}, jnp.asarray(queries), jnp.asarray(kinds))
    for b in range(2):
        for t in range(T):
            k, q = kinds[b, t], queries[b, t]
            np.testing.assert_allclose(said[b, t], q + q @ kernel[k] + bias[k], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_begins_with_equal_heads_and_hears_of_kinds(name):
    model = build(name, KINDS)
    params = model.init(jax.random.key(0))
    said = jax.jit(lambda *kinds: model.apply({"params": params}, batch_of(*kinds)).queries_BTD)
    ones, zeros = jnp.ones((2, T), jnp.int32), jnp.zeros((2, T), jnp.int32)
    queries = said(zeros, zeros)
    np.testing.assert_array_equal(queries, said(zeros, ones))
    reads = "kind_embedding" in params.get("inputs", {})
    assert reads == (name != "bpr_mf")
    assert (np.abs(queries - said(ones, zeros)).max() > 1e-4) == reads
    heads = params["kind_heads"]
    assert heads["kernel"].shape == (2, D, D) and heads["bias"].shape == (2, D)
    assert "kind_heads" not in jax.eval_shape(build(name, ()).init, jax.random.key(0))


def test_heads_learn_from_their_own_targets_alone():
    kinds, queries = jnp.array([[0, 0, 0]], jnp.int32), jnp.ones((1, T, D))

    def loss(params):
        return jnp.sum(KindHeads(2).apply({"params": params}, queries, kinds))

    grads = jax.grad(loss)({"kernel": jnp.zeros((2, D, D)), "bias": jnp.zeros((2, D))})
    for grad in grads.values():
        assert (grad[0] != 0).all() and (grad[1] == 0).all()


def test_kinds_are_kept_with_the_model_and_cost_old_ones_nothing(tmp_path):
    model = build("sasrec", KINDS)
    params = model.init(jax.random.key(0))
    names = tuple(map(str, range(ITEMS)))
    save_recommender(tmp_path / "model", model, params, names)
    assert load_recommender(tmp_path / "model").recommender.config == model.config
    assert "kinds" not in config_to_json(build("sasrec", ()).config)
    assert config_from_json(config_to_json(build("bpr_mf", KINDS).config)).kinds == KINDS
    with pytest.raises(UserError, match="kinds must be"):
        build("sasrec", "buy")


def test_a_field_of_an_event_is_a_vector_beside_its_items():
    """By the definition; unknown ones and none at all are number 0."""
    inputs = Inputs(build("gru4rec", (), (3, 2)).config, positions=False)
    batch, items = batch_of(None, None), jnp.ones((ITEMS, D))
    numbers = jnp.array([[[0, 1], [2, 1], [1, 0]], [[2, 1], [2, 0], [0, 0]]], jnp.int32)
    params = inputs.init(jax.random.key(0), batch, items)["params"]
    said = inputs.apply({"params": params}, batch.replace(fields_BTC=numbers), items)
    one, two = params["field_0_embedding"], params["field_1_embedding"]
    expected = 1 + np.asarray(one)[numbers[..., 0]] + np.asarray(two)[numbers[..., 1]]
    where = np.asarray(batch.where_BT)[..., None]
    np.testing.assert_allclose(said, np.where(where, expected, 0), rtol=1e-6)
    silent = inputs.apply({"params": params}, batch, items)
    np.testing.assert_allclose(silent, np.where(where, 1 + one[0] + two[0], 0), rtol=1e-6)


def test_names_of_models_that_read_privileged_fields():
    assert parse_model("sasrec-2x64-id+privileged").privileged
    assert parse_model("sasrec-2x64-both+vectors+features+privileged").features
    assert not parse_model("sasrec-2x64-id+features").privileged
    with pytest.raises(UserError, match=r"\+privileged for fields of events"):
        parse_model("sasrec-2x64-id+privileged+features")
    config = build("sasrec", KINDS, (3, 2)).config
    assert config_from_json(config_to_json(config)) == config
