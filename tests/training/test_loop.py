"""Runs: the same to the bit after an interruption, the best step kept, divergence named."""

import jax
import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.data.plan import choose_lengths
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.resolve import resolve
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.checkpoint import Checkpoints
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import Interrupted, StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.state import init_state
from distill_jax.training.step import CompiledStep, make_step

STEPS = 9


@pytest.fixture(scope="module")
def run(toy_table, student, teacher, student_config, teacher_config):
    """A run of ``hidden_mse + kl`` over nine steps, three to an epoch."""
    objective = resolve(parse("hidden_mse + kl"), student_config.shape, teacher_config.shape)
    statics = make_optimizer(OptimizerConfig())
    step = CompiledStep(make_step(student[0], objective, statics))

    def go(stop=None, checkpoints=None, on_log=None, evaluate=None, learning_rate=1e-2):
        optimizer = OptimizerConfig(learning_rate=learning_rate)
        feed = Feed(
            toy_table,
            choose_lengths(toy_table.lengths_N, max_shapes=2),
            16,
            seed=5,
            teacher=LiveTeacher(*teacher, objective.teacher_capture),
        )
        loss_params = objective.init_params(jax.random.key(3))
        return train(
            init_state(student[1], loss_params, statics),
            step,
            feed,
            objective=objective,
            optimizer=optimizer,
            loop=LoopConfig(STEPS, eval_every=2, log_every=1, checkpoint_seconds=0.0),
            layout=Layout(make_mesh(jax.devices()[:1])),
            evaluate=evaluate
            or (lambda params: {"accuracy": float(params["classifier"]["bias"][0])}),
            on_log=on_log or (lambda step, values: None),
            stop=stop or StopRequest(),
            checkpoints=checkpoints,
        )

    return go


@pytest.mark.parametrize("stop_at", [1, 2, 5, 8])
def test_an_interrupted_run_is_the_same_run(run, tmp_path, stop_at):
    whole, seen = [], []
    expected = run(on_log=lambda step, values: whole.append((step, values)))

    stop = StopRequest()

    def log(step, values):
        seen.append((step, values))
        stop.requested = step == stop_at

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints, log)
    with Checkpoints(tmp_path) as checkpoints:
        resumed = run(StopRequest(), checkpoints, log)

    assert seen == whole
    assert resumed.progress.history == expected.progress.history
    assert resumed.progress.best_step == expected.progress.best_step
    jax.tree.map(np.testing.assert_array_equal, resumed.params, expected.params)


def test_a_run_killed_between_checkpoints_is_the_same_run(run, tmp_path):
    """What the last checkpoint does not hold is done again, in the same way."""

    class Killed(Exception):
        pass

    def die(step, values):
        if step == 7:
            raise Killed

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Killed):
        run(None, checkpoints, die)
    steps = []
    with Checkpoints(tmp_path) as checkpoints:
        resumed = run(
            None,
            checkpoints,
            lambda step, values: steps.append(step) if "train/loss" in values else None,
        )
    assert steps == [7, 8, 9]
    jax.tree.map(np.testing.assert_array_equal, resumed.params, run().params)


def test_a_stop_during_an_evaluation_loses_nothing(run, tmp_path):
    stop = StopRequest()

    def evaluate(params):
        stop.requested = True
        return {"accuracy": 0.5}

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints, evaluate=evaluate)
    steps = []
    with Checkpoints(tmp_path) as checkpoints:
        run(StopRequest(), checkpoints, lambda step, values: steps.append(step))
    assert steps[0] == 3


def test_a_stop_after_the_last_step_finishes(run):
    stop = StopRequest()

    def log(step, values):
        stop.requested = step == STEPS

    assert run(stop, None, log).progress.history[-1]["step"] == STEPS


def test_the_best_step_is_kept_and_of_equals_the_earliest(run):
    scores = iter([0.5, 0.7, 0.7, 0.2, 0.1])
    seen = []

    def evaluate(params):
        seen.append(jax.tree.map(np.array, params))
        return {"accuracy": next(scores)}

    result = run(evaluate=evaluate)
    assert [entry["step"] for entry in result.progress.history] == [2, 4, 6, 8, 9]
    assert (result.progress.best_step, result.progress.best_score) == (4, 0.7)
    jax.tree.map(np.testing.assert_array_equal, result.params, seen[1])


def test_every_example_counts_once_an_epoch(run, toy_table):
    assert run().progress.examples == 3 * len(toy_table)


def test_divergence_is_named(run):
    with pytest.raises(UserError, match=r"not finite.*learning-rate"):
        run(learning_rate=1e30)


def test_a_damaged_checkpoint_is_not_passed_over(run, tmp_path):
    stop = StopRequest()
    stop.requested = True
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:50])
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="cannot be read"):
        run(StopRequest(), checkpoints)
