"""Search models through the house's step and loop: they learn, and resume bit for bit."""

import functools

import jax
import numpy as np
import optax
import pytest
from searches import VOCABULARY, toy_table, true_scores

from distill_jax.core.mesh import make_mesh
from distill_jax.evaluation.search import Encoder, exact_top_k, retrieval_scores
from distill_jax.models.bert import BertConfig
from distill_jax.models.cross_encoder import CrossEncoder, CrossEncoderConfig
from distill_jax.models.two_tower import TwoTower, TwoTowerConfig, init_two_tower
from distill_jax.objectives.lists import resolve_lists
from distill_jax.teachers.pair_scores import PairScores
from distill_jax.training.checkpoint import Checkpoints
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import Interrupted, StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, train
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.state import init_state
from distill_jax.training.step import StepNumbers, make_step

TOWER = BertConfig(
    VOCABULARY,
    16,
    1,
    2,
    16,
    max_positions=8,
    pooling="mean",
    num_labels=16,
    dropout=0.1,
    initializer_range=0.3,
)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, warmup=0.0)


@functools.cache
def step_of(text, in_batch):
    """Objective, model and compiled step, once a structure."""
    objective = resolve_lists(text, list_size=6, teacher=True, in_batch=in_batch)
    model = TwoTower(TwoTowerConfig(TOWER))
    layout = Layout(make_mesh(jax.devices()[:1]))
    step = layout.compile(make_step(model, objective, make_optimizer(OPTIMIZER)))
    return objective, model, layout, step


def fitted(text, *, transfer=False, steps=60, stop_at=None, folder=None, in_batch=True):
    """A student trained on the toy's lists; stopped in order after ``stop_at`` steps."""
    table = toy_table(transfer=transfer)
    teacher = PairScores(table.candidates, true_scores(table.data, table.candidates.items_QM))
    objective, model, layout, step = step_of(text, in_batch)
    optimizer = make_optimizer(OPTIMIZER)
    feed = Feed(table, (4,), 8, 0, teacher=teacher, draws=table.draw)
    state = layout.new_state(
        jax.device_get(init_two_tower(model.config, jax.random.key(0))), {}, optimizer
    )
    stop = StopRequest()

    def on_log(done, values):
        if done == stop_at:
            stop.requested = True

    checkpoints = Checkpoints(folder) if folder else None
    result = train(
        state,
        step,
        feed,
        objective=objective,
        optimizer=OPTIMIZER,
        loop=LoopConfig(steps, steps, log_every=5, select=None),
        layout=layout,
        evaluate=lambda params: {},
        on_log=on_log,
        stop=stop,
        checkpoints=checkpoints,
    )
    return table, model, result.params


def found_by(table, model, params, split):
    encode = Encoder(model)
    rows = table.data.splits[split]
    queries = encode(params, table.queries.take(rows), "query")
    top, _ = exact_top_k(queries, encode(params, table.items, "item"), 6)
    return retrieval_scores(table.data, rows, top).means["recall@10"]


@pytest.mark.parametrize("text", ["ce", "kl", "margin_mse"])
def test_a_student_learns_what_its_queries_want(text):
    table, model, params = fitted(text, steps=60)
    assert found_by(table, model, params, "train") > 0.7  # chance: a quarter


def test_a_teacher_reaches_queries_without_judgements():
    def of_transfer(transfer):
        table, model, params = fitted("kl", transfer=transfer, in_batch=False)
        encode = Encoder(model)
        rows = table.data.splits["transfer"]
        items = encode(params, table.items, "item")
        scores = encode(params, table.queries.take(rows), "query") @ items.T
        wanted = np.array([table.data.queries[q].replace("q", "") for q in rows])
        best = np.array(table.data.items)[scores.argmax(axis=1)]
        return (wanted == best).mean()

    assert of_transfer(True) > of_transfer(False)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    _, _, whole = fitted("ce + kl", steps=20)
    with pytest.raises(Interrupted):
        fitted("ce + kl", steps=20, stop_at=10, folder=tmp_path)
    _, _, resumed = fitted("ce + kl", steps=20, folder=tmp_path)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        assert np.array_equal(one, other)


def test_a_batch_in_parts_has_the_same_gradients_across_lists():
    """The losses see the whole batch, so other lists' products are all there; so is dropout."""
    table = toy_table()
    teacher = PairScores(table.candidates, true_scores(table.data, table.candidates.items_QM))
    objective = resolve_lists(
        "ce + margin_mse", list_size=table.list_size, teacher=True, in_batch=True
    )
    model = TwoTower(TwoTowerConfig(TOWER))
    params = init_two_tower(model.config, jax.random.key(0))
    batch, said = Feed(table, (4,), 8, 0, teacher=teacher, draws=table.draw)(0)
    assert batch.other_where_BB.any()
    numbers = StepNumbers(objective.numbers(0, 1), np.float32(1), np.uint32(0))

    def updated(parts):
        step = jax.jit(make_step(model, objective, optax.identity(), accumulate=parts))
        return step(init_state(params, {}, optax.identity()), batch, said, numbers)[0].params

    for one, other in zip(*(jax.tree.leaves(updated(parts)) for parts in (1, 2)), strict=True):
        assert np.asarray(one) == pytest.approx(np.asarray(other), abs=1e-5)


def test_a_cross_encoder_learns_a_batch_by_heart():
    table = toy_table("pairs")
    bert = BertConfig(
        *(VOCABULARY, 16, 1, 2, 32, 8),
        **{"dropout": 0.0, "attention_dropout": 0.0, "initializer_range": 0.3},
        pooling="mean",
        num_labels=1,
    )
    model = CrossEncoder(CrossEncoderConfig(bert))
    objective = resolve_lists("ce", list_size=table.list_size, teacher=False)
    optimizer = make_optimizer(OPTIMIZER)
    layout = Layout(make_mesh(jax.devices()[:1]))
    feed = Feed(table, (4,), len(table), 0, draws=lambda batch, seed, step: table.draw(batch, 0, 0))
    params = model.init(jax.random.key(0), feed(0)[0])["params"]
    losses = []
    train(
        layout.new_state(jax.device_get(params), {}, optimizer),
        layout.compile(make_step(model, objective, optimizer)),
        feed,
        objective=objective,
        optimizer=OPTIMIZER,
        loop=LoopConfig(80, 80, log_every=20, select=None),
        layout=layout,
        evaluate=lambda params: {},
        on_log=lambda done, values: losses.append(values["train/loss"]),
        stop=StopRequest(),
    )
    assert losses[-1] < 0.5 * losses[0]
