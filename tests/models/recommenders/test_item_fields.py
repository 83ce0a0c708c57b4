"""Item vectors with fields: the sum of what each says, by NumPy."""

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.models.recommenders.build import Recommender, parse_model, recommender_family
from distill_jax.models.recommenders.save import (
    config_to_json,
    load_recommender,
    save_recommender,
)
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts

ITEMS, D = 5, 4
NUMBERS = np.array([[0, 1], [2, 1], [1, 0], [2, 2], [1, 1]], np.int32)


def build(fields=(3, 3), numbers=NUMBERS, **more):
    items = ItemConfig(ITEMS, D, fields=fields, **more)
    config = recommender_family("sasrec").fitted(items, num_layers=1, max_length=3, num_heads=1)
    return Recommender(config, ItemTexts(fields_IC=numbers))


def test_names():
    name = parse_model("sasrec-2x64-id+features")
    assert (name.source, name.given, name.features) == ("id", False, True)
    both = parse_model("gru4rec-1x8-text+vectors+features")
    assert (both.source, both.given, both.features) == ("text", True, True)
    assert parse_model("sasrec-2x64-vectors+features").given
    assert not parse_model("sasrec-2x64-both").features
    for wrong in ("sasrec-2x64+features", "sasrec-2x64-features", "bpr_mf-8-id+features"):
        with pytest.raises(UserError, match=r"\+features"):
            parse_model(wrong)


def test_an_items_vector_is_the_sum_of_its_own_and_its_fields(tmp_path):
    model = build()
    params = model.init(jax.random.key(0))
    items = params["items"]
    expected = np.array(items["embedding"])
    for item in range(ITEMS):
        for column in range(2):
            expected[item] += items[f"field_{column}_embedding"][NUMBERS[item, column]]
    np.testing.assert_allclose(model.item_vectors(params), expected, rtol=1e-6)
    save_recommender(tmp_path / "model", model, params, tuple("abcde"))
    loaded = load_recommender(tmp_path / "model")
    assert loaded.recommender.config == model.config and not model.config.items.only_own
    np.testing.assert_array_equal(loaded.recommender.texts.fields_IC, NUMBERS)
    np.testing.assert_allclose(loaded.recommender.item_vectors(loaded.params), expected, rtol=1e-6)
    assert "fields" not in config_to_json(build(()).config)["items"]


def test_fields_that_do_not_fit():
    with pytest.raises(UserError, match="reads fields of width 2, got none"):
        build(numbers=None).init(jax.random.key(0))
    with pytest.raises(UserError, match="reads fields of width 2, got vectors of width 1"):
        build(numbers=NUMBERS[:, :1]).init(jax.random.key(0))
    with pytest.raises(UserError, match="4 fields for a catalogue of 5 items"):
        build(numbers=NUMBERS[:4]).init(jax.random.key(0))
    with pytest.raises(UserError, match="at least one number"):
        ItemConfig(ITEMS, D, fields=(3, 0))
