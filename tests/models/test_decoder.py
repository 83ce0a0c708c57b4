"""The decoder: no place sees what comes after it; its folder gives it again."""

import json

import jax
import numpy as np
import pytest
from languages import IDS, batch_of

from distill_jax.core.errors import UserError
from distill_jax.data.wordpiece import train_wordpiece
from distill_jax.models.build import build_model, language_family
from distill_jax.models.decoder import DECODERS, DecoderConfig

PLACES = np.tile(np.arange(5, dtype=np.int32), (2, 1))
CONFIG = DecoderConfig(64, 16, 2, 2, 32, max_positions=16)


@pytest.fixture(scope="module")
def params():
    drawn = DECODERS.init(CONFIG, jax.random.key(0))
    noise = iter(jax.random.split(jax.random.key(1), 99))
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(noise), x.shape), drawn)


def logits(params, ids=IDS, places=PLACES):
    output = build_model(CONFIG).apply({"params": params}, batch_of(ids, places))
    return np.asarray(output.logits_BC)


def test_no_place_sees_what_comes_after_it(params):
    changed = IDS.copy()
    changed[1, 4] = 20
    before, after = logits(params), logits(params, changed)
    np.testing.assert_array_equal(before[1, :4], after[1, :4])
    assert np.abs(before[1, 4] - after[1, 4]).max() > 1e-3


def test_its_logits_are_products_with_the_word_embeddings(params):
    output = build_model(CONFIG).apply({"params": params}, batch_of(IDS, PLACES))
    words = np.asarray(params["embeddings"]["word"]["embedding"])
    expected = np.asarray(output.hidden_states[2])[:, :5] @ words.T
    np.testing.assert_allclose(output.logits_BC, expected, atol=1e-4)


def test_a_folder_gives_it_again_or_says_what_is_wrong(params, tmp_path):
    file = tmp_path / "tokenizer.json"
    train_wordpiece(["some words and other words", "other words"] * 9, 64).save(str(file))
    DECODERS.save(tmp_path / "model", CONFIG, params, file, 12)
    loaded = language_family("next").load(str(tmp_path / "model"))
    assert loaded.config == CONFIG and loaded.inputs.max_length == 12
    np.testing.assert_array_equal(logits(loaded.params), logits(params))
    raw = json.loads((tmp_path / "model/config.json").read_text())
    for change, message in (
        ({"digest": "0"}, "changed since it was saved"),
        ({"num_layers": 3}, "does not hold the parameters"),
        ({"num_heads": 3}, "is damaged: BERT config"),
        ({"more": 1}, "is damaged"),
        ({"model_type": "bert"}, "is not of a distill_jax_decoder"),
    ):
        (tmp_path / "model/config.json").write_text(json.dumps({**raw, **change}))
        with pytest.raises(UserError, match=message):
            DECODERS.load(str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"has no config\.json"):
        DECODERS.load(str(tmp_path))
