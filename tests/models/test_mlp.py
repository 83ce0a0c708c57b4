"""The MLP against plain matrix products; its dropout, its names, its folder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.images import ImageTable
from distill_jax.models.build import build_model, load_model, student_family, teacher_family
from distill_jax.models.mlp import MLPS, Mlp, MlpConfig, init_mlp, parse_mlp

CONFIG = MlpConfig((5, 7), 4, (6, 6, 1))


@pytest.fixture(scope="module")
def params():
    return init_mlp(CONFIG, jax.random.key(0))


def images(rows, shape=(6, 6, 1)):
    pixels = np.random.default_rng(0).random((rows, *shape), np.float32)
    table = ImageTable(tuple(f"e{n}" for n in range(rows)), np.zeros(rows, np.int32), pixels)
    return table.batch(np.arange(rows), 1, rows)


def test_it_is_two_products_and_a_head(params):
    batch = images(3)
    output = Mlp(CONFIG).apply({"params": params}, batch)
    params = jax.tree.map(np.asarray, params)
    x = batch.pixels_BHWC.reshape(3, -1)
    np.testing.assert_array_equal(output.hidden_states[0][:, 0], x)
    for number in (1, 2):
        layer = params[f"layer_{number}"]
        x = np.maximum(x @ layer["kernel"] + layer["bias"], 0)
        np.testing.assert_allclose(output.hidden_states[number][:, 0], x, atol=1e-5)
    head = params["classifier"]
    np.testing.assert_allclose(output.logits_BC, x @ head["kernel"] + head["bias"], atol=1e-5)


def test_half_of_the_units_and_a_fifth_of_the_pixels_are_dropped():
    config = parse_mlp("mlp-400-400-drop", 4, (20, 20, 1))
    assert (config.input_dropout, config.dropout) == (0.2, 0.5)
    params = init_mlp(config, jax.random.key(0))
    ones = jax.tree.map(jnp.ones_like, params)
    batch = images(4, (20, 20, 1)).replace(pixels_BHWC=np.ones((4, 20, 20, 1), np.float32))
    rngs = {"dropout": jax.random.key(1)}
    output = Mlp(config).apply({"params": ones}, batch, train=True, rngs=rngs)
    kept = (output.hidden_states[1][:, 0, 0] - 1) * 0.8 / 400  # what a unit sums of the pixels
    np.testing.assert_allclose(kept, 0.8, atol=0.08)
    first = output.hidden_states[1][:, 0, 0]
    kept = (output.hidden_states[2][:, 0, 0] - 1) / first * 0.5 / 400
    np.testing.assert_allclose(kept, 0.5, atol=0.1)
    still = Mlp(config).apply({"params": ones}, batch)
    np.testing.assert_allclose(still.hidden_states[1], 401)


def test_a_folder_gives_it_back(params, tmp_path):
    MLPS.save(tmp_path / "model", CONFIG, params, None, tuple("abcd"))
    loaded = load_model(tmp_path / "model")
    assert loaded.config == CONFIG and loaded.label_names == tuple("abcd")
    batch = images(2)
    said = [
        build_model(CONFIG).apply({"params": each}, batch).logits_BC
        for each in (params, loaded.params)
    ]
    np.testing.assert_array_equal(*said)


def test_names_claim_sizes():
    assert student_family("mlp-30") is MLPS is teacher_family("mlp-1200-1200-drop")
    assert MLPS.student("mlp-30-20", CONFIG) == MlpConfig((30, 20), 4, (6, 6, 1))
    assert MLPS.alone("mlp-3", 2, (28, 28, 1)).image == (28, 28, 1)
    assert MLPS.alone("mlp-3", 2).image == (8, 8, 1) and MLPS.alone("cnn-2-4", 2) is None
    for wrong in ("mlp-", "mlp-0", "mlp-8-drops", "mlp-8-", "mlp-9999999999"):
        with pytest.raises(UserError, match=r"mlp.*must be|after mlp come"):
            parse_mlp(wrong, 2)


def test_batches_that_it_cannot_read_are_refused(params):
    with pytest.raises(UserError, match=r"the MLP reads \[6, 6, 1\]"):
        Mlp(CONFIG).apply({"params": params}, images(1, (8, 8, 1)))
    with pytest.raises(UserError, match="this batch is text"):
        Mlp(CONFIG).apply({"params": params}, images(1).replace(pixels_BHWC=None))
    with pytest.raises(UserError, match="dropout must be in"):
        MlpConfig((3,), 2, dropout=1.0)
