import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from distill_jax.models.dropout import dropout, hash_bits


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_rate_and_mean(rate):
    y = np.asarray(dropout(jnp.ones((400, 1000)), rate, jax.random.key(0)))
    # Five standard deviations of the mean of 400,000 Bernoulli draws.
    noise = 5 * np.sqrt(rate * (1 - rate) / y.size)
    assert np.mean(y == 0) == pytest.approx(rate, abs=noise)
    assert np.mean(y) == pytest.approx(1.0, abs=noise / (1 - rate))
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)


def test_rates_scatter_over_keys_as_independent_draws_do():
    """Chi-square of the counts under 2,000 consecutive seeds, 320 elements each."""
    keys = jax.vmap(jax.random.key)(jnp.arange(2000))
    counts = np.asarray(jax.vmap(lambda key: jnp.sum(hash_bits(key, (320,)) < 2**29))(keys))
    mean, variance = 320 / 8, 320 / 8 * 7 / 8
    statistic = np.sum((counts - mean) ** 2) / variance
    assert scipy.stats.chi2(2000).ppf(1e-4) < statistic < scipy.stats.chi2(2000).ppf(1 - 1e-4)


@pytest.mark.parametrize("shift", [1, 2, 3, 8, 32, 384, 1024])
def test_elements_and_bits_are_independent_of_their_neighbours(shift):
    """Every bit agrees with the same bit ``shift`` elements on, and with the next bit, by half."""
    bits = np.asarray(hash_bits(jax.random.key(3), (200_000,)))
    unpacked = (bits[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    five_deviations = 2.5 / np.sqrt(len(bits))
    for one, two in (
        (unpacked[shift:], unpacked[:-shift]),
        (unpacked[:, 1:], unpacked[:, :-1]),
        (unpacked, np.zeros_like(unpacked)),
    ):
        np.testing.assert_allclose(np.mean(one == two, axis=0), 0.5, atol=five_deviations)


def test_consecutive_keys_give_independent_masks():
    one, two = (np.asarray(hash_bits(jax.random.key(seed), (100_000,))) for seed in (0, 1))
    both = np.mean((one < 2**30) & (two < 2**30))
    assert both == pytest.approx(1 / 16, abs=5 * np.sqrt(15 / 256 / len(one)))
    assert len(np.intersect1d(one[:1000], two[:1000])) == 0


def test_vmap_equals_a_loop_and_rows_added_change_nothing():
    keys = jax.random.split(jax.random.key(0), 3)
    x = jnp.ones((3, 6, 10))
    mapped = jax.vmap(lambda x, key: dropout(x, 0.5, key))(x, keys)
    for i in range(3):
        np.testing.assert_array_equal(mapped[i], dropout(x[i], 0.5, keys[i]))
        np.testing.assert_array_equal(mapped[i, :4], dropout(x[i, :4], 0.5, keys[i]))


def test_mask_is_the_same_however_it_is_sharded():
    mesh = jax.make_mesh((8,), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x, key = jnp.ones((16, 40)), jax.random.key(0)
    sharded = jax.jit(dropout, static_argnums=1)(jax.device_put(x, sharding), 0.3, key)
    np.testing.assert_array_equal(sharded, dropout(x, 0.3, key))


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


def test_gradient_is_the_mask():
    x = jnp.full((8, 12), 2.0)
    key = jax.random.key(0)
    gradient = jax.grad(lambda x: jnp.sum(dropout(x, 0.4, key)))(x)
    np.testing.assert_allclose(gradient, dropout(x, 0.4, key) / 2.0, rtol=1e-6)


def test_rate_zero_is_the_identity():
    x = jnp.ones((3, 3))
    assert dropout(x, 0.0, jax.random.key(0)) is x
