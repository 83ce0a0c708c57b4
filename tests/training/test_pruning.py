"""Masks in the train state: how weights go, that they stay away, alone and in a population."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from distill_jax.core.mesh import make_mesh, make_placement
from distill_jax.objectives.resolve import resolve
from distill_jax.training.checkpoint import Checkpoints
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import Interrupted, StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.population import PopulationStep, train_population
from distill_jax.training.pruning import (
    Pruning,
    best_of_group,
    kernels,
    largest,
    sparsity,
)
from distill_jax.training.state import init_state
from distill_jax.training.step import CompiledStep, make_step

STEPS = 8
OPTIMIZER = OptimizerConfig(learning_rate=1e-2)
KINDS = [
    Pruning("magnitude", "global", 0.8, until=0.5),
    Pruning("movement", "layer", 0.5, until=0.75),
    Pruning("gradient", "global", 0.3, until=1.0),
]


@pytest.fixture(scope="module")
def made(student, student_config):
    """(pruning) -> a state, the step of such a pruning, pure and compiled, and the objective."""
    objective = resolve("ce", student_config.shape, None)
    steps = {}

    def make(pruning, params=student[1]):
        optimizer = make_optimizer(OPTIMIZER)
        key = pruning.static
        if key not in steps:
            pure = make_step(student[0], objective, optimizer, pruning=key)
            steps[key] = pure, CompiledStep(pure)
        state = init_state(params, {}, optimizer)
        masks = jax.tree.map(jnp.asarray, pruning.start(params, STEPS))
        return state.replace(masks=masks), *steps[key], objective

    return make


def run(made, pruning, table, folder=None, stop_at=None, seen=None):
    state, _, compiled, objective = made(pruning)

    def watched(state, *rest):
        state, metrics = compiled(state, *rest)
        if seen is not None:
            seen.append(jax.device_get((state.params, state.masks)))
        return state, metrics

    watched.prepare, watched.traces = compiled.prepare, 0
    with StopRequest() as stop:

        def on_log(done, values):
            stop.requested = stop_at is not None and done >= stop_at

        call = {
            "objective": objective,
            "optimizer": OPTIMIZER,
            "loop": LoopConfig(STEPS, STEPS, log_every=1, select=None),
            "layout": Layout(make_mesh(jax.devices()[:1])),
            "evaluate": lambda params: {},
            "on_log": on_log,
            "stop": stop,
        }
        feed = Feed(table, (16,), 16, 0)
        if folder is None:
            return train(state, watched, feed, **call)
        with Checkpoints(folder) as checkpoints:
            return train(state, watched, feed, checkpoints=checkpoints, **call)


@pytest.fixture(scope="module")
def undisturbed(made, toy_table):
    """(pruning) -> what every step of a run left, and its result."""

    @functools.cache
    def whole(pruning):
        seen = []
        return seen, run(made, pruning, toy_table, seen=seen)

    return whole


@pytest.mark.parametrize("pruning", KINDS, ids=lambda each: each.by)
def test_weights_go_by_the_cubic_schedule_and_stay_away(undisturbed, pruning):
    seen, _ = undisturbed(pruning)
    over = round(pruning.until * STEPS)
    gone_before = 0
    for step, (params, masks) in enumerate(seen, 1):
        expected = pruning.sparsity * (1 - (1 - min(step / over, 1)) ** 3)
        shown = sparsity(params)
        assert shown == pytest.approx(expected, abs=2e-2)  # of 8 small kernels, rounded in each
        left = flatten_dict(masks["left"])
        for path, kernel in kernels(params).items():
            np.testing.assert_array_equal(kernel[~left[path]], 0)
        gone = np.concatenate([~x.reshape(-1) for x in left.values()])
        assert not np.any(gone_before & ~gone)
        gone_before = gone
    head = np.asarray(seen[-1][0]["classifier"]["kernel"])
    assert np.all(head != 0)


def test_what_is_gone_at_the_start_stays_so(made, student, toy_table):
    params = jax.tree.map(np.array, student[1])
    params["layer_1"]["output"]["kernel"][:4] = 0
    pruning = Pruning()
    state, *_ = made(pruning, params)
    seen = []

    def again(pruning, params=params):
        return made(pruning, params)

    run(again, pruning, toy_table, seen=seen)
    after = seen[-1][0]["layer_1"]["output"]["kernel"]
    np.testing.assert_array_equal(after[:4], 0)
    assert np.all(after[4:] != params["layer_1"]["output"]["kernel"][4:])
    assert set(state.masks) == {"left"}


@pytest.mark.parametrize("pruning", KINDS, ids=lambda each: each.by)
def test_stopped_it_goes_on_to_the_same_bits(made, undisturbed, toy_table, tmp_path, pruning):
    (whole, _), halves = undisturbed(pruning), []
    with pytest.raises(Interrupted):
        run(made, pruning, toy_table, tmp_path, stop_at=3, seen=halves)
    run(made, pruning, toy_table, tmp_path, seen=halves)
    assert len(halves) == STEPS
    jax.tree.map(np.testing.assert_array_equal, whole[-1], halves[-1])


def test_in_a_population_each_has_its_own_sparsity_and_one_program(made, undisturbed, toy_table):
    shares = (0.2, 0.8)  # the second is that of the first kind
    members = [dataclasses.replace(KINDS[0], sparsity=share) for share in shares]
    states = [made(member)[0] for member in members]
    _, step, _, objective = made(members[0])
    placement = make_placement("vmap", make_mesh(jax.devices()[:1]))
    together = PopulationStep(step, shared_batch=True, placement=placement)
    with StopRequest() as stop:
        found = train_population(
            states,
            together,
            Feed(toy_table, (16,), 16, 0),
            objectives=[objective] * 2,
            optimizers=[OPTIMIZER] * 2,
            loop=LoopConfig(STEPS, STEPS, select=None),
            evaluate=lambda params: [{}, {}],
            on_log=lambda *_: None,
            stop=stop,
        )
    assert together.traces == 1
    for member, share, result in zip(members, shares, found, strict=True):
        assert sparsity(result.params) == pytest.approx(share, abs=1e-2)
        _, alone = undisturbed(member)
        for path, kernel in kernels(alone.params).items():
            np.testing.assert_allclose(kernels(result.params)[path], kernel, atol=1e-5)


def test_the_largest_are_left_over_all_or_in_each():
    scores = {
        ("a", "kernel"): jnp.arange(1.0, 9.0).reshape(2, 4),
        ("b", "kernel"): jnp.ones((2, 2)),
    }
    left = {path: jnp.ones(x.shape, bool) for path, x in scores.items()}
    over_all = largest(scores, left, 0.5, scope="global")
    assert np.asarray(over_all["a", "kernel"]).tolist() == [[False, False, True, True], [True] * 4]
    assert np.asarray(over_all["b", "kernel"]).sum() == 0
    in_each = largest(scores, left, 0.5, scope="layer")
    assert np.asarray(in_each["a", "kernel"]).tolist() == [[False] * 4, [True] * 4]
    assert np.asarray(in_each["b", "kernel"]).sum() == 2
    gone = {**left, ("a", "kernel"): jnp.zeros((2, 4), bool)}
    assert not np.asarray(largest(scores, gone, 0.0, scope="global")["a", "kernel"]).any()


def test_of_every_group_of_inputs_the_largest_are_left():
    rng = np.random.default_rng(0)
    score = rng.random((8, 5))
    mask = best_of_group(score, 2, 4, name="k")
    for start in (0, 4):
        for output in range(5):
            group = score[start : start + 4, output]
            kept = group[mask[start : start + 4, output]]
            assert sorted(kept) == sorted(group)[2:]
