"""Every kind of config has its module, its parameters and one way to be called."""

import jax
import numpy as np
import pytest

from distill_jax.data.images import ImageTable
from distill_jax.models.bert import Bert, init_bert
from distill_jax.models.build import build_model, family_of
from distill_jax.models.cnn import Cnn, CnnConfig, init_cnn


def test_a_bert(small_config, make_batch):
    model, rng = build_model(small_config), jax.random.key(3)
    assert model == Bert(small_config)
    params = family_of(small_config).init(small_config, rng)
    jax.tree.map(np.testing.assert_array_equal, params, init_bert(small_config, rng))
    assert model.apply({"params": params}, make_batch([3, 2], 4)).logits_BC.shape == (2, 3)


def test_a_cnn():
    config, rng = CnnConfig((2,), 3, 5, (4, 4, 1)), jax.random.key(3)
    model = build_model(config)
    assert model == Cnn(config)
    params = family_of(config).init(config, rng)
    jax.tree.map(np.testing.assert_array_equal, params, init_cnn(config, rng))
    table = ImageTable(("a", "b"), np.zeros(2, np.int32), np.ones((2, 4, 4, 1), np.float32))
    batch = table.batch(np.arange(2), 1, 2)
    assert model.apply({"params": params}, batch).logits_BC.shape == (2, 5)


def test_anything_else_is_refused():
    with pytest.raises(TypeError, match="no model for a str"):
        build_model("cnn-4-8")
    with pytest.raises(TypeError, match="no model for a str"):
        family_of("cnn-4-8")
