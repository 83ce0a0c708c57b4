"""Losses over the catalogue against plain loops; the cut softmax against the whole one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.losses import ce
from distill_jax.losses.catalogue import (
    bpr,
    catalogue_logsumexp,
    sampled_bce,
    sampled_softmax,
    softmax_over_all,
)

RNG = np.random.default_rng(0)


def drawn(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("count, num_items, rows", [(9, 7, 1), (9, 7, 4), (1, 1, 3), (9, 7, None)])
def test_the_cut_softmax_is_the_whole_one(count, num_items, rows):
    rng = np.random.default_rng(count)
    queries, items, bias, weights = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in [(count, 5), (num_items, 5), (num_items,), (count,)]
    )
    where = jnp.asarray(rng.random(count) < 0.6)

    def cut(queries, items, bias):
        values = catalogue_logsumexp(queries, items, bias, where=where, rows=rows)
        return jnp.sum(values * weights), values

    def whole(queries, items, bias):
        logits = queries @ items.T + bias[None]
        values = jnp.where(where, jax.nn.logsumexp(logits, axis=-1), 0)
        return jnp.sum(values * weights), values

    got, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2), has_aux=True))(queries, items, bias)
        for f in (cut, whole)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, expected)


@pytest.mark.parametrize("rows", [2, None])
def test_what_is_masked_has_no_say(rows):
    """NaN at masked positions reaches neither values nor gradients."""
    queries, items = drawn(5, 3), drawn(4, 3)
    where = jnp.array([True, False, True, False, True])
    spoilt = jnp.where(where[:, None], queries, jnp.nan)

    def total(queries, items):
        return jnp.sum(catalogue_logsumexp(queries, items, where=where, rows=rows))

    value_and_grad = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    clean, dirty = value_and_grad(queries, items), value_and_grad(spoilt, items)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    none = catalogue_logsumexp(queries, items, where=jnp.zeros(5, bool), rows=rows)
    assert not none.any()


def test_large_logits_stay_finite():
    queries, items = jnp.full((2, 1), 1e4), jnp.array([[1.0], [-1.0], [0.5]])
    where = jnp.ones(2, bool)

    def total(queries):
        return jnp.sum(catalogue_logsumexp(queries, items, where=where, rows=1))

    value, grad = jax.jit(jax.value_and_grad(total))(queries)
    np.testing.assert_allclose(value, 2e4)
    np.testing.assert_allclose(grad, np.ones((2, 1)))


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_softmax_over_all_is_cross_entropy(smoothing):
    logits, labels = drawn(4, 6), jnp.array([0, 5, 2, 2])
    where = jnp.array([True, True, False, True])
    got = softmax_over_all(
        jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0],
        jax.nn.logsumexp(logits, axis=-1),
        logits.mean(axis=-1),
        where=where,
        label_smoothing=smoothing,
    )
    np.testing.assert_allclose(
        got, ce(logits, labels, where=where, label_smoothing=smoothing), rtol=1e-5, atol=1e-6
    )


def test_sampled_losses_are_their_formulas():
    target, negatives = drawn(3), drawn(3, 4)
    where = jnp.array([True, False, True])
    softmax, yes_no, pairs = (
        f(target, negatives, where=where) for f in (sampled_softmax, sampled_bce, bpr)
    )
    for n in (0, 2):
        t, others = float(target[n]), [float(x) for x in negatives[n]]
        total = math.exp(t) + sum(map(math.exp, others))
        assert softmax[n] == pytest.approx(-math.log(math.exp(t) / total), rel=1e-5)
        expected = -math.log(sigmoid(t)) - sum(math.log(1 - sigmoid(x)) for x in others)
        assert yes_no[n] == pytest.approx(expected, rel=1e-5)
        expected = -sum(math.log(sigmoid(t - x)) for x in others) / 4
        assert pairs[n] == pytest.approx(expected, rel=1e-5)
    assert softmax[1] == yes_no[1] == pairs[1] == 0


@pytest.mark.parametrize("loss", [sampled_softmax, sampled_bce, bpr])
def test_sampled_losses_are_finite_at_extremes_and_ignore_what_is_masked(loss):
    target = jnp.array([1e30, -1e30, jnp.nan])
    negatives = jnp.array([[-1e30, 1e30], [1e30, 1e30], [jnp.nan, 0.0]])
    where = jnp.array([True, True, False])

    def total(target, negatives):
        return jnp.sum(loss(target, negatives, where=where))

    value, grads = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(target, negatives)
    assert jnp.isfinite(value)
    assert all(jnp.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("loss", [sampled_softmax, sampled_bce, bpr])
def test_shapes_that_do_not_fit_are_errors(loss):
    with pytest.raises(ValueError, match="negatives have shape"):
        loss(jnp.zeros(3), jnp.zeros((2, 4)))
