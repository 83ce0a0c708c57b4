"""A text CNN against a loop over windows."""

import jax
import numpy as np
import pytest

from distill_jax.core.types import as_batch
from distill_jax.models.bert import BertConfig
from distill_jax.models.build import build_model, student_family
from distill_jax.models.text_cnn import WINDOWS, TextCnnConfig

TEACHER = BertConfig(20, 12, 2, 2, 16)


@pytest.fixture
def model():
    config = student_family("textcnn-7").student("textcnn-7", TEACHER)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + rng.normal(0, 0.3, x.shape).astype(np.float32),
        student_family("textcnn-7").init(config, jax.random.key(0)),
    )
    return config, params


def by_hand(params, tokens):
    """Kim 2014, section 2: c_i = f(w . x_{i:i+h-1} + b), then the maximum of each map."""
    params = jax.tree.map(np.asarray, params)
    words = params["embeddings"]["embedding"][tokens]
    found = []
    for window in WINDOWS:
        layer = params[f"window_{window}"]
        behind = np.concatenate([words, np.zeros((window - 1, words.shape[1]))])
        seen = [behind[i : i + window].reshape(-1) for i in range(len(tokens))]
        maps = np.maximum(np.stack(seen) @ layer["kernel"] + layer["bias"], 0)
        found.append(maps.max(axis=0))
    head = params["classifier"]
    return np.concatenate(found) @ head["kernel"] + head["bias"]


def test_logits_are_those_of_a_loop_over_windows(model):
    config, params = model
    assert config.maps == (3, 2, 2) and config.dropout == 0.5
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, 20, length) for length in (8, 3, 1)]
    ids, where = np.zeros((2, 3, 9), np.int32)
    for row, text in enumerate(texts):
        ids[row, : len(text)], where[row, : len(text)] = text, 1
    said = build_model(config).apply({"params": params}, as_batch(ids, where.astype(bool)))
    for row, text in enumerate(texts):
        np.testing.assert_allclose(said.logits_BC[row], by_hand(params, text), atol=1e-5)


def test_its_width_is_the_teacher_s_or_what_is_named():
    family = student_family("textcnn")
    assert family.student("textcnn", TEACHER).width == 12
    assert family.student("textcnn-random-30", TEACHER).width == 30
    assert sum(TextCnnConfig(20, 1, 2).maps) == 1
