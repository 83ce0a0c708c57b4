"""The bag of embeddings against its formula; what it can and what it cannot learn."""

import jax
import numpy as np
import pytest
from word_students import labelled, learnt

from distill_jax.models.static import STATICS, Static, StaticConfig

CONFIG = StaticConfig(50, 8, 3)


@pytest.fixture(scope="module")
def params():
    drawn = STATICS.init(CONFIG, jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), drawn)


def test_logits_are_those_of_the_mean(params, make_batch):
    batch = make_batch([7, 1, 4], 9)
    said = Static(CONFIG).apply({"params": params}, batch)
    table, dense, head = params["embeddings"]["embedding"], params["dense"], params["classifier"]
    for row, length in enumerate((7, 1, 4)):
        mean = np.asarray(table)[batch.input_ids_BT[row, :length]].astype(np.float64).mean(axis=0)
        hidden = np.maximum(mean @ dense["kernel"] + dense["bias"], 0)
        expected = hidden @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(said.logits_BC[row], expected, rtol=1e-5, atol=1e-5)
    assert said.hidden_states[0].shape == (3, 9, 8) and sorted(said.hidden_states) == [0]


def test_it_learns_which_words_speak():
    """The class is whether word 5 occurs among twelve."""

    def sample(rng, rows):
        ids = rng.integers(6, 50, (rows, 12))
        labels = rng.integers(0, 2, rows)
        ids[np.arange(rows), rng.integers(0, 12, rows)] = np.where(labels, 5, 6)
        return labelled(ids, labels)

    config = StaticConfig(50, 16, 2)
    start = STATICS.init(config, jax.random.key(0))
    assert learnt(config, start, sample, rate=3e-2) > 0.9
