"""The learning rate by hand, and the gradients' clipping together and apart."""

import math
from dataclasses import replace
from functools import partial

import jax
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


def parts(scale=1.0):
    """Parameters and gradients of a student and of a projection."""
    rng = np.random.default_rng(0)
    student = {"kernel": rng.normal(size=(4, 3)), "bias": rng.normal(size=3)}
    losses = {"projection": {"kernel": scale * rng.normal(size=(3, 5))}}
    return jax.tree.map(np.float32, {"student": student, "losses": losses})


def directions(config, params, grads):
    optimizer = make_optimizer(config)
    return optimizer.update(grads, optimizer.init(params), params)[0]


@given(st.floats(0.01, 100), st.floats(0.01, 10))
def test_clipped_apart_each_moves_as_if_it_were_alone(scale, clip_norm):
    config = OptimizerConfig(clip_norm=clip_norm, eps=10.0, clip_apart=True)
    params, grads = parts(), parts(scale)
    found = directions(config, params, grads)
    for part in ("student", "losses"):
        alone = directions(replace(config, clip_apart=False), params[part], grads[part])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found[part], alone)


def test_clipped_together_a_projection_shortens_the_students_step():
    params = parts()
    for apart in (False, True):
        config = OptimizerConfig(clip_norm=1.0, eps=1e3, weight_decay=0.0, clip_apart=apart)
        small, large = (directions(config, params, parts(scale))["student"] for scale in (1, 100))
        ratio = np.linalg.norm(large["kernel"]) / np.linalg.norm(small["kernel"])
        assert ratio == pytest.approx(1, rel=1e-5) if apart else ratio < 0.1


def test_nothing_of_the_losses_own_is_clipped_too():
    config = OptimizerConfig(clip_apart=True)
    params = {**parts(), "losses": {}}
    assert directions(config, params, params)["losses"] == {}


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0.0}, {"learning_rate": math.nan}, {"warmup": 1.0}, {"clip_norm": 0}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong)).replace("learning_rate", "learning")):
        OptimizerConfig(**wrong)


def test_an_l2_penalty_is_part_of_the_gradient_that_adam_scales():
    """As PyTorch's Adam has its weight decay; biases and the losses' own parameters too."""
    params, grads = parts(), parts(0.1)
    plain = OptimizerConfig(weight_decay=0.0, clip_norm=1e9)
    penal = jax.tree.map(lambda g, p: g + np.float32(0.3) * p, grads, params)
    found = directions(replace(plain, l2=0.3), params, grads)
    close = partial(np.testing.assert_allclose, rtol=1e-5)
    jax.tree.map(close, found, directions(plain, params, penal))
    with pytest.raises(UserError, match="L2 penalty must not be negative"):
        replace(plain, l2=-1.0)
