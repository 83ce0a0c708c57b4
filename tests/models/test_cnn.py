"""The CNN against XLA's own convolution and pooling, alone and as a population; its folder."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.types import Batch
from distill_jax.data.images import ImageTable
from distill_jax.models.cnn import (
    CNNS,
    Cnn,
    CnnConfig,
    init_cnn,
    max_pool_2x2,
    parse_cnn,
    patches_3x3,
)
from distill_jax.models.loaded import model_digest

CONFIG = CnnConfig(channels=(3, 5), dense=6, num_labels=4, image=(8, 12, 2))


def images(rows, *, batch_size=None, image=(8, 12, 2), seed=0) -> Batch:
    """``rows`` random images, then rows of padding."""
    pixels = np.random.default_rng(seed).random((rows, *image), np.float32)
    ids = tuple(f"e{n}" for n in range(rows))
    table = ImageTable(ids, np.arange(rows, dtype=np.int32) % 4, pixels)
    return table.batch(np.arange(rows), 1, batch_size or rows)


@pytest.fixture(scope="module")
def params():
    return init_cnn(CONFIG, jax.random.key(0))


def apply(params, batch, *, config=CONFIG, **options):
    return Cnn(config).apply({"params": params}, batch, **options)


def convolved(x_BHWC, dense):
    kernel = dense["kernel"].reshape(3, 3, x_BHWC.shape[-1], -1)
    layout = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x_BHWC, kernel, (1, 1), "SAME", dimension_numbers=layout)
    return y + dense["bias"].reshape(1, 1, 1, -1)


def pooled(x_BHWC):
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x_BHWC, -jnp.inf, jax.lax.max, window, window, "VALID")


def test_everything_equals_xla_s_convolution_and_pooling(params):
    batch = images(3)
    output = apply(params, batch)
    blocks = [jnp.asarray(batch.pixels_BHWC)]
    for name in ("conv_1", "conv_2"):
        blocks.append(pooled(jax.nn.relu(convolved(blocks[-1], params[name]))))
    assert [block.shape for block in blocks[1:]] == [(3, 4, 6, 3), (3, 2, 3, 5)]
    for number, block in enumerate(blocks):
        hidden = output.hidden_states[number]
        np.testing.assert_allclose(hidden, block.reshape(3, -1, block.shape[-1]), atol=1e-5)
    hidden = jax.nn.relu(blocks[-1].reshape(3, -1) @ params["dense"]["kernel"])
    np.testing.assert_allclose(
        output.logits_BC, hidden @ params["classifier"]["kernel"], rtol=1e-4, atol=1e-5
    )


def test_a_population_under_vmap_equals_its_members():
    keys = jax.random.split(jax.random.key(1), 3)
    population = jax.vmap(partial(init_cnn, CONFIG))(keys)
    batch = images(4)

    def loss(params, batch):
        return jnp.sum(apply(params, batch).logits_BC ** 2)

    grad = jax.jit(jax.grad(loss))
    grads = jax.jit(jax.vmap(grad, in_axes=(0, None)))(population, batch)
    for member, key in enumerate(keys):
        params = init_cnn(CONFIG, key)
        jax.tree.map(
            lambda many, one, m=member: np.testing.assert_allclose(many[m], one, atol=1e-6),
            population,
            params,
        )
        jax.tree.map(
            lambda many, one, m=member: np.testing.assert_allclose(
                many[m], one, rtol=1e-4, atol=1e-4
            ),
            grads,
            grad(params, batch),
        )


def test_no_grouped_convolution_is_compiled_for_a_population(params):
    """What ``patches_3x3`` is for: such convolutions are several times slower on CPUs."""
    population = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    forward = jax.vmap(lambda p: apply(p, images(2)).logits_BC)
    program = jax.jit(forward).lower(population).as_text()
    assert "dot_general" in program and "convolution" not in program


def test_patches_are_the_neighbours_in_reading_order():
    x = jnp.arange(1.0, 13.0).reshape(1, 3, 4, 1)
    patches = patches_3x3(x)
    assert patches.shape == (1, 3, 4, 9)
    np.testing.assert_array_equal(patches[0, 1, 1], [1, 2, 3, 5, 6, 7, 9, 10, 11])
    np.testing.assert_array_equal(patches[0, 0, 3], [0, 0, 0, 3, 4, 0, 7, 8, 0])


def test_pooling_takes_the_largest_of_four():
    x = jnp.asarray([[1.0, 5.0, -3.0, -1.0], [2.0, 4.0, -2.0, -9.0]]).reshape(1, 2, 4, 1)
    assert max_pool_2x2(x).ravel().tolist() == [5.0, -1.0]


def test_the_shape_is_what_the_output_has(params):
    shape, output = CONFIG.shape, apply(params, images(2))
    assert sorted(output.hidden_states) == list(range(shape.num_layers + 1))
    assert output.hidden_states[shape.num_layers].shape[-1] == shape.hidden_size == 5
    assert output.logits_BC.shape == (2, shape.num_labels)
    assert output.logits_BC.dtype == jnp.float32


def test_rows_of_padding_change_nothing_and_stay_finite(params):
    def loss(params, batch):
        logits = apply(params, batch).logits_BC
        return jnp.sum(jnp.where(batch.where_B[:, None], logits**2, 0))

    tight, loose = images(3), images(3, batch_size=5)
    np.testing.assert_allclose(
        apply(params, loose).logits_BC[:3], apply(params, tight).logits_BC, atol=1e-6
    )
    for one, other in zip(
        jax.tree.leaves(jax.jit(jax.grad(loss))(params, tight)),
        jax.tree.leaves(jax.jit(jax.grad(loss))(params, loose)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    everything = jax.jit(jax.grad(lambda p: jnp.sum(apply(p, loose).logits_BC ** 2)))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(everything))


def test_initial_weights_keep_the_scale_and_depend_on_the_key():
    config = CnnConfig((32, 64), 256, 10)
    params = init_cnn(config, jax.random.key(0))
    assert {name: params[name]["kernel"].shape for name in params} == {
        "conv_1": (9, 32),
        "conv_2": (9 * 32, 64),
        "dense": (4 * 64, 256),
        "classifier": (256, 10),
    }
    for name in ("conv_2", "dense"):
        kernel = params[name]["kernel"]
        assert np.std(kernel) == pytest.approx((2 / len(kernel)) ** 0.5, rel=0.05)
        assert not np.any(params[name]["bias"])
    other = init_cnn(config, jax.random.key(1))
    assert not np.allclose(other["dense"]["kernel"], params["dense"]["kernel"])


def test_dropout_is_for_training_only(params):
    config = CnnConfig(CONFIG.channels, CONFIG.dense, 4, CONFIG.image, dropout=0.5)
    run = partial(apply, params, images(4), config=config)
    key, other = {"dropout": jax.random.key(0)}, {"dropout": jax.random.key(1)}
    still = run().logits_BC
    np.testing.assert_array_equal(still, run(rngs=key).logits_BC)
    np.testing.assert_allclose(still, apply(params, images(4)).logits_BC, atol=1e-6)
    trained = run(train=True, rngs=key).logits_BC
    assert not np.allclose(trained, still)
    assert not np.allclose(trained, run(train=True, rngs=other).logits_BC)


def test_a_wrong_batch_is_named(params, make_batch):
    with pytest.raises(UserError, match="this batch is text"):
        apply(params, make_batch([3, 2], 4))
    with pytest.raises(UserError, match=r"images of \[8, 8, 1\], the CNN reads \[8, 12, 2\]"):
        apply(params, images(2, image=(8, 8, 1)))


def test_presets():
    assert parse_cnn("cnn-16-32-64") == CnnConfig((16, 32), 64, 10, (8, 8, 1))
    assert parse_cnn("cnn-4-8", num_labels=2, image=(4, 4, 3)) == CnnConfig((4,), 8, 2, (4, 4, 3))


@pytest.mark.parametrize(
    "text", ["cnn", "tiny", "3x256x4", "cnn-8", "cnn-8-0", "cnn-8-x", "cnn8-8", "cnn-08-4"]
)
def test_malformed_presets_come_with_examples(text):
    with pytest.raises(UserError, match=rf"^model '{text}': .*Examples: cnn-16-32-64"):
        parse_cnn(text)


def test_an_image_is_halved_no_more_often_than_it_can_be():
    assert parse_cnn("cnn-2-2-2-4").shape.num_layers == 3
    with pytest.raises(UserError, match=r"^model 'cnn-2-2-2-2-4': .*4 convolutions halve"):
        parse_cnn("cnn-2-2-2-2-4")


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": ()},
        {"channels": (0,)},
        {"dense": 0},
        {"dense": 2.5},
        {"num_labels": -1},
        {"image": (8, 8)},
        {"image": (8, 6, 1)},
        {"dropout": 1.0},
    ],
)
def test_impossible_sizes_are_refused(wrong):
    with pytest.raises(UserError, match=r"CNN config|CnnConfig"):
        CnnConfig(**{"channels": (4, 4), "dense": 4, "num_labels": 2, **wrong})


NAMES = ("zéro", "one", "two", "three")


def test_a_saved_model_is_the_same_model(tmp_path, params):
    CNNS.save(tmp_path / "model", CONFIG, params, None, NAMES)
    loaded = CNNS.load(tmp_path / "model")
    assert loaded.config == CONFIG and loaded.label_names == NAMES
    assert loaded.digest == model_digest(CONFIG, params)
    np.testing.assert_array_equal(
        apply(loaded.params, images(2)).logits_BC, apply(params, images(2)).logits_BC
    )
    with pytest.raises(UserError, match="not empty"):
        CNNS.save(tmp_path / "model", CONFIG, params, None, NAMES)


def test_label_names_have_to_fit_the_head(tmp_path, params):
    with pytest.raises(UserError, match="3 different label names for a head of 4"):
        CNNS.save(tmp_path / "model", CONFIG, params, None, ("a", "b", "c", "c"))
    assert not (tmp_path / "model").exists()


def test_the_digest_sees_config_and_every_parameter(params):
    digest = model_digest(CONFIG, params)
    other = CnnConfig(CONFIG.channels, CONFIG.dense, 4, CONFIG.image, dropout=0.1)
    assert model_digest(other, params) != digest
    for path in ("conv_1", "conv_2", "dense", "classifier"):
        for leaf in ("kernel", "bias"):
            changed = {**params, path: {**params[path], leaf: params[path][leaf] + 1}}
            assert model_digest(CONFIG, changed) != digest


def _flip_a_weight(folder):
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(bytes(data))


def _cut_the_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def _edit(**changes):
    def edit(folder):
        raw = json.loads((folder / "config.json").read_text())
        raw |= changes
        raw = {key: value for key, value in raw.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(raw))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_a_weight, "has changed since it was saved"),
        (_cut_the_weights, "damaged or not a safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "cannot read"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot read"),
        (_edit(model_type="bert"), "is not of a distill_jax_cnn"),
        (_edit(dense=7), "does not hold the parameters"),
        (_edit(dense=6.0), r"config.json is damaged: (CNN config|CnnConfig)"),
        (_edit(channels=None), r"config.json is damaged: .*'channels'"),
        (_edit(colour="red"), r"config.json is damaged: .*colour"),
        (_edit(dropout=0.5), "has changed since it was saved"),
        (_edit(digest=None), r"config.json is damaged: 'digest'"),
        (_edit(label_names=["a", "b"]), "2 label names for a head of 4"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, params, damage, message):
    folder = tmp_path / "model"
    CNNS.save(folder, CONFIG, params, None, NAMES)
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        CNNS.load(folder)
    assert str(folder) in str(caught.value)
