"""8 bits mean what they mean everywhere in the house, and an example's answer is its own."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from exports import noisy
from onnx import numpy_helper
from onnx_cases import spec, to_onnx
from scipy.special import erf

from distill_jax.export.onnx_graph import onnx_model
from distill_jax.export.onnx_int8 import quantised
from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.models.named import named

CONFIG = BertConfig(31, 16, 2, 2, 32, max_positions=24, pooling="mean", num_labels=3)
NAMES = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def params():
    return noisy(init_bert(CONFIG, jax.random.key(0)))


@pytest.fixture(scope="module")
def model(params):
    return onnx_model(CONFIG, params, int8=True)


@pytest.fixture(scope="module")
def ask(model):
    """(token ids of each row, padded length) -> logits of one batch."""
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def ask(rows, length):
        ids_BT = np.zeros((len(rows), length), np.int64)
        mask_BT = np.zeros_like(ids_BT)
        for n, row in enumerate(rows):
            ids_BT[n, : len(row)], mask_BT[n, : len(row)] = row, 1
        arrays = ids_BT, mask_BT, np.zeros_like(ids_BT)
        return session.run(["logits"], dict(zip(NAMES, arrays, strict=True)))[0]

    return ask


def texts(count):
    rng = np.random.default_rng(1)
    return [rng.integers(1, 31, rng.integers(2, 20)) for _ in range(count)]


def test_an_answer_is_the_same_alone_batched_and_padded(ask, capsys):
    """One scale a batch would move these logits by hundredths; here only float sums differ."""
    rows = texts(40)
    together_NC = ask(rows, 24)
    alone_NC = np.concatenate([ask([row], len(row)) for row in rows])
    padded_NC = np.concatenate([ask([row], 24) for row in rows])
    among_NC = np.concatenate([ask([row, rows[0], rows[7]], 24)[:1] for row in rows])
    worst = max(np.abs(x - alone_NC).max() for x in (together_NC, padded_NC, among_NC))
    with capsys.disabled():
        print(f"\n8 bits in ONNX Runtime: alone, batched or padded, logits within {worst:.1e}")
    assert worst < 1e-5
    assert np.abs(alone_NC - alone_NC[0]).max() > 0.1


def test_one_scale_a_batch_would_not_do(model):
    """What the test above keeps out: a louder neighbour takes a row's digits away."""
    rng, loud_N1 = np.random.default_rng(0), np.arange(1, 9, dtype=np.float32)[:, None]
    x_NK = rng.normal(0, 1, (8, 16)).astype(np.float32) * loud_N1
    by_token, (alone, _) = quantised(x_NK, axis=1)[0], quantised(x_NK[:1], axis=1)
    np.testing.assert_array_equal(by_token[:1], alone)
    by_batch = np.rint(x_NK / (np.abs(x_NK).max() / 127)).astype(int)
    assert np.abs(by_batch[:1] - alone).max() > 10
    assert "DynamicQuantizeLinear" not in {node.op_type for node in model.graph.node}


def test_the_file_holds_bytes_for_weights_and_words(model, params):
    held = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    kernels = {name: array for name, array in held.items() if name.endswith("kernel/int8")}
    assert len(kernels) == 12 and all(array.dtype == np.int8 for array in kernels.values())
    assert held["embeddings/word/embedding/int8"].dtype == np.int8
    assert held["classifier/kernel"].dtype == np.float32
    assert held["embeddings/position/embedding"].dtype == np.float32
    for name in ("layer_1/output/kernel", "embeddings/word/embedding"):
        assert name not in held  # in full no more
    kernel_KF = np.asarray(params["layer_1"]["output"]["kernel"])
    scale_F = np.abs(kernel_KF).max(axis=0) / 127
    np.testing.assert_allclose(held["layer_1/output/kernel/scale"], scale_F, rtol=1e-6)
    np.testing.assert_array_equal(
        held["layer_1/output/kernel/int8"], np.clip(np.rint(kernel_KF / scale_F), -127, 127)
    )


def test_numbers_are_rounded_to_even_and_zeros_stay():
    array = np.array([[127.0, 0.5, 1.5, -2.5, -127.0], [0, 0, 0, 0, 0]], np.float32)
    whole, scale = quantised(array, axis=1)
    np.testing.assert_array_equal(whole, [[127, 0, 2, -2, -127], [0] * 5])
    np.testing.assert_array_equal(scale, [[1], [1]])


def dense_by_hand(x_NK, kernel_KF, bias_F):
    """The contract of the house, in whole numbers and float64."""
    x_scale = np.abs(x_NK).max(axis=1, keepdims=True) / np.float32(127)
    x_scale[x_scale == 0] = 1
    w_scale = np.abs(kernel_KF).max(axis=0) / np.float32(127)
    x = np.rint(x_NK / x_scale).astype(np.int64)
    w = np.clip(np.rint(kernel_KF / w_scale), -127, 127).astype(np.int64)
    return (x @ w) * x_scale * w_scale + bias_F


def test_a_whole_model_by_hand():
    """Every dense layer and the words of a small model, in numpy."""
    config = BertConfig(31, 16, 1, 1, 16, max_positions=24, pooling="pooler", num_labels=3)
    own = noisy(init_bert(config, jax.random.key(2)))
    session = onnxruntime.InferenceSession(onnx_model(config, own, int8=True).SerializeToString())
    ids_BT = np.array([[3, 5, 9]])
    inputs = dict(zip(NAMES, (ids_BT, ids_BT * 0 + 1, ids_BT * 0), strict=True))
    (got_BC,) = session.run(["logits"], inputs)
    np.testing.assert_allclose(got_BC, _by_hand(own, ids_BT[0])[None], atol=2e-5)


def _by_hand(params, ids_T):
    """One layer of one head, everything in numpy, dense layers and words by the contract."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def dense(name, x):
        leaf = params
        for part in name.split("/"):
            leaf = leaf[part]
        return dense_by_hand(
            x.astype(np.float32), np.asarray(leaf["kernel"]), np.asarray(leaf["bias"])
        )

    def norm(part, x):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * part["scale"] + part["bias"]

    words = np.asarray(params["embeddings"]["word"]["embedding"])
    scale = np.abs(words).max(axis=1, keepdims=True) / np.float32(127)
    words = np.rint(words / scale) * scale
    embeddings = p["embeddings"]
    x = words[ids_T] + embeddings["token_type"]["embedding"][0]
    x = norm(embeddings["norm"], x + embeddings["position"]["embedding"][: len(ids_T)])
    layer = p["layer_1"]
    q, k, v = (dense(f"layer_1/attention/{name}", x) for name in ("query", "key", "value"))
    scores = q @ k.T / np.sqrt(16)
    probs = np.exp(scores - scores.max(-1, keepdims=True))
    context = (probs / probs.sum(-1, keepdims=True)) @ v
    middle = norm(layer["attention_norm"], x + dense("layer_1/attention_output", context))
    up = dense("layer_1/intermediate", middle)
    up = 0.5 * up * (1 + erf(up / np.sqrt(2)))
    x = norm(layer["output_norm"], middle + dense("layer_1/output", up))
    pooled = np.tanh(x[:1] @ p["pooling"]["dense"]["kernel"] + p["pooling"]["dense"]["bias"])
    return (pooled @ p["classifier"]["kernel"] + p["classifier"]["bias"])[0]


def test_layers_that_are_in_8_bits_already_stay_so():
    """A product of whole numbers that is named ``int8_product`` is one of integers in ONNX too,
    however JAX computes it; so are those of int8 arrays."""

    @named
    def int8_product(x_NK, w_KF):
        return x_NK @ w_KF.astype(jnp.float32)

    w_KF = np.random.default_rng(0).integers(-127, 128, (4, 3)).astype(np.int8)

    def function(x_BTK):
        x_NK = jnp.clip(jnp.round(x_BTK.reshape(-1, 4) * 40), -127, 127)
        exact = jax.lax.dot(x_NK.astype(jnp.int8), w_KF, preferred_element_type=jnp.int32)
        return int8_product(x_NK, jnp.asarray(w_KF)), exact

    session, (name,), model = to_onnx(function, spec(4))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("MatMulInteger") + kinds.count("MatMul") == kinds.count("MatMulInteger") >= 1
    x_BTK = np.random.default_rng(1).normal(0, 2, (3, 5, 4)).astype(np.float32)
    for one, other in zip(session.run(None, {name: x_BTK}), function(x_BTK), strict=True):
        np.testing.assert_array_equal(one, other)


def test_onnx_runtime_makes_no_one_node_of_product_scales_and_bias():
    """``sum * (scale of the row * scale of the column) + bias``: its optimiser knows the pattern,
    and computes another thing where rows have scales of their own."""

    @named
    def int8_product(x_NK, w_KF):
        return x_NK @ w_KF.astype(jnp.float32)

    w_KF = np.random.default_rng(0).integers(-127, 128, (4, 3)).astype(np.int8)
    scale_F, bias_F = np.float32([[0.5, 1, 2]]), np.float32([[1, 2, 3]])

    def function(x_BTK):
        x_NK = x_BTK.reshape(-1, 4)
        scale_N1 = jnp.max(jnp.abs(x_NK), axis=1, keepdims=True) / 127
        y_NF = int8_product(jnp.round(x_NK / scale_N1), jnp.asarray(w_KF))
        return y_NF * (scale_N1 * scale_F) + bias_F

    session, (name,), _ = to_onnx(function, spec(4))
    x_BTK = np.random.default_rng(1).normal(0, 1, (2, 5, 4)).astype(np.float32)
    x_BTK *= np.arange(1, 6, dtype=np.float32)[None, :, None]
    (got,) = session.run(None, {name: x_BTK})
    np.testing.assert_allclose(got, function(x_BTK), rtol=1e-5)
