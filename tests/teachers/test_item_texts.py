"""Item texts as tokens and as vectors of a frozen encoder."""

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.models.bert import Bert
from distill_jax.models.huggingface import load_pretrained
from distill_jax.teachers.item_texts import (
    encode,
    item_tokens,
    text_space,
    texts_as_tokens,
)

TEXTS = ("the film", "good plot and cast", "", "bad music is bad", "the film")


@pytest.fixture(scope="module")
def pretrained(toy_teacher):
    return load_pretrained(toy_teacher)


@pytest.fixture(scope="module")
def table(pretrained):
    return item_tokens(TEXTS, pretrained.tokenizer_file)


def test_tokens_are_padded_and_masked(table):
    texts = texts_as_tokens(table)
    assert texts.tokens_IL.shape == texts.where_IL.shape == (5, 6)
    assert texts.where_IL.sum(axis=1).tolist() == [4, 6, 2, 6, 4]  # [CLS] and [SEP] included
    assert texts.vectors_IE is None


def test_vectors_are_the_mean_of_the_last_layer(table, pretrained):
    vectors = encode(pretrained.config, pretrained.params, table)
    for row in (2, 3):
        length = int(table.lengths_N[row])
        batch = table.batch(np.array([row]), length, 1)
        output = Bert(pretrained.config).apply({"params": pretrained.params}, batch)
        expected = np.mean(output.hidden_states[pretrained.config.num_layers][0], axis=0)
        np.testing.assert_allclose(vectors[row], expected, rtol=1e-4, atol=1e-5)


def test_given_vectors_are_centred_and_scaled(table, pretrained):
    raw_IE = encode(pretrained.config, pretrained.params, table)
    vectors = text_space(raw_IE).of(raw_IE)
    assert vectors.dtype == np.float32 and vectors.shape == (5, pretrained.config.hidden_size)
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(np.mean(vectors**2), 1, rtol=1e-4)
    np.testing.assert_allclose(vectors[0], vectors[4], rtol=1e-4, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.1


def test_data_without_texts_is_an_error(pretrained):
    with pytest.raises(UserError, match="no item texts"):
        item_tokens(None, pretrained.tokenizer_file)
