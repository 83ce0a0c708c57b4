"""Losses over the catalogue against plain loops; the cut softmax against the whole one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distill_jax.losses import ce
from distill_jax.losses.catalogue import (
    bpr,
    catalogue_logsumexp,
    sampled_bce,
    sampled_softmax,
    softmax_over_all,
)

RNG = np.random.default_rng(0)
SEEDS = st.integers(0, 2**32 - 1)


def drawn(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@st.composite
def catalogues(draw):
    """(positions, items, rows, block, seed), tiles of any size beside what there is."""
    size = st.integers(1, 12)
    rows = draw(st.none() | size)
    return draw(size), draw(size), rows, draw(st.none() | size) if rows else None, draw(SEEDS)


@given(catalogues())
@example((9, 7, 4, 3, 0))
@example((9, 7, 4, None, 0))
@example((12, 12, 4, 4, 0))
@settings(max_examples=20)
def test_the_cut_softmax_is_the_whole_one(quickly, catalogue):
    count, num_items, rows, block, seed = catalogue
    rng = np.random.default_rng(seed)
    queries, items, bias, weights = (
        jnp.asarray(rng.standard_normal(shape), jnp.float32)
        for shape in [(count, 5), (num_items, 5), (num_items,), (count,)]
    )
    where = jnp.asarray(rng.random(count) < 0.6)
    closed = rng.random(num_items) < 0.4
    closed[rng.integers(num_items)] = False
    bias = jnp.where(closed, -jnp.inf, bias)

    def cut(queries, items, bias):
        values = catalogue_logsumexp(queries, items, bias, where=where, rows=rows, block=block)
        return jnp.sum(values * weights), values

    def whole(queries, items, bias):
        logits = queries @ items.T + bias[None]
        values = jnp.where(where, jax.nn.logsumexp(logits, axis=-1), 0)
        return jnp.sum(values * weights), values

    got, expected = (
        jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2), has_aux=True), **quickly)(
            queries, items, bias
        )
        for f in (cut, whole)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), got, expected)
    assert not np.any(got[1][1][closed])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_tiles_compute_in_the_working_dtype(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        queries, items = (jnp.asarray(RNG.standard_normal((n, 3)), dtype) for n in (5, 9))
        where = jnp.ones(5, bool)

        def total(queries, items, rows, block):
            return jnp.sum(catalogue_logsumexp(queries, items, where=where, rows=rows, block=block))

        tiles, whole = (
            jax.value_and_grad(total, (0, 1))(queries, items, *tile)
            for tile in ((2, 4), (None, None))
        )
        rough = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 1e-2}[jnp.dtype(dtype).name]
        for got, expected in zip(jax.tree.leaves(tiles), jax.tree.leaves(whole), strict=True):
            assert got.dtype == expected.dtype
            np.testing.assert_allclose(
                got.astype(jnp.float32), expected.astype(jnp.float32), rtol=rough, atol=rough
            )


def test_where_nothing_competes_there_is_no_gradient():
    """Not even at first: a whole block of items may be closed."""
    queries, items, where = drawn(3, 2), drawn(6, 2), jnp.ones(3, bool)

    def values(queries, items, bias):
        return catalogue_logsumexp(queries, items, bias, where=where, rows=2, block=2)

    for open_ in (6, 3, 0):
        bias = jnp.where(jnp.arange(6) >= 6 - open_, 0, -jnp.inf)
        got, back = jax.vjp(values, queries, items, bias)
        expected = jax.nn.logsumexp(queries @ items[6 - open_ :].T, axis=-1) if open_ else -jnp.inf
        np.testing.assert_allclose(got, jnp.broadcast_to(expected, 3), rtol=1e-5)
        assert all(np.isfinite(grad).all() for grad in back(jnp.ones(3)))


@pytest.mark.parametrize("rows, block", [(2, None), (2, 3), (None, None)])
def test_what_is_masked_has_no_say(rows, block):
    """NaN at masked positions reaches neither values nor gradients."""
    queries, items = drawn(5, 3), drawn(4, 3)
    where = jnp.array([True, False, True, False, True])
    spoilt = jnp.where(where[:, None], queries, jnp.nan)

    def total(queries, items):
        return jnp.sum(catalogue_logsumexp(queries, items, where=where, rows=rows, block=block))

    value_and_grad = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    clean, dirty = value_and_grad(queries, items), value_and_grad(spoilt, items)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    none = catalogue_logsumexp(queries, items, where=jnp.zeros(5, bool), rows=rows, block=block)
    assert not none.any()


@pytest.mark.parametrize("block", [1, 2, None])
def test_large_logits_stay_finite(block):
    queries, items = jnp.full((2, 1), 1e4), jnp.array([[1.0], [-1.0], [0.5]])
    where = jnp.ones(2, bool)

    def total(queries):
        return jnp.sum(catalogue_logsumexp(queries, items, where=where, rows=1, block=block))

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
