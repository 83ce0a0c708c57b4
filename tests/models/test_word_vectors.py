"""What students of word vectors start from, and what they are called."""

import dataclasses

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.models.bilstm import BiLstmConfig
from distill_jax.models.build import student_family
from distill_jax.models.loaded import Loaded
from distill_jax.models.static import StaticConfig
from distill_jax.models.word_vectors import principal_vectors, rarity_weights

TEACHER = BertConfig(40, 12, 1, 2, 16, max_positions=20, num_labels=3)


@pytest.fixture(scope="module")
def teacher():
    params = init_bert(TEACHER, jax.random.key(0))
    table = params["embeddings"]["word"]
    stretched = table["embedding"] * np.linspace(1, 9, 12, dtype=np.float32)[None] + np.float32(0.5)
    table["embedding"] = stretched
    return Loaded(TEACHER, params, None, "digest", None)


def distances(vectors):
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)


def test_all_components_keep_every_distance(teacher):
    table = np.asarray(teacher.params["embeddings"]["word"]["embedding"])
    vectors = principal_vectors(teacher, 12)
    ratio = distances(vectors)[np.triu_indices(40, 1)] / distances(table)[np.triu_indices(40, 1)]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
    assert np.mean(vectors**2) == pytest.approx(1)
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=1e-5)


def test_few_components_are_the_best_few(teacher):
    """No projection of as many dimensions loses less: Eckart and Young, by singular values."""
    table = np.asarray(teacher.params["embeddings"]["word"]["embedding"], np.float64)
    centred = table - table.mean(axis=0)
    vectors = principal_vectors(teacher, 4)
    fitted = vectors @ np.linalg.lstsq(vectors, centred, rcond=None)[0]
    lost = np.sum((centred - fitted) ** 2)
    assert lost == pytest.approx(np.sum(np.linalg.svd(centred, compute_uv=False)[4:] ** 2))


def test_the_first_tokens_of_a_vocabulary_weigh_least():
    weights = rarity_weights(30522)
    assert (np.diff(weights) > 0).all() and 0 < weights[0] < 0.01 and 0.9 < weights[-1] < 1


@pytest.mark.parametrize("family", ["static", "bilstm"])
def test_a_student_starts_from_its_teacher_or_by_chance(teacher, family):
    own = student_family(family)
    one, two = (own.start(family, teacher, jax.random.key(seed)) for seed in (0, 1))
    first, second = (np.asarray(each["embeddings"]["embedding"]) for each in (one, two))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one["dense"]["kernel"], two["dense"]["kernel"])
    vectors = principal_vectors(teacher, 12)
    if family == "static":
        vectors = vectors * rarity_weights(40)[:, None]
    np.testing.assert_allclose(first, 0.3 * vectors, rtol=1e-5)
    chance = own.start(f"{family}-random-6", teacher, jax.random.key(0))
    assert chance["embeddings"]["embedding"].shape == (40, 6 if family == "static" else 12)
    assert np.std(chance["embeddings"]["embedding"]) == pytest.approx(0.3, rel=0.2)


def test_names_say_widths():
    def config(name, teacher=TEACHER):
        return student_family(name).student(name, teacher)

    common = {"max_positions": 20, "type_vocab_size": 2}
    assert config("static") == StaticConfig(40, 12, 3, **common)
    assert config("static-5") == StaticConfig(40, 5, 3, **common)
    assert config("static-random") == StaticConfig(40, 256, 3, **common)
    assert config("static-random-7") == StaticConfig(40, 7, 3, **common)
    assert config("bilstm") == BiLstmConfig(40, 6, 3, **common)
    assert config("bilstm-random-9") == BiLstmConfig(40, 9, 3, **common)
    wide = dataclasses.replace(TEACHER, hidden_size=768)
    assert config("bilstm", wide).width == 192 and config("static", wide).width == 256


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("static-0", r"unknown student 'static-0'\. Did you mean 'static'\?"),
        ("static-rand", r"unknown student 'static-rand'"),
        ("bilstm-03", r"unknown student 'bilstm-03'"),
        ("bilstm-9-random", r"unknown student .* Allowed: bilstm, bilstm-WIDTH"),
        ("static-13", "which have 12: take static-12 or narrower, or static-random-13"),
        ("bilstm-7", "has vectors of 14 .* which have 12: take bilstm-6 or narrower"),
        ("bilstm-random-99999999", "width must be from 1 to"),
        ("bilstn", r"Did you mean 'bilstm'\?"),
    ],
)
def test_wrong_names_are_named(name, message):
    with pytest.raises(UserError, match=message):
        student_family(name).student(name, TEACHER)


def test_a_teacher_without_a_table_cannot_give_one():
    with pytest.raises(UserError, match="a cnn does not say where it has them: take static-random"):
        student_family("static").student("static", student_family("cnn-2-4").alone("cnn-2-4", 2))


@pytest.mark.parametrize("kind", [StaticConfig, BiLstmConfig])
@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"width": 2.5}, {"vocab_size": 2**25}, {"dropout": 1.0}]
)
def test_impossible_configs_are_refused(kind, wrong):
    with pytest.raises(UserError, match=kind.__name__):
        kind(**{"vocab_size": 9, "width": 4, "num_labels": 2, **wrong})
