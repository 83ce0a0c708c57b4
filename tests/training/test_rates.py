"""Learning-rate factors by path: frozen, slower, layer by layer; a mistake names what is near."""

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.models.bert import init_bert
from distill_jax.training.optimizer import (
    OptimizerConfig,
    make_optimizer,
    stopping_at_frozen,
    trained_count,
)
from distill_jax.training.rates import check_matches, factors

PATHS = {
    "embeddings": {"word": {"embedding": 1}},
    "layer_1": {"attention": {"query": {"kernel": 1, "bias": 1}}},
    "layer_2": {"attention": {"query": {"kernel": 1, "bias": 1}}},
    "classifier": {"kernel": 1, "bias": 1},
}


def by_path(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def test_factors_multiply_and_layers_decay_by_hand():
    found = by_path(factors((("query/kernel$", 0.5), ("^layer_1/", 0.1)), 0.8, PATHS))
    assert found == pytest.approx(
        {
            "embeddings/word/embedding": 0.8**3,
            "layer_1/attention/query/kernel": 0.5 * 0.1 * 0.8**2,
            "layer_1/attention/query/bias": 0.1 * 0.8**2,
            "layer_2/attention/query/kernel": 0.5 * 0.8,
            "layer_2/attention/query/bias": 0.8,
            "classifier/kernel": 1.0,
            "classifier/bias": 1.0,
        }
    )


def test_the_losses_own_parameters_have_no_factor():
    tree = {"student": PATHS, "losses": {"hint": {"layer_1": {"kernel": 1}}}}
    found = by_path(factors((("kernel", 0.0),), 0.5, tree))
    assert found["losses/hint/layer_1/kernel"] == 1.0
    assert found["student/layer_1/attention/query/kernel"] == 0.0


@pytest.mark.parametrize(
    ("rates", "decay", "message"),
    [
        ((("embedings", 0.0),), 1.0, "'embedings' is found in .*the nearest are embeddings"),
        ((("layer_3", 0.5),), 1.0, "the nearest are layer_"),
        ((("", 0.0),), 1.0, "nothing is left to train"),
    ],
)
def test_what_matches_nothing_names_the_nearest(rates, decay, message):
    with pytest.raises(UserError, match=message) as told:
        check_matches(rates, decay, PATHS)
    assert "\n" not in str(told.value)


def test_a_layer_decay_needs_layers():
    check_matches((), 0.9, PATHS)
    with pytest.raises(UserError, match="this one has none"):
        check_matches((), 0.9, {"classifier": {"kernel": 1}})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rates": (("(", 0.5),)}, "no regular expression"),
        ({"rates": (("a", -1.0),)}, "must not be negative"),
        ({"rates": (("a", float("inf")),)}, "must not be negative"),
        ({"layer_decay": 0.0}, r"in \(0, 1\]"),
    ],
)
def test_impossible_factors_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**wrong)


def test_a_step_is_scaled_and_the_frozen_stay_whatever_their_decay(student_config):
    params = jax.tree.map(np.asarray, init_bert(student_config, jax.random.key(0)))
    trained = {"student": params, "losses": {}}
    grads = jax.tree.map(np.ones_like, trained)
    usual = OptimizerConfig(weight_decay=0.1)
    chosen = OptimizerConfig(
        weight_decay=0.1, rates=(("embeddings", 0.0), ("query", 0.25)), layer_decay=0.5
    )

    def directions(config):
        optimizer = make_optimizer(config)
        return by_path(optimizer.update(grads, optimizer.init(trained), trained)[0]["student"])

    plain, found = directions(usual), directions(chosen)
    for path, direction in found.items():
        factor = 0.0 if path.startswith("embeddings/") else 0.5 if "layer_1/" in path else 1.0
        factor *= 0.25 if "query" in path else 1
        np.testing.assert_allclose(direction, factor * plain[path], rtol=1e-6, err_msg=path)


def test_no_gradient_reaches_what_is_frozen(student_config):
    params = init_bert(student_config, jax.random.key(0))
    config = OptimizerConfig(rates=(("^(?!classifier)", 0.0),))
    stopped = stopping_at_frozen(config)

    def norm(params):
        return sum(jax.numpy.sum(x**2) for x in jax.tree.leaves(stopped(params)))

    found = by_path(jax.grad(norm)(params))
    assert {path for path, grad in found.items() if np.any(grad)} == {"classifier/kernel"}
    head = params["classifier"]
    assert trained_count(config, params) == head["kernel"].size + head["bias"].size
    assert stopping_at_frozen(OptimizerConfig()) is None
