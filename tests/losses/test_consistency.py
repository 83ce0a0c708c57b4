"""A divergence in which both sides learn, and how sure a teacher is."""

import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from distill_jax.losses import consistency, teachers
from distill_jax.losses.consistency import symmetric_kl
from distill_jax.losses.teachers import confidence


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    return [jnp.asarray(3 * rng.normal(size=(5, 4)), jnp.float32) for _ in range(2)]


def test_it_is_the_mean_of_both_directions(logits):
    p, q = (softmax(np.asarray(z, np.float64), axis=-1) for z in logits)
    expected = [(entropy(a, b) + entropy(b, a)) / 2 for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(symmetric_kl(*logits), expected, rtol=1e-5)
    np.testing.assert_allclose(symmetric_kl(logits[0], logits[0]), 0, atol=1e-7)


def test_both_sides_learn_and_nothing_masked_leaks(logits):
    one, other = logits
    where = jnp.array([True, True, False, True, True])
    spoilt = one.at[2].set(jnp.inf)

    def total(one, other):
        return symmetric_kl(one, other, where=where).sum()

    left, right = jax.grad(total, argnums=(0, 1))(spoilt, other)
    assert np.isfinite(left).all() and np.isfinite(right).all()
    assert not np.any(left[2]) and not np.any(right[2])
    assert np.abs(left[0]).max() > 1e-2 and np.abs(right[0]).max() > 1e-2


def test_a_teacher_that_is_sure_weighs_more():
    logits = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1e4, 0.0, -np.inf]], np.float32)
    finite = np.clip(logits, -1e4, None).astype(np.float64)
    likeliest = np.exp(log_softmax(finite, axis=-1)).max(axis=-1)
    np.testing.assert_allclose(confidence(logits), likeliest, rtol=1e-5)
    certain = 1 - entropy(softmax(finite, axis=-1), axis=-1) / np.log(3)
    np.testing.assert_allclose(confidence(logits, by="certainty"), certain, atol=1e-6)
    assert not np.any(jax.grad(lambda z: confidence(z).sum())(jnp.asarray(logits[:2])))


@pytest.mark.parametrize("module", [consistency, teachers])
def test_examples_run(module):
    found = doctest.DocTestFinder().find(module, extraglobs={"jnp": jnp})
    shown = [test for test in found if test.name.endswith((".symmetric_kl", ".confidence"))]
    assert shown
    for test in shown:
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        with np.printoptions(precision=3, suppress=True):
            assert runner.run(test).failed == 0
