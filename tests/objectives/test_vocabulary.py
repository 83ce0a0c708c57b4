"""Losses of language models: a value a position, nothing where nothing is asked."""

import jax.numpy as jnp
import numpy as np
import pytest
from languages import batch_of

from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelOutput, ModelShape
from distill_jax.objectives.resolve import resolve
from distill_jax.objectives.vocabulary import VOCABULARY

SHAPE = ModelShape(num_layers=2, hidden_size=4, num_heads=2, num_labels=16)
ASKED = np.array([[True, True], [True, False]])
RNG = np.random.default_rng(0)
STUDENT, TEACHER, THIRD = (RNG.normal(size=(2, 2, 16)).astype(np.float32) for _ in range(3))


def fitted(text, teachers=1):
    return resolve(text, SHAPE, [SHAPE] * teachers, VOCABULARY)


def value(text, student, *teachers):
    objective = fitted(text, max(len(teachers), 1))
    numbers = objective.numbers(0, 1)
    heard = tuple(ModelOutput(logits_BC=jnp.asarray(t)) for t in teachers)
    heard = heard[0] if len(heard) == 1 else heard or None
    said = ModelOutput(logits_BC=jnp.asarray(student))
    total, parts = objective({}, numbers, said, heard, batch_of(asked=ASKED))
    return float(total), parts


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_ce_and_kl_are_means_over_the_positions_that_are_asked_for():
    batch = batch_of(asked=ASKED)
    told = np.maximum(batch.targets, 0)
    logp = np.take_along_axis(log_softmax(STUDENT), told[..., None], axis=-1)[..., 0]
    total, parts = value("ce", STUDENT)
    assert total == pytest.approx(-logp[ASKED].mean(), rel=1e-5)
    assert float(parts["ce"][1]) == 3
    p, q = log_softmax(TEACHER), log_softmax(STUDENT)
    kl = (np.exp(p) * (p - q)).sum(axis=-1)
    assert value("kl", STUDENT, TEACHER)[0] == pytest.approx(kl[ASKED].mean(), rel=1e-5)
    assert value("kl", TEACHER, TEACHER)[0] == pytest.approx(0, abs=1e-6)


def test_what_is_said_where_nothing_is_asked_counts_for_nothing():
    other_s, other_t = STUDENT.copy(), TEACHER.copy()
    other_s[1, 1], other_t[1, 1] = 1e4, -1e4
    for text in ("ce", "kl(T=2)", "reverse_kl", "mse_logits", "topk_kl(k=3)", "0.5*ce + js"):
        heard = [TEACHER] if text != "ce" else []
        first = value(text, STUDENT, *heard)[0]
        again = value(text, other_s, *([other_t] if heard else []))[0]
        assert np.isfinite(first) and first == pytest.approx(again, rel=1e-6)


def test_several_teachers_may_be_one():
    probabilities = np.exp(log_softmax(TEACHER)) / 2 + np.exp(log_softmax(THIRD)) / 2
    p, q = np.log(probabilities), log_softmax(STUDENT)
    expected = (probabilities * (p - q)).sum(axis=-1)[ASKED].mean()
    found = value("kl(teachers='mean_probabilities')", STUDENT, TEACHER, THIRD)[0]
    assert found == pytest.approx(expected, rel=1e-4)
    mean = value("kl(teachers='mean_logits')", STUDENT, TEACHER, THIRD)[0]
    assert mean == pytest.approx(value("kl", STUDENT, (TEACHER + THIRD) / 2)[0], rel=1e-4)


def test_hidden_states_and_attention_are_read_as_of_classifiers():
    objective = fitted("hidden_mse + attention_mse + kl")
    assert objective.student_capture.hidden_states and objective.student_capture.attention_scores
    assert {"kl", "ce", "topk_kl"} <= set(VOCABULARY.losses)


def test_what_cannot_be_read_is_refused_before_step_1():
    for text, message in (
        ("listmle", "no meaning for a token of a vocabulary.*kl"),
        ("mse_regression", "no meaning for a token.*Write mse_logits"),
        ("ce(class_weights=[1, 2])", "says tokens"),
        ("kl(standardize=True)", "standardize"),
        ("rkd_distance(on='logits')", "one vector an example"),
    ):
        with pytest.raises(UserError, match=message):
            fitted(text)
    fewer = ModelShape(2, 4, 2, 15)
    with pytest.raises(UserError, match="same classes"):
        resolve("kl", SHAPE, fewer, VOCABULARY)
    with pytest.raises(UserError, match="needs a teacher"):
        resolve("kl", SHAPE, None, VOCABULARY)
