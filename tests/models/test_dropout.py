import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.models.dropout import dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_mean(rate):
    x = jnp.ones((400, 1000))
    y = np.asarray(dropout(x, rate, jax.random.key(0)))
    levels = round(rate * 256)
    # Five standard deviations of the mean of 400,000 Bernoulli draws.
    noise = 5 * np.sqrt(rate * (1 - rate) / y.size)
    assert np.mean(y == 0) == pytest.approx(levels / 256, abs=noise)
    assert np.mean(y) == pytest.approx(1.0, abs=noise / (1 - rate))
    np.testing.assert_allclose(y[y != 0], 256 / (256 - levels), rtol=1e-6)


def test_elements_are_independent_of_their_neighbours():
    """The four bytes of a word, and words beside and below each other."""
    kept = np.asarray(dropout(jnp.ones((500, 800)), 0.5, jax.random.key(3))) > 0
    for shift in (1, 2, 3, 4, 7):
        agreement = np.mean(kept[:, shift:] == kept[:, :-shift])
        assert agreement == pytest.approx(0.5, abs=0.005)
    assert np.mean(kept[1:] == kept[:-1]) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_mask_is_a_function_of_the_key(impl):
    x = jnp.ones((16, 30))
    one, again, two = (dropout(x, 0.3, jax.random.key(seed, impl=impl)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 2, 7), (4, 4)])
def test_any_shape_and_dtype(shape):
    y = dropout(jnp.ones(shape, jnp.bfloat16), 0.2, jax.random.key(0))
    assert y.shape == shape
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize(("rate", "dropped"), [(1e-4, 1 / 256), (0.9999, 255 / 256)])
def test_rates_near_the_ends_are_rounded_inwards(rate, dropped):
    y = dropout(jnp.ones((1000, 1000)), rate, jax.random.key(0))
    assert np.mean(np.asarray(y) == 0) == pytest.approx(dropped, abs=5e-4)
    assert np.mean(y) == pytest.approx(1.0, abs=0.1)


def test_gradient_is_the_mask():
    x = jnp.full((8, 12), 2.0)
    key = jax.random.key(0)
    gradient = jax.grad(lambda x: jnp.sum(dropout(x, 0.4, key)))(x)
    np.testing.assert_allclose(gradient, dropout(x, 0.4, key) / 2.0, rtol=1e-6)


def test_rate_zero_is_the_identity():
    x = jnp.ones((3, 3))
    assert dropout(x, 0.0, jax.random.key(0)) is x
