"""N steps are k steps, an end, and N - k steps: to the bit, for every loss and its parameters.

Here the end is a stop within the process; what SIGKILL does is in ``tests/engine/test_killed.py``.
"""

import random

import jax
import numpy as np
import pytest

from distill_jax.core.mesh import make_mesh
from distill_jax.core.types import Capture
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.objectives.registry import names
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

STEPS = 4
STUDENT = BertConfig(20, 8, 2, 2, 16, max_positions=16, dropout=0.1, pooling="mean")
TEACHER = BertConfig(20, 12, 2, 3, 24, max_positions=16, pooling="mean", initializer_range=0.3)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2)
TOGETHER = 8
"""Losses in one objective: they share a program, and each keeps its own parameters."""
NAMES = names("classes")
OBJECTIVES = [
    " + ".join(NAMES[first : first + TOGETHER]) for first in range(0, len(NAMES), TOGETHER)
]


@pytest.fixture(scope="module")
def speaker():
    layers = (1, 2)
    everything = Capture((0, *layers), layers, layers, layers, layers, layers)
    return LiveTeacher(Bert(TEACHER), init_bert(TEACHER, jax.random.key(1)), everything)


@pytest.mark.parametrize("text", OBJECTIVES)
def test_every_loss(text, toy_table, speaker, tmp_path):
    objective = resolve(text, STUDENT.shape, TEACHER.shape)
    optimizer = make_optimizer(OPTIMIZER)
    step = CompiledStep(make_step(Bert(STUDENT), objective, optimizer))
    ends = []

    def run(stop=None, checkpoints=None, on_log=lambda step, values: None):
        params = init_bert(STUDENT, jax.random.key(0))
        loss_params = objective.init_params(jax.random.key(2))

        def wrapped(state, *rest):
            state, metrics = step(state, *rest)
            ends.append(jax.tree.map(np.array, state))
            return state, metrics

        wrapped.traces, wrapped.prepare = 0, step.prepare
        return train(
            init_state(params, loss_params, optimizer),
            wrapped,
            Feed(toy_table, (10,), 16, 0, speaker),
            objective=objective,
            optimizer=OPTIMIZER,
            loop=LoopConfig(STEPS, eval_every=9, log_every=1, checkpoint_seconds=1e9),
            layout=Layout(make_mesh(jax.devices()[:1])),
            evaluate=lambda params: {"accuracy": 0.0},
            on_log=on_log,
            stop=stop or StopRequest(),
            checkpoints=checkpoints,
        )

    run()
    expected = ends[-1]
    stop, at = StopRequest(), random.Random(text).randint(1, STEPS - 1)

    def log(step, values):
        stop.requested = step == at

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        run(stop, checkpoints, log)
    taken = len(ends)
    with Checkpoints(tmp_path) as checkpoints:
        run(StopRequest(), checkpoints)
    assert len(ends) == taken + STEPS - at
    assert ends[-1].loss_params.keys() == objective.init_params(jax.random.key(2)).keys()
    jax.tree.map(np.testing.assert_array_equal, ends[-1], expected)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(expected))
