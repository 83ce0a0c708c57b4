"""Predictions come in the order of the table, whatever the batches."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.core.mesh import make_mesh, make_placement
from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.evaluation.predict import (
    logits_of,
    one_by_one,
    population_logits,
    population_logits_of,
    predict_logits,
)
from distill_jax.models.bert import Bert, init_bert


@pytest.mark.parametrize(("batch_size", "devices"), [(16, 8), (7, 1)])
def test_logits_are_those_of_each_example_alone(teacher, toy_table, batch_size, devices):
    model, params = teacher
    predicted = predict_logits(
        logits_of(model),
        params,
        toy_table,
        shape_lengths=(8, 12),
        batch_size=batch_size,
        mesh=make_mesh(jax.devices()[:devices]),
    )
    assert predicted.shape == (len(toy_table), 2)
    for row in (0, 17, 43):
        alone = make_batch(toy_table, PlannedBatch(np.asarray([row], np.int32), 12), batch_size=1)
        expected = model.apply({"params": params}, alone, train=False).logits_BC[0]
        np.testing.assert_allclose(predicted[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["vmap", "sharded"])
def test_a_population_predicts_what_each_member_does(student, student_config, toy_table, strategy):
    model = student[0]
    placement = make_placement(strategy, make_mesh())
    members = [init_bert(student_config, jax.random.key(seed)) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    how = {"shape_lengths": (8, 12), "batch_size": 16}
    apply = population_logits_of(model, placement)
    logits_PNC = population_logits(apply, stacked, toy_table, placement=placement, **how)
    assert logits_PNC.shape == (3, len(toy_table), 2) and logits_PNC.dtype == np.float32
    one_device = make_mesh(jax.devices()[:1])
    for params, logits_NC in zip(members, logits_PNC, strict=True):
        expected = predict_logits(logits_of(model), params, toy_table, mesh=one_device, **how)
        np.testing.assert_allclose(logits_NC, expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(logits_PNC[0], logits_PNC[1], rtol=1e-2)
    placed = placement.put_members(stacked)
    again = population_logits(apply, placed, toy_table, placement=placement, **how)
    np.testing.assert_array_equal(again[:3], logits_PNC)


def test_single_examples_are_spread_over_the_table(toy_table):
    batches = one_by_one(toy_table, 5, shape_lengths=(8, 12))
    assert len(batches) == 5
    assert all(batch.input_ids_BT.shape[0] == 1 for batch in batches)


def test_a_head_of_every_token_is_padded_to_the_longest(student_config, toy_table):
    config = dataclasses.replace(student_config, pooling="tokens")
    members = [init_bert(config, jax.random.key(seed)) for seed in range(2)]
    how = {"shape_lengths": (8, 12), "batch_size": 16}
    one_device = make_mesh(jax.devices()[:1])
    alone = [
        predict_logits(logits_of(Bert(config)), params, toy_table, mesh=one_device, **how)
        for params in members
    ]
    assert alone[0].shape == (len(toy_table), 12, 2)
    batch = make_batch(toy_table, PlannedBatch(np.asarray([17], np.int32), 12), batch_size=1)
    expected = Bert(config).apply({"params": members[0]}, batch, train=False).logits_BC[0]
    tokens = toy_table.lengths_N[17]
    np.testing.assert_allclose(alone[0][17, :tokens], expected[:tokens], rtol=1e-4, atol=1e-5)

    placement = make_placement("vmap", make_mesh())
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    apply = population_logits_of(Bert(config), placement)
    together = population_logits(apply, stacked, toy_table, placement=placement, **how)
    there_NT = np.arange(12) < toy_table.lengths_N[:, None]
    for params_said, own in zip(together, alone, strict=True):
        np.testing.assert_allclose(params_said[there_NT], own[there_NT], rtol=1e-4, atol=1e-5)
