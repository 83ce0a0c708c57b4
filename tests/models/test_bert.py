import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture
from distill_jax.models.bert import ACTIVATIONS, POOLINGS, Bert, init_bert

KINDS = ("attention_scores", "attention_probs", "queries", "keys", "values")


def apply(config, params, batch, **kwargs):
    return Bert(config).apply({"params": params}, batch, **kwargs)


@pytest.fixture
def params(small_config):
    drawn = init_bert(small_config, jax.random.key(0))
    # Biases and norms start at 0 and 1, where mistakes with them would not show.
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float32), drawn
    )


def reference_logits(xp, erf, config, params, batch):
    """BERT's logits written plainly: one function, no module, nothing captured."""

    def dense(p, x):
        return xp.matmul(x, p["kernel"]) + p["bias"].reshape((1,) * (x.ndim - 1) + (-1,))

    def norm(p, x):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        scale, bias = (p[name].reshape((1, 1, -1)) for name in ("scale", "bias"))
        return centred / xp.sqrt(variance + config.layer_norm_eps) * scale + bias

    tables = params["embeddings"]
    rows, width = batch.input_ids_BT.shape
    x = tables["word"]["embedding"][batch.input_ids_BT]
    x = x + tables["token_type"]["embedding"][batch.token_type_ids_BT]
    x = norm(tables["norm"], x + tables["position"]["embedding"][None, :width])
    size = config.hidden_size // config.num_heads
    for number in range(1, config.num_layers + 1):
        p = params[f"layer_{number}"]
        q, k, v = (
            dense(p["attention"][name], x)
            .reshape(rows, width, config.num_heads, size)
            .transpose(0, 2, 1, 3)
            for name in ("query", "key", "value")
        )
        scores = xp.matmul(q, k.transpose(0, 1, 3, 2)) / math.sqrt(size)
        scores = xp.where(batch.where_BT[:, None, None, :], scores, -1e9)
        weights = xp.exp(scores - scores.max(-1, keepdims=True))
        weights = weights / weights.sum(-1, keepdims=True)
        context = xp.matmul(weights, v).transpose(0, 2, 1, 3).reshape(rows, width, -1)
        x = norm(p["attention_norm"], x + dense(p["attention_output"], context))
        up = dense(p["intermediate"], x)
        up = up * 0.5 * (1 + erf(up / math.sqrt(2)))
        x = norm(p["output_norm"], x + dense(p["output"], up))
    if config.pooling == "mean":
        where = batch.where_BT[:, :, None]
        pooled = xp.where(where, x, 0.0).sum(1) / where.sum(1)
    else:
        pooled = x[:, 0]
        if config.pooling == "pooler":
            pooled = xp.tanh(dense(params["pooling"]["dense"], pooled))
    return dense(params["classifier"], pooled)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_equal_a_float64_reference(small_config, params, make_batch, pooling):
    config = dataclasses.replace(small_config, pooling=pooling)
    batch = make_batch([7, 4, 1], 9)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    expected = reference_logits(np, scipy.special.erf, config, exact, batch)
    used = params if pooling == "pooler" else {k: v for k, v in params.items() if k != "pooling"}
    logits_BC = apply(config, used, batch).logits_BC
    assert logits_BC.shape == (3, 3)
    np.testing.assert_allclose(logits_BC, expected, rtol=2e-5, atol=2e-5)


def test_output_is_complete_and_numbered_from_the_embeddings(small_config, params, make_batch):
    """Trap 9: hidden state 0 is the embeddings, the first layer's attention is number 1."""
    batch = make_batch([7, 4], 8)
    output = apply(small_config, params, batch)
    assert sorted(output.hidden_states) == [0, 1, 2, 3]
    for kind in KINDS:
        assert sorted(getattr(output, kind)) == [1, 2, 3]
    assert output.hidden_states[0].shape == (2, 8, 16)
    assert output.attention_scores[1].shape == output.attention_probs[3].shape == (2, 2, 8, 8)
    assert output.queries[2].shape == output.keys[2].shape == output.values[2].shape == (2, 8, 2, 8)

    one_layer = {k: v for k, v in params.items() if k not in ("layer_2", "layer_3")}
    first = apply(dataclasses.replace(small_config, num_layers=1), one_layer, batch)
    np.testing.assert_allclose(first.hidden_states[1], output.hidden_states[1], atol=1e-6)
    np.testing.assert_allclose(first.attention_scores[1], output.attention_scores[1], atol=1e-6)


def test_attention_parts_agree_with_each_other(small_config, params, make_batch):
    """Scores are q.k / sqrt(size), unmasked; trap 8: the mask comes before the softmax."""
    batch = make_batch([7, 4], 8)
    output = apply(small_config, params, batch)
    q, k = np.asarray(output.queries[2]), np.asarray(output.keys[2])
    expected = np.zeros((2, 2, 8, 8))
    for b, h, t, s in np.ndindex(2, 2, 8, 8):
        expected[b, h, t, s] = q[b, t, h] @ k[b, s, h] / math.sqrt(8)
    np.testing.assert_allclose(output.attention_scores[2], expected, atol=1e-5)
    raw = np.exp(expected) * batch.where_BT[:, None, None, :]
    probs = np.asarray(output.attention_probs[2])
    np.testing.assert_allclose(probs, raw / raw.sum(-1, keepdims=True), atol=1e-6)
    assert (probs[1, :, :, 4:] == 0).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing_at_real_positions(small_config, params, make_batch, pooling):
    """Trap 7, for columns and for whole rows."""
    config = dataclasses.replace(small_config, pooling=pooling)
    used = params if pooling == "pooler" else {k: v for k, v in params.items() if k != "pooling"}
    tight = apply(config, used, make_batch([6, 3], 6))
    loose = apply(config, used, make_batch([6, 3, 0, 0], 11))
    np.testing.assert_allclose(loose.logits_BC[:2], tight.logits_BC, atol=1e-5)
    for row, length in enumerate((6, 3)):
        for number in range(4):
            np.testing.assert_allclose(
                loose.hidden_states[number][row, :length],
                tight.hidden_states[number][row, :length],
                atol=1e-5,
            )
        for number in range(1, 4):
            for kind in ("attention_scores", "attention_probs"):
                np.testing.assert_allclose(
                    getattr(loose, kind)[number][row, :, :length, :length],
                    getattr(tight, kind)[number][row, :, :length, :length],
                    atol=1e-5,
                )
            for kind in ("queries", "keys", "values"):
                np.testing.assert_allclose(
                    getattr(loose, kind)[number][row, :length],
                    getattr(tight, kind)[number][row, :length],
                    atol=1e-5,
                )


def test_what_stands_at_padding_does_not_matter(small_config, params, make_batch):
    batch = make_batch([6, 3], 8)
    junk = np.where(batch.where_BT, batch.input_ids_BT, 49).astype(np.int32)
    logits_BC = apply(small_config, params, batch).logits_BC
    other = apply(small_config, params, batch.replace(input_ids_BT=junk)).logits_BC
    np.testing.assert_array_equal(logits_BC, other)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_rows_of_padding_have_finite_values_and_gradients(small_config, make_batch, pooling):
    """Traps 15 and 16."""
    config = dataclasses.replace(small_config, num_layers=1, pooling=pooling)
    params = init_bert(config, jax.random.key(0))
    batch = make_batch([5, 0], 6)

    def total(params):
        output = apply(config, params, batch, train=True, rngs={"dropout": jax.random.key(1)})
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(output)), output

    (_, output), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    for leaf in jax.tree.leaves((output, gradient)):
        assert np.isfinite(leaf).all()


def test_gradient_of_real_rows_is_free_of_padding(small_config, params, make_batch):
    config = dataclasses.replace(small_config, num_layers=1)
    params = {name: params[name] for name in params if name not in ("layer_2", "layer_3")}

    def gradient(lengths, width):
        batch = make_batch(lengths, width)

        def loss(params):
            logits_BC = apply(config, params, batch).logits_BC
            return jnp.sum(jnp.where(batch.where_B[:, None], logits_BC, 0.0) ** 2)

        return jax.jit(jax.grad(loss))(params)

    for loose, tight in zip(
        jax.tree.leaves(gradient([6, 3, 0], 10)), jax.tree.leaves(gradient([6, 3], 6)), strict=True
    ):
        np.testing.assert_allclose(loose, tight, rtol=1e-4, atol=1e-4)


def test_evaluation_ignores_the_rng_and_training_uses_it(small_config, params, make_batch):
    """Trap 5: a teacher's output must not depend on any rng. Trap 6: dropout is on in training."""
    batch = make_batch([6, 3], 6)

    def logits(train, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return np.asarray(apply(small_config, params, batch, train=train, rngs=rngs).logits_BC)

    np.testing.assert_array_equal(logits(False, 0), logits(False, 1))
    np.testing.assert_array_equal(logits(False, 0), apply(small_config, params, batch).logits_BC)
    np.testing.assert_array_equal(logits(True, 0), logits(True, 0))
    assert not np.allclose(logits(True, 0), logits(True, 1))


def test_attention_probs_are_those_before_dropout(small_config, params, make_batch):
    config = dataclasses.replace(small_config, dropout=0.0, attention_dropout=0.5)
    batch = make_batch([6, 6], 6)
    rngs = {"dropout": jax.random.key(0)}
    probs = apply(config, params, batch, train=True, rngs=rngs).attention_probs[1]
    np.testing.assert_array_equal(probs, apply(config, params, batch).attention_probs[1])


@pytest.mark.parametrize("site", ["dropout", "attention_dropout", "classifier_dropout"])
def test_each_dropout_rate_has_an_effect(small_config, params, make_batch, site):
    none = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    config = dataclasses.replace(small_config, **(none | {site: 0.5}))
    batch = make_batch([6, 6], 6)
    rngs = {"dropout": jax.random.key(0)}
    trained = apply(config, params, batch, train=True, rngs=rngs)
    assert not np.allclose(trained.logits_BC, apply(config, params, batch).logits_BC)
    if site == "classifier_dropout":
        np.testing.assert_array_equal(
            trained.hidden_states[3], apply(config, params, batch).hidden_states[3]
        )


def test_bfloat16_keeps_statistics_and_logits_in_float32(small_config, params, make_batch):
    batch = make_batch([6, 3], 6)
    exact = apply(small_config, params, batch)
    half = Bert(small_config, dtype=jnp.bfloat16).apply({"params": params}, batch)
    assert half.hidden_states[2].dtype == half.queries[1].dtype == jnp.bfloat16
    assert half.logits_BC.dtype == half.attention_scores[1].dtype == jnp.float32
    assert half.attention_probs[1].dtype == jnp.float32
    np.testing.assert_allclose(half.attention_probs[1].sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(half.logits_BC, exact.logits_BC, atol=0.15)
    fresh = Bert(small_config, dtype=jnp.bfloat16).init(jax.random.key(0), batch)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.float32)}


@pytest.fixture
def costed(small_config, make_batch):
    """Cost of a compiled function of a model wide enough that matrix products dominate."""
    config = dataclasses.replace(small_config, hidden_size=128, intermediate_size=256)
    params = init_bert(config, jax.random.key(0))
    batch = jax.tree.map(jnp.asarray, make_batch([8, 8, 5, 2], 8))

    def flops(function):
        compiled = jax.jit(function).lower(params, batch).compile()
        return compiled.cost_analysis()["flops"]

    def of_output(read):
        return flops(lambda params, batch: read(apply(config, params, batch)))

    def of_reference():
        erf = jax.scipy.special.erf
        return flops(lambda params, batch: reference_logits(jnp, erf, config, params, batch))

    return of_output, of_reference


def test_what_is_not_read_costs_nothing(costed):
    """Logits alone cost what a function costs that never builds anything else."""
    of_output, of_reference = costed
    logits = of_output(lambda output: output.logits_BC)
    assert logits <= 1.02 * of_reference()
    assert of_output(Capture().select) == logits
    layers = (1, 2, 3)
    captures = Capture(hidden_states=(0, *layers), queries=layers, keys=layers, values=layers)
    captures |= Capture(attention_scores=layers, attention_probs=layers)
    assert of_output(captures.select) <= 1.02 * logits


def test_layers_above_what_is_read_are_not_computed(costed):
    of_output, _ = costed
    one, two = (of_output(lambda output, n=n: output.hidden_states[n]) for n in (1, 2))
    assert one < 0.4 * of_output(lambda output: output.logits_BC)
    assert two == pytest.approx(2 * one, rel=0.05)
    # Queries of layer 2 cost one of its matrices: 1/8 of its parameters at this width.
    assert of_output(lambda output: output.queries[2]) == pytest.approx(1.125 * one, rel=0.05)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_against_their_formulas(name):
    x = np.linspace(-6, 6, 201)
    cube = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    formulas = {"gelu": x * scipy.special.ndtr(x), "relu": np.maximum(x, 0)}
    y = ACTIVATIONS[name](jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(y, formulas.get(name, cube), atol=2e-6)


def test_init_has_the_stated_scale_and_depends_on_the_key(small_config):
    config = dataclasses.replace(small_config, vocab_size=5000, initializer_range=0.02)
    one, two = (init_bert(config, jax.random.key(seed)) for seed in (0, 1))
    word_VD = one["embeddings"]["word"]["embedding"]
    assert np.std(word_VD) == pytest.approx(0.02, rel=0.02)
    assert not np.allclose(word_VD, two["embeddings"]["word"]["embedding"])
    assert (one["layer_1"]["intermediate"]["bias"] == 0).all()
    assert (one["layer_1"]["output_norm"]["scale"] == 1).all()


def test_a_batch_longer_than_the_positions_is_refused(small_config, params, make_batch):
    with pytest.raises(UserError, match="13 tokens a row; the model has positions for 12"):
        apply(small_config, params, make_batch([13], 13))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelo"}, "unknown hidden_act 'gelo'.*Did you mean 'gelu'"),
        ({"pooling": "max"}, "unknown pooling 'max'.*Allowed: cls, mean, pooler"),
        ({"num_heads": 3}, "16 is not a multiple of num_heads 3"),
        ({"num_layers": 0}, "num_layers must be from 1 to 512"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
    ],
)
def test_impossible_configs_are_refused(small_config, change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(small_config, **change)


def test_shape_tells_objectives_what_they_need(small_config):
    shape = small_config.shape
    assert (shape.num_layers, shape.hidden_size, shape.num_heads, shape.num_labels) == (3, 16, 2, 3)


def test_a_head_of_every_token_says_of_each_what_its_hidden_state_gives(
    small_config, params, make_batch
):
    config = dataclasses.replace(small_config, pooling="tokens")
    own = {name: part for name, part in params.items() if name != "pooling"}
    batch = make_batch([7, 4], 9)
    output = apply(config, own, batch)
    head = own["classifier"]
    expected = output.hidden_states[config.num_layers] @ head["kernel"] + head["bias"][None, None]
    assert output.logits_BC.shape == (2, 9, config.num_labels)
    np.testing.assert_allclose(output.logits_BC, expected, rtol=1e-5, atol=1e-5)
    assert "pooling" not in init_bert(config, jax.random.key(0))
