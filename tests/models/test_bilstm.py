"""The BiLSTM against plain loops over each sentence alone; what only an order tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from word_students import labelled, learnt

from distill_jax.evaluation.latency import parameter_count
from distill_jax.models.bilstm import BILSTMS, BiLstm, BiLstmConfig
from distill_jax.models.static import STATICS, StaticConfig

CONFIG = BiLstmConfig(50, 5, 3)


@pytest.fixture(scope="module")
def params():
    drawn = BILSTMS.init(CONFIG, jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape, np.float32), drawn)


def one_way(x_TD, lstm, direction):
    """States at each of the tokens, in the order they are read (Tang et al. 2019, section 3.1)."""
    gate = {"forward": slice(None, 20), "backward": slice(20, None)}[direction]
    w, b = lstm["input"]["kernel"][:, gate], lstm["input"]["bias"][gate]
    u, b2 = lstm[direction]["kernel"], lstm[direction]["bias"]
    h, c, states = np.zeros(5), np.zeros(5), []
    for x in x_TD:
        i, f, g, o = np.split(x @ w + b + h @ u + b2, 4)
        c = scipy.special.expit(f) * c + scipy.special.expit(i) * np.tanh(g)
        h = scipy.special.expit(o) * np.tanh(c)
        states.append(h)
    return np.stack(states)


def test_everything_equals_a_loop_over_each_sentence_alone(params, make_batch):
    lengths = (7, 1, 4, 9)
    batch = make_batch(lengths, 9)
    said = BiLstm(CONFIG).apply({"params": params}, batch)
    exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    for row, length in enumerate(lengths):
        x_TD = exact["embeddings"]["embedding"][batch.input_ids_BT[row, :length]]
        np.testing.assert_allclose(said.hidden_states[0][row, :length], x_TD, rtol=1e-6)
        there = one_way(x_TD, exact["lstm"], "forward")
        back = one_way(x_TD[::-1], exact["lstm"], "backward")
        both = np.concatenate([there, back[::-1]], axis=1)
        np.testing.assert_allclose(said.hidden_states[1][row, :length], both, atol=1e-5)
        last = np.concatenate([there[-1], back[-1]])
        hidden = np.maximum(last @ exact["dense"]["kernel"] + exact["dense"]["bias"], 0)
        expected = hidden @ exact["classifier"]["kernel"] + exact["classifier"]["bias"]
        np.testing.assert_allclose(said.logits_BC[row], expected, rtol=1e-4, atol=1e-5)


def test_it_has_a_million_parameters_beside_its_embeddings():
    shapes = jax.eval_shape(lambda: BILSTMS.init(BiLstmConfig(100, 192, 2), jax.random.key(0)))
    beside = parameter_count(shapes) - parameter_count(shapes["embeddings"])
    assert beside == pytest.approx(28 * 192**2, rel=0.01) and 1.0e6 < beside < 1.1e6


def test_nothing_is_forgotten_at_the_start():
    lstm = BILSTMS.init(CONFIG, jax.random.key(0))["lstm"]
    for direction in ("forward", "backward"):
        np.testing.assert_array_equal(lstm[direction]["bias"], np.repeat([0, 1, 0, 0], 5))


def which_comes_first(rng, rows):
    """The class is which of words 4 and 5 comes first among eight."""
    ids = rng.integers(6, 50, (rows, 8))
    places = np.sort(np.argsort(rng.random((rows, 8)), axis=1)[:, :2], axis=1)
    labels = rng.integers(0, 2, rows)
    ids[np.arange(rows), places[:, 0]] = 4 + labels
    ids[np.arange(rows), places[:, 1]] = 5 - labels
    return labelled(ids, labels)


def test_it_learns_an_order_that_no_bag_can_see():
    wide = BiLstmConfig(50, 16, 2)
    assert learnt(wide, BILSTMS.init(wide, jax.random.key(0)), which_comes_first) > 0.9
    bag = StaticConfig(50, 32, 2)
    assert learnt(bag, STATICS.init(bag, jax.random.key(0)), which_comes_first) < 0.6


def test_bfloat16_is_near_and_keeps_float32_around_it(params, make_batch):
    batch = make_batch([7, 4], 8)

    def said(params, dtype):
        return BiLstm(CONFIG, dtype).apply({"params": params}, batch)

    whole, half = said(params, jnp.float32), said(params, jnp.bfloat16)
    assert half.logits_BC.dtype == half.hidden_states[1].dtype == jnp.float32
    gap = np.abs(np.asarray(half.logits_BC - whole.logits_BC)).max()
    assert 0 < gap < 0.1 * np.abs(whole.logits_BC).max()

    def slopes(dtype):
        return jax.jit(jax.grad(lambda p: jnp.sum(said(p, dtype).logits_BC ** 2)))(params)

    for one, other in zip(
        *(jax.tree.leaves(slopes(dtype)) for dtype in (jnp.float32, jnp.bfloat16)), strict=True
    ):
        assert other.dtype == jnp.float32
        assert np.linalg.norm(one - other) < 0.1 * np.linalg.norm(one)
