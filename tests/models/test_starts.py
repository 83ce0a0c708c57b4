"""Starts of students: shares of a teacher, its embeddings, its most important units."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.models.build import build_model, student_family
from distill_jax.models.loaded import Loaded
from distill_jax.models.narrowed import (
    head_importance,
    hidden_importance,
    neuron_importance,
)
from distill_jax.models.starts import Blend, check_start, parse_start, started

CONFIG = BertConfig(30, 12, 4, 3, 48, max_positions=12, initializer_range=0.3, num_labels=2)


def loaded(config, seed):
    params = init_bert(config, jax.random.key(seed))
    return Loaded(config, params, None, "", None)


CHECKPOINT, TRAINED = loaded(CONFIG, 1), loaded(CONFIG, 2)


def start(name, text, rng=0, checkpoint=CHECKPOINT, trained=TRAINED, **options):
    family = student_family(name)
    check_start(family, name, text, checkpoint.config, **options)
    return started(family, name, text, checkpoint, trained, jax.random.key(rng), **options)


def close(one, two, atol=0.0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), one, two)


def test_a_share_of_the_teacher_is_a_line_from_chance_to_it():
    """Of the fine-tuned teacher with its head; the checkpoint has no say."""
    drawn, whole = start("l4", "random"), start("l4", "1*teacher")
    close(whole, TRAINED.params)
    close(start("l4", "0*teacher"), drawn)
    close(start("l4", "1.0*checkpoint"), CHECKPOINT.params)
    quarter = jax.tree.map(lambda a, b: 0.25 * a + 0.75 * b, TRAINED.params, drawn)
    close(start("l4", "0.25*teacher"), quarter, atol=1e-6)
    again = start("l4", "0.25*teacher", rng=1)
    gap = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), quarter, again)
    assert gap["layer_1"]["output"]["kernel"] > 0.1


def test_a_copied_student_has_a_share_of_its_layers_and_of_the_head():
    whole = start("l2", "1*teacher", layers=(1, 4))
    close(whole["layer_2"], TRAINED.params["layer_4"])
    close(whole["classifier"], TRAINED.params["classifier"])
    usual = start("l2", "usual", layers=(1, 4))
    close(usual["layer_2"], CHECKPOINT.params["layer_4"])
    assert not np.allclose(usual["classifier"]["kernel"], CHECKPOINT.params["classifier"]["kernel"])
    for leaf in jax.tree.leaves(start("l4", "1*teacher")):
        leaf.delete()  # as a donated step does
    assert np.isfinite(np.asarray(TRAINED.params["classifier"]["kernel"])).all()


def test_a_student_of_its_teacher_s_shape_needs_no_name_of_a_copied_one():
    """Images too, as in the paper."""
    family = student_family("cnn-2-4")
    config = family.alone("cnn-2-4", 3)
    one, two = (family.init(config, jax.random.key(seed)) for seed in (3, 4))
    checkpoint = Loaded(config, one, None, "", None)
    trained = dataclasses.replace(checkpoint, params=two)
    half = start("cnn-2-4", "0.5*teacher", 5, checkpoint, trained)
    drawn = family.init(config, jax.random.key(5))
    close(half, jax.tree.map(lambda a, b: (a + b) / 2, two, drawn), atol=1e-6)
    with pytest.raises(UserError, match="has no parameters that its teacher has too"):
        start("cnn-2-6", "0.5*teacher", 5, checkpoint, trained)


def test_random_is_what_a_random_student_does():
    close(start("2x8x2", "random"), start("2x8x2", "usual"))
    words = start("bilstm-2", "random")
    close(words, start("bilstm-random-2", "usual"))
    assert not np.allclose(
        words["embeddings"]["embedding"], start("bilstm-2", "usual")["embeddings"]["embedding"]
    )


@pytest.mark.parametrize("name", ["2x6x2", "mobilebert-2"])
def test_embeddings_are_the_teacher_s_in_fewer_dimensions(name):
    """Inner products of centred words survive as far as the best rank allows."""
    params, drawn = start(name, "embeddings"), start(name, "random")
    close({**params, "embeddings": 0}, {**drawn, "embeddings": 0})
    table = np.asarray(CHECKPOINT.params["embeddings"]["word"]["embedding"])
    centred, ours = (
        table - table.mean(axis=0),
        np.asarray(params["embeddings"]["word"]["embedding"]),
    )
    _values, axes = np.linalg.eigh(centred.T @ centred)
    best = centred @ axes[:, ::-1][:, : ours.shape[1]]
    np.testing.assert_allclose(ours @ ours.T, best @ best.T, atol=1e-4)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, drawn)


def test_truncated_to_the_teacher_s_own_width_is_the_teacher(make_batch):
    """Units, heads and neurons keep their order, so nothing changes; the head is drawn."""
    params = start("4x12x3", "truncated")
    batch = make_batch([5, 3], 6, vocab_size=30)
    ours, theirs = (
        Bert(CONFIG).apply({"params": each}, batch).hidden_states[4]
        for each in (params, CHECKPOINT.params)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    close(params["classifier"], start("4x12x3", "random")["classifier"])


def test_units_that_do_nothing_go_first(make_batch):
    """A teacher whose head 1 and half of whose neurons are nil loses nothing with them, and of the
    hidden units those go that carry nothing and that nothing reads."""
    wide = dataclasses.replace(CONFIG, num_layers=2)
    params = jax.tree.map(np.array, init_bert(wide, jax.random.key(1)))
    idle = np.array([0, 5, 7, 11])
    for number in (1, 2):
        layer = params[f"layer_{number}"]
        layer["attention_output"]["kernel"][4:8] = 0
        layer["output"]["kernel"][::2] = 0
        for norm in ("attention_norm", "output_norm"):
            layer[norm]["scale"][idle] = layer[norm]["bias"][idle] = 0
    params["embeddings"]["norm"]["scale"][idle] = params["embeddings"]["norm"]["bias"][idle] = 0
    own = [params["layer_1"], params["layer_2"]]
    assert set(np.argsort(hidden_importance(params["embeddings"]["norm"], own))[:4]) == set(idle)
    assert np.argmin(head_importance(own[0], 3)) == 1
    assert set(np.flatnonzero(neuron_importance(own[0]) == 0)) == set(range(0, 48, 2))
    checkpoint = Loaded(wide, params, None, "", None)
    cut = start("2x8x2", "truncated", checkpoint=checkpoint)
    kept = np.setdiff1d(np.arange(12), idle)
    rows = np.r_[0:4, 8:12]
    np.testing.assert_array_equal(
        cut["layer_2"]["attention"]["value"]["kernel"],
        own[1]["attention"]["value"]["kernel"][np.ix_(kept, rows)],
    )
    np.testing.assert_array_equal(
        cut["embeddings"]["word"]["embedding"], params["embeddings"]["word"]["embedding"][:, kept]
    )
    assert cut["layer_1"]["intermediate"]["kernel"].shape == (8, 32)


def test_layers_of_a_truncated_student_may_be_chosen():
    first, third = (start("1x8x2", "truncated", layers=(layer,)) for layer in (1, 3))
    kernel = third["layer_1"]["output"]["kernel"]
    whole = np.asarray(CHECKPOINT.params["layer_3"]["output"]["kernel"])
    assert set(np.asarray(kernel).ravel()) <= set(whole.ravel())
    assert not np.array_equal(kernel, first["layer_1"]["output"]["kernel"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tiny", "0.5*techer", "unknown start of a student '0.5.techer'"),
        ("tiny", "embedings", "Did you mean 'embeddings'"),
        ("l2", "1.5*teacher", "from 0 to 1, not 1.5"),
        ("2x8x2", "0.5*teacher", "has no parameters that its teacher has too"),
        ("static", "embeddings", "family 'static' has no start 'embeddings'"),
        ("mobilebert", "truncated", "family 'mobilebert' has no start 'truncated'"),
        ("2x16x4", "embeddings", "has embeddings of 16 and would start from its teacher's, which"),
        ("2x16x4", "truncated", "has 16 hidden units and would be cut out of a teacher of 12"),
        ("2x6x3", "truncated", r"heads of size 2, the teacher of 4.*take 2x4x1"),
        ("2x8x2", "truncated-", "unknown start"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(name, text, message):
    with pytest.raises(UserError, match=message):
        check_start(student_family(name), name, text, CONFIG)


def test_texts_of_starts():
    assert parse_start(".5*teacher") == Blend(0.5, True)
    assert parse_start("1 * checkpoint") == Blend(1.0, False)
    assert parse_start("usual") == "usual"


def test_distilbert_starts_from_every_other_layer(make_batch):
    """It says what the teacher's layers say of a first text; types have become positions."""
    config = student_family("distilbert").student("distilbert", CONFIG, pooling="mean")
    params = start("distilbert", "usual", pooling="mean")
    assert config.num_layers == 2 and "token_type" not in params["embeddings"]
    close(params["layer_1"], CHECKPOINT.params["layer_2"])
    close(params["layer_2"], CHECKPOINT.params["layer_4"])
    batch = make_batch([5, 3], 6, vocab_size=30)
    batch = batch.replace(token_type_ids_BT=np.zeros_like(batch.token_type_ids_BT))
    ours = build_model(config).apply({"params": params}, batch).hidden_states[0]
    theirs = Bert(CONFIG).apply({"params": CHECKPOINT.params}, batch).hidden_states[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    chosen = start("distilbert", "usual", layers=(3, 4), pooling="mean")
    close(chosen["layer_1"], CHECKPOINT.params["layer_3"])
    pooled = start("distilbert", "usual", pooling="pooler")
    assert not jnp.allclose(
        pooled["pooling"]["dense"]["kernel"], CHECKPOINT.params["pooling"]["dense"]["kernel"]
    )
