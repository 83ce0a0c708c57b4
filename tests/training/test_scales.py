"""Margins of free scores beside a teacher's probabilities are told of, in every task, in time."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recsys import fit, small_split
from searches import VOCABULARY, toy_table, true_scores

from distill_jax.core.mesh import make_mesh
from distill_jax.core.top_items import TopItems
from distill_jax.core.types import ModelOutput
from distill_jax.models.bert import BertConfig
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.sasrec import SasRecConfig
from distill_jax.models.recommenders.text_items import ItemConfig
from distill_jax.models.two_tower import TwoTower, TwoTowerConfig, init_two_tower
from distill_jax.objectives.items import resolve_ranking
from distill_jax.objectives.lists import resolve_lists
from distill_jax.teachers.pair_scores import PairScores
from distill_jax.training.diagnose import Diagnostics, make_diagnostics
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.recommender import FitConfig
from distill_jax.training.scales import warn_of_scales
from distill_jax.training.step import make_step

TOWER = BertConfig(VOCABULARY, 16, 1, 2, 16, max_positions=8, pooling="mean", num_labels=16)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup=0.0)
SCALES = (
    r"margin_mse: on the first batch the teacher's scores lie in \[0, 1\], .* and the student's"
    r", .* in \[-?[\d.e-]+, -?[\d.e-]+\]: no margin above 1 can be taught"
)


def one_device():
    return Layout(make_mesh(jax.devices()[:1]))


@pytest.mark.parametrize(("scale", "told"), [(1 / 3, 1), (1.0, 0)])
def test_search_tells_before_the_first_step(scale, told):
    table = toy_table()
    scores_QM = true_scores(table.data, table.candidates.items_QM) * np.float32(scale)
    objective = resolve_lists("ce + margin_mse", list_size=6, teacher=True)
    model, layout, optimizer = TwoTower(TwoTowerConfig(TOWER)), one_device(), OPTIMIZER
    params = jax.device_get(init_two_tower(model.config, jax.random.key(0)))
    events = []
    train(
        layout.new_state(params, {}, make_optimizer(optimizer)),
        layout.compile(make_step(model, objective, make_optimizer(optimizer))),
        Feed(table, (4,), 8, 0, teacher=PairScores(table.candidates, scores_QM), draws=table.draw),
        objective=objective,
        optimizer=optimizer,
        loop=LoopConfig(1, 1, log_every=1, select=None),
        layout=layout,
        evaluate=lambda params: {},
        on_log=lambda done, values: events.append(done),
        stop=StopRequest(),
        diagnostics=make_diagnostics(model, objective),
        say=events.append,
    )
    assert events[-1] == 1 and len(events) == told + 1
    assert not told or re.match(SCALES, events[0])


@pytest.mark.parametrize(
    ("text", "told"), [("full_softmax + margin_mse(top=3)", 1), ("kl(top=3)", 0)]
)
def test_recommenders_tell_before_the_first_step(text, told):
    split = small_split(num_users=40, num_items=12, most=10)
    student = Recommender(
        SasRecConfig(ItemConfig(split.data.num_items, 8), num_layers=1, max_length=8)
    )

    def teacher(batch):
        shape = (*batch.where_BT.shape, 3)
        likely = np.broadcast_to(np.float32([1, 0.3, 0]), shape)
        ids = np.broadcast_to(np.arange(3, dtype=np.int32), shape)
        rest = np.zeros(shape[:2], np.float32)
        return TopItems(ids, likely, rest, rest, np.asarray(batch.target_where_BT))

    events = []
    shape = student.config.shape
    fit(
        student,
        split,
        resolve_ranking(text, shape, shape, positions=16 * 8),
        FitConfig(epochs=1, batch_size=40, select="score"),
        seed=0,
        evaluate=lambda params: {"score": 0.0},
        teacher=teacher,
        layout=one_device(),
        log_every=1,
        on_log=lambda done, values: events.append(done),
        say=events.append,
    )
    lines = [event for event in events if isinstance(event, str)]
    assert len(lines) == told and events[0] in (1, *lines)
    assert not told or re.match(SCALES, lines[0])


@pytest.mark.parametrize(
    ("student", "teacher", "told"),
    [
        ([-3.0, 4.0], [0.2, 0.9], True),
        ([0.1, 0.8], [0.2, 0.9], False),  # both are probabilities
        ([-3.0, 4.0], [0.2, 1.5], False),
        ([-3.0, 4.0], [-0.1, 0.9], False),
    ],
)
def test_what_counts_is_the_range_of_both(student, teacher, told):
    """Rows of padding and scores that are not there have no range."""

    def says(scores):
        return ModelOutput(logits_BC=jnp.array([[*scores, -jnp.inf], [99.0, 99.0, 99.0]]))

    batch = SimpleNamespace(where_B=np.array([True, False]))
    objective = SimpleNamespace(terms=[SimpleNamespace(name="margin_mse", label="margin_mse_2")])
    diagnostics, lines = Diagnostics(finite=None, output=lambda params, batch: says(student)), []
    warn_of_scales(diagnostics, objective, {}, lambda step: (batch, says(teacher)), lines.append)
    assert len(lines) == told
    assert not told or (lines[0].startswith("margin_mse_2: ") and "[0.2, 0.9]" in lines[0])
    assert not told or "[-3, 4]" in lines[0]
