"""What is cut out is gone from the arrays; where it had no effect, no logit changes."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from compressed import compressed

from distill_jax.compression import drop
from distill_jax.compression.int8 import Int8
from distill_jax.compression.steps import Student
from distill_jax.core.errors import UserError
from distill_jax.core.types import as_batch
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.models.build import build_model, family_in, load_model, student_family
from distill_jax.models.compact_bert import CompactBertConfig

CONFIG = BertConfig(30, 16, 3, 4, 24, max_positions=16, pooling="mean", initializer_range=0.3)


@pytest.fixture(scope="module")
def params():
    drawn = init_bert(CONFIG, jax.random.key(0))
    key = jax.random.key(1)
    return jax.tree.map(lambda x: np.array(x + 0.1 * jax.random.normal(key, x.shape)), drawn)


@functools.cache
def applied(config):
    return jax.jit(lambda params, batch: build_model(config).apply({"params": params}, batch))


def said(config, params):
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 30, (5, 9)).astype(np.int32)
    where = np.arange(9)[None] < rng.integers(3, 10, (5, 1))
    return np.asarray(applied(config)(params, as_batch(ids, where)).logits_BC)


def student(params):
    return Student(CONFIG, params, None, None)


def copied(params):
    return jax.tree.map(np.array, params)


@pytest.mark.parametrize("mute", [[(0, 3), (1, 2)], [(0,), (3,)]])
def test_heads_without_effect_leave_without_a_trace(params, mute):
    """``mute``: of layers 1 and 2; layer 3 loses its heads 0 on."""
    heads = [*mute, tuple(range(len(mute[0])))]
    own = copied(params)
    for number, gone in enumerate(heads, 1):
        for head in gone:
            own[f"layer_{number}"]["attention_output"]["kernel"][4 * head : 4 * head + 4] = 0
    kept = np.array([[h for h in range(4) if h not in gone] for gone in heads])
    smaller = drop.with_heads(student(own), kept)
    np.testing.assert_allclose(said(smaller.config, smaller.params), said(CONFIG, own), atol=1e-5)
    assert type(smaller.config) is CompactBertConfig
    assert smaller.config.num_heads == len(kept[0]) and smaller.config.head_size == 4
    shape = smaller.params["layer_1"]["attention"]["query"]["kernel"].shape
    assert shape == (16, 4 * len(kept[0]))
    slopes = [jax.tree.map(np.ones_like, own)]
    importance = drop.head_importance(student(own), slopes)
    np.testing.assert_array_equal(drop.best(importance, len(kept[0])), kept)
    missed = drop.with_heads(student(own), np.sort((kept + 1) % 4, axis=1))
    assert np.abs(said(missed.config, missed.params) - said(CONFIG, own)).max() > 1e-3


def test_neurons_without_effect_leave_without_a_trace(params):
    own = copied(params)
    for number in (1, 2, 3):
        own[f"layer_{number}"]["output"]["kernel"][number::2] = 0
    slopes = [jax.tree.map(np.ones_like, own)]
    importance = drop.neuron_importance(student(own), slopes)
    assert (importance == 0).sum(axis=1).tolist() == [12, 11, 11]
    kept = drop.best(importance, 13)
    smaller = drop.with_neurons(student(own), kept)
    np.testing.assert_allclose(said(smaller.config, smaller.params), said(CONFIG, own), atol=1e-5)
    assert type(smaller.config) is BertConfig and smaller.config.intermediate_size == 13
    assert smaller.params["layer_3"]["intermediate"]["kernel"].shape == (16, 13)


def test_the_layer_that_is_missed_least_goes_first(params):
    def loss(own):
        """Of a student without layer 2 the lowest, then without 1."""
        numbers = {
            float(own.params[f"layer_{n}"]["output"]["bias"][0])
            for n in range(1, own.config.num_layers + 1)
        }
        return 1.0 * (2.0 in numbers) + 0.5 * (1.0 in numbers)

    own = copied(params)
    for number in (1, 2, 3):
        own[f"layer_{number}"]["output"]["bias"][0] = number
    smaller, gone = drop.without_layers(student(own), 2, loss)
    assert gone == (2, 1)
    assert smaller.config.num_layers == 1 and set(smaller.params) == {
        "embeddings",
        "classifier",
        "layer_1",
    }
    jax.tree.map(np.testing.assert_array_equal, smaller.params["layer_1"], own["layer_3"])


def test_importance_is_what_the_loss_loses_with_a_head(params):
    """|d loss / d (a factor before the head)|, by a derivative taken otherwise."""
    batch = as_batch(np.arange(1, 9, dtype=np.int32).reshape(1, 8), np.ones((1, 8), bool))

    def loss(own):
        return Bert(CONFIG).apply({"params": own}, batch).logits_BC[0, 0] ** 2

    slopes = [jax.jit(jax.grad(loss))(params)]
    found = drop.head_importance(student(params), slopes)
    for layer, head in ((1, 0), (3, 2)):

        def scaled(factor, layer=layer, head=head):
            own = jax.tree.map(lambda x: x, params)
            kernel = jax.numpy.asarray(own[f"layer_{layer}"]["attention_output"]["kernel"])
            rows = slice(4 * head, 4 * head + 4)
            own[f"layer_{layer}"]["attention_output"]["kernel"] = kernel.at[rows].multiply(factor)
            return loss(own)

        assert found[layer - 1, head] == pytest.approx(
            abs(float(jax.jit(jax.grad(scaled))(1.0))), rel=1e-3
        )


def test_in_a_pipeline_arrays_are_smaller_and_folders_say_what_they_are(finished_run, tmp_path):
    steps = "drop(heads=0.5, ffn=0.25) -> drop(layers=1) -> distil(steps=4) -> int8"
    result, text = compressed(finished_run, steps, tmp_path)
    first, cut, fewer, taught, int8 = (load_model(hop.folder / "model") for hop in result.hops)
    assert (first.config.num_heads, first.config.intermediate_size) == (4, 64)
    assert (cut.config.num_heads, cut.config.head_size, cut.config.intermediate_size) == (2, 4, 48)
    assert (fewer.config.num_layers, int8.config.arithmetic) == (1, "int8")
    assert taught.config == fewer.config and int8.config.head_size == 4
    sizes = [hop.row.metrics["parameters"] for hop in result.hops]
    assert sizes[0] > sizes[1] > sizes[2] == sizes[3]
    assert {family_in(hop.folder / "model").name for hop in result.hops[1:]} == {"compact_bert"}
    assert "2 of 4 heads a layer are left" in text and "layers that went: " in text


def test_one_layer_at_least_stays(finished_run, tmp_path):
    with pytest.raises(UserError, match="the student has 2 layers, one at least stays"):
        compressed(finished_run, "drop(layers=2)", tmp_path)


def test_heads_of_their_own_size_need_not_divide_the_width():
    fields = dataclasses.asdict(CONFIG)
    with pytest.raises(UserError, match="not a multiple"):
        CompactBertConfig(**{**fields, "num_heads": 3})
    assert CompactBertConfig(**{**fields, "num_heads": 3}, head_size=4).attention_width == 12


@pytest.mark.parametrize("step", [drop.Drop(heads=0.5), Int8()])
def test_students_that_are_no_berts_are_refused(step):
    cnn = student_family("cnn-4-8").alone("cnn-4-8", 10)
    with pytest.raises(UserError, match="is for BERTs"):
        step.apply(Student(cnn, {}, None, None), None)
