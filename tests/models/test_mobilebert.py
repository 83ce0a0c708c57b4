"""MobileBERT as a student: its feature maps fit its teacher's. Its numbers against PyTorch's are in
test_hf_architectures."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.models.bert import BertConfig
from distill_jax.models.bilstm import BiLstmConfig
from distill_jax.models.build import build_model, student_family
from distill_jax.models.mobilebert import MobileBertConfig, init_mobilebert

TEACHER = BertConfig(30, 24, 3, 3, 48, max_positions=16, pooling="mean", num_labels=4)


def student(name, teacher=TEACHER, **options):
    return student_family(name).student(name, teacher, **options)


def test_feature_maps_and_attention_are_as_the_teacher_s(make_batch):
    config = student("mobilebert")
    assert config.shape == TEACHER.shape and config.token_range == TEACHER.token_range
    assert (config.bottleneck_size, config.intermediate_size) == (6, 24)
    assert (config.embedding_size, config.pooling) == (24, "mean")
    params = init_mobilebert(config, jax.random.key(0))
    said = build_model(config).apply({"params": params}, make_batch([4, 2], 5, vocab_size=30))
    assert [x.shape for x in said.hidden_states.values()] == [(2, 5, 24)] * 4
    assert said.attention_scores[3].shape == (2, 3, 5, 5)
    assert said.values[1].shape == (2, 5, 3, 2)


def test_layers_and_bottleneck_may_be_named():
    assert student("mobilebert-2").num_layers == 2
    narrow = student("mobilebert-2x9", pooling="pooler")
    assert (narrow.bottleneck_size, narrow.pooling) == (9, "pooler")
    assert student("mobilebert", dataclasses.replace(TEACHER, hidden_size=768, num_heads=12)) == (
        dataclasses.replace(
            student("mobilebert"),
            hidden_size=768,
            num_heads=12,
            bottleneck_size=192,
            intermediate_size=768,
            embedding_size=128,
        )
    )


@pytest.mark.parametrize(
    ("name", "teacher", "message"),
    [
        ("mobilebert-0", TEACHER, "unknown student 'mobilebert-0'"),
        ("mobilebert-2x10", TEACHER, "10 is not a multiple of the teacher's 3 heads"),
        ("mobilebert", BiLstmConfig(30, 4, 2), "a bilstm has no attention"),
    ],
)
def test_what_cannot_be_is_refused(name, teacher, message):
    with pytest.raises(UserError, match=message):
        student(name, teacher)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bottleneck_size": 7}, "7 is not a multiple of 2 heads"),
        ({"hidden_act": "swish"}, "unknown hidden_act"),
        ({"feed_forwards": 0}, "feed_forwards must be from 1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"pooling": "max"}, "unknown pooling"),
        ({"initializer_range": -1.0}, "initializer_range"),
    ],
)
def test_a_damaged_config_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        MobileBertConfig(**{**dataclasses.asdict(MobileBertConfig(9, 8, 1, 2, 8, 4)), **changes})


def test_a_token_reads_its_neighbours_and_no_padding(make_batch):
    config = student("mobilebert-1")
    params = init_mobilebert(config, jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.1, params)
    batch = make_batch([3], 3, vocab_size=30)
    other = batch.input_ids_BT.copy()
    other[0, 2] = (other[0, 2] + 1) % 30

    def embeddings(ids):
        said = build_model(config).apply({"params": params}, batch.replace(input_ids_BT=ids))
        return np.asarray(said.hidden_states[0])[0]

    changed = np.any(embeddings(batch.input_ids_BT) != embeddings(other), axis=-1)
    assert changed.tolist() == [False, True, True]
