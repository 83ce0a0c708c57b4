"""The learning rate by hand, and what weight decay leaves alone."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.training.optimizer import OptimizerConfig, learning_rate, make_optimizer


def test_linear_by_hand():
    config = OptimizerConfig(learning_rate=1.0, warmup=0.2, schedule="linear")
    rates = [learning_rate(config, step, 10) for step in range(11)]
    assert rates == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])


def test_cosine_and_constant_by_hand():
    cosine = OptimizerConfig(learning_rate=2.0, warmup=0.0, schedule="cosine")
    assert learning_rate(cosine, 3, 12) == pytest.approx(1 + math.cos(math.pi / 4))
    constant = OptimizerConfig(learning_rate=2.0, warmup=0.0, schedule="constant")
    assert learning_rate(constant, 11, 12) == 2.0


@given(st.integers(1, 500), st.floats(0, 0.9), st.sampled_from(["linear", "cosine", "constant"]))
def test_rates_are_positive_up_to_the_last_step_and_never_over_the_peak(total, warmup, schedule):
    config = OptimizerConfig(learning_rate=3e-4, warmup=warmup, schedule=schedule)
    rates = [learning_rate(config, step, total) for step in range(total)]
    assert all(0 < rate <= 3e-4 * (1 + 1e-12) for rate in rates)


def test_only_matrices_decay():
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.5))
    params = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full((2,), 3.0)}
    zeros = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros((2,))}
    directions, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(directions["kernel"], 1.5)
    np.testing.assert_allclose(directions["bias"], 0.0)


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0.0}, {"learning_rate": math.nan}, {"warmup": 1.0}, {"clip_norm": 0}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)).replace("learning_rate", "learning")):
        OptimizerConfig(**wrong)
