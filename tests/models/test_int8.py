"""8-bit integers: one arithmetic for training, here and elsewhere, whoever shares the batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.compression.int8 import largest_inputs, quantised
from distill_jax.core.types import as_batch
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.models.build import build_model, family_of, load_model
from distill_jax.models.compact_bert import CompactBertConfig, compact
from distill_jax.models.int8 import EXACT, int8_product, rounded, rounded_affine, scales

CONFIG = BertConfig(40, 32, 2, 4, 64, max_positions=32, pooling="mean", initializer_range=0.3)


@pytest.fixture(scope="module")
def params():
    return init_bert(CONFIG, jax.random.key(0))


def test_scales_and_rounding_are_those_of_the_formula():
    x = jnp.asarray([[0.0, 0.0, 0.0], [1.27, -0.635, 0.005], [-254.0, 3.0, 5.0]])
    scale = scales(x, 1)
    np.testing.assert_allclose(scale[:, 0], [1.0, 0.01, 2.0], rtol=1e-6)
    whole = rounded(jnp.asarray([[2.5, 3.5, -0.5, 500.0, -500.0]]), jnp.ones((1, 1)))
    assert whole.tolist() == [[2, 4, 0, 127, -127]]  # half to even; -128 is not used


@pytest.mark.parametrize("width", [7, EXACT, EXACT + 1, 3 * EXACT + 5])
def test_products_are_exact_at_any_width(width):
    rng = np.random.default_rng(width)
    x, w = (rng.integers(-127, 128, size) for size in ((3, width), (width, 2)))
    x[0], w[:, 0] = 127, 127  # the largest sum there is
    found = int8_product(jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.int8))
    np.testing.assert_array_equal(found, (x @ w).astype(np.float32))


def test_training_computes_what_the_integers_will(params):
    batch = as_batch(jnp.arange(1, 13, dtype=jnp.int32).reshape(2, 6), jnp.ones((2, 6), bool))
    in_training = build_model(compact(CONFIG, arithmetic="rounded"))
    config, whole = quantised(CONFIG, params)
    one = in_training.apply({"params": params}, batch).logits_BC
    other = build_model(config).apply({"params": whole}, batch).logits_BC
    np.testing.assert_array_equal(one, other)
    plain = Bert(CONFIG).apply({"params": params}, batch).logits_BC
    assert 0 < np.abs(np.asarray(one - plain)).max() < 0.3


def test_the_gradient_goes_straight_through_the_rounding():
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], (4, 8)), jax.random.normal(keys[1], (8, 3))
    up, bias = jax.random.normal(keys[2], (4, 3)), jnp.zeros(3)
    near_x = rounded(x, scales(x, 1)) * scales(x, 1)
    near_kernel = rounded(kernel, scales(kernel, 0)) * scales(kernel, 0)
    value, pull = jax.vjp(rounded_affine, x, kernel, bias)
    np.testing.assert_allclose(value, near_x @ near_kernel, atol=1e-5)
    for found, expected in zip(
        pull(up), (up @ near_kernel.T, near_x.T @ up, up.sum(0)), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("activations", ["token", "static", "float"])
def test_an_example_is_answered_alike_alone_batched_and_padded(params, activations):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 12, 16)
    ids = rng.integers(1, 40, (16, 12)).astype(np.int32)
    where = np.arange(12)[None] < lengths[:, None]
    batch = as_batch(jnp.asarray(ids), jnp.asarray(where))
    largest = largest_inputs(CONFIG, params, [batch]) if activations == "static" else None
    config, whole = quantised(CONFIG, params, activations, largest)
    apply = jax.jit(lambda batch: build_model(config).apply({"params": whole}, batch).logits_BC)
    together = np.asarray(apply(batch))
    padded = as_batch(
        jnp.asarray(np.pad(ids, ((0, 0), (0, 12)), constant_values=7)),
        jnp.asarray(np.pad(where, ((0, 0), (0, 12)))),
    )
    np.testing.assert_allclose(np.asarray(apply(padded)), together, atol=1e-5)
    for row in range(4):
        short = lengths[row]
        one = as_batch(jnp.asarray(ids[row : row + 1, :short]), jnp.ones((1, short), bool))
        np.testing.assert_allclose(np.asarray(apply(one))[0], together[row], atol=1e-5)


def test_one_scale_for_a_batch_would_fail_that():
    """The contrast: what public exports do, whose answer hangs on who shares the batch."""
    x = jnp.asarray([[0.3, -0.2, 0.1]])
    loud = jnp.concatenate([x, 40 * x])
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)

    def per_batch(x):
        scale = jnp.max(jnp.abs(x)) / 127
        return (rounded(x, scale) * scale @ kernel)[0]

    assert np.abs(np.asarray(per_batch(x) - per_batch(loud))).max() > 1e-3
    bias = jnp.zeros(4)
    one, other = rounded_affine(x, kernel, bias)[0], rounded_affine(loud, kernel, bias)[0]
    np.testing.assert_array_equal(one, other)


def test_static_scales_are_those_of_the_real_tokens(params):
    ids = jnp.asarray([[1, 2, 3, 0, 0]], jnp.int32)
    batch = as_batch(ids, jnp.asarray([[True] * 3 + [False] * 2]))
    found = largest_inputs(CONFIG, params, [batch])
    assert len(found) == 6 * CONFIG.num_layers
    output = Bert(CONFIG).apply({"params": params}, batch)
    read = np.abs(np.asarray(output.hidden_states[1][0, :3])).max()
    assert found["layer_2", "attention", "query"] == pytest.approx(read, rel=1e-6)
    assert np.abs(np.asarray(output.hidden_states[1][0])).max() > read  # padding is louder


def test_folders_hold_integers_and_give_the_same_answers(params, toy_teacher, tmp_path):
    config = dataclasses.replace(CONFIG, vocab_size=40)
    config, whole = quantised(config, params)
    family = family_of(config)
    folder = tmp_path / "model"
    family.save(folder, config, whole, toy_teacher / "tokenizer.json", ("a", "b"))
    loaded = load_model(folder)
    dtypes = jax.tree.map(lambda x: x.dtype, loaded.params)
    assert dtypes["layer_1"]["output"]["kernel"] == jnp.int8
    assert dtypes["embeddings"]["word"]["embedding"] == jnp.int8
    assert dtypes["classifier"]["kernel"] == jnp.float32
    assert loaded.config == config and type(loaded.config) is CompactBertConfig
    jax.tree.map(np.testing.assert_array_equal, loaded.params, whole)
    assert b'"model_type": "bert"' not in (folder / "config.json").read_bytes()
