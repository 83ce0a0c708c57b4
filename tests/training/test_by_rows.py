"""Tables trained by rows end as whole tables do, on one device and on several."""

import dataclasses

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose
from recsys import feed_of, fit, small_split

from distill_jax.core.mesh import make_mesh
from distill_jax.models.recommenders.build import Recommender, recommender_family
from distill_jax.models.recommenders.occurring_items import OccurringItems, OfRows
from distill_jax.models.recommenders.text_items import ItemConfig
from distill_jax.objectives.items import looks_at_named, resolve_ranking
from distill_jax.training.by_rows import (
    ByRows,
    _moments,
    can_go_by_rows,
    moved_without_gradients,
)
from distill_jax.training.checkpoint import Checkpoints, Identity, Policy
from distill_jax.training.interrupt import Interrupted, StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig, make_optimizer
from distill_jax.training.recommender import FitConfig
from distill_jax.training.step import make_step

ITEMS, BATCH, LENGTH = 96, 8, 6
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2, schedule="linear", warmup=0.1, weight_decay=0.0, clip_norm=0.5
)
CONFIG = FitConfig(epochs=8, eval_every=4, batch_size=BATCH, optimizer=OPTIMIZER)


@pytest.fixture(scope="module")
def split():
    return small_split(num_users=40, num_items=ITEMS, most=8)


@pytest.fixture(scope="module")
def recommender():
    items = ItemConfig(ITEMS, 8)
    family = recommender_family("sasrec")
    return Recommender(
        family.fitted(items, num_layers=1, max_length=LENGTH, num_heads=1, dropout=0.1)
    )


@pytest.fixture(scope="module")
def objective(recommender):
    shape = recommender.config.shape
    return resolve_ranking("sampled_softmax(n=2)", shape, positions=BATCH * LENGTH)


def by_rows_of(recommender):
    params = jax.eval_shape(recommender.init, jax.random.key(0))
    return ByRows(
        OccurringItems.tables(params),
        OPTIMIZER,
        OccurringItems(recommender.config.num_items).renumber,
    )


@pytest.fixture(scope="module")
def trained(split, recommender, objective):
    """Trains, and gives the parameters with the scores' steps."""

    def run(*, rows, layout=None, evaluated=None, **more):
        def evaluate(params):
            table = np.asarray(params["items"]["embedding"])
            if evaluated is not None:
                evaluated.append(table)
            return {"ndcg@10": float(np.square(table).sum())}  # grows: the last step is the best

        by_rows = by_rows_of(recommender) if rows else None
        layout = layout or Layout(make_mesh(jax.devices()[:1]))
        return fit(
            recommender,
            split,
            objective,
            CONFIG,
            seed=0,
            evaluate=evaluate,
            layout=layout,
            by_rows=by_rows,
            **more,
        ).params

    return run


@pytest.fixture(scope="module")
def whole(trained):
    return trained(rows=False)


def close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for path, value in jax.tree_util.tree_leaves_with_path(expected):
        if "key" not in str(path) or "bias" not in str(path):  # whose gradient is 0 but for noise
            other = dict(jax.tree_util.tree_leaves_with_path(found))[path]
            assert_allclose(other, value, atol=3e-6, err_msg=str(path))


def test_it_ends_as_the_whole_table_does(trained, whole):
    evaluated = []
    close(trained(rows=True, evaluated=evaluated), whole)
    assert len(evaluated) == 2


def test_some_rows_have_to_be_made_up_for(split, recommender, objective):
    """Else the test above would test nothing."""
    feed = feed_of(recommender, split, objective, CONFIG, seed=0)
    named = [OccurringItems(ITEMS).renumber(*feed(step))[0].rows_BC for step in range(20)]
    touched = np.stack([np.isin(np.arange(ITEMS), rows) for rows in named])
    assert 0.05 < touched.mean() < 0.95
    gaps = touched.argmax(axis=0)
    assert gaps.max() > 3  # rows that wait for steps


def test_on_several_devices_the_table_is_cut(trained, whole, recommender, objective, split):
    layout = Layout(make_mesh(jax.devices()[:8], fsdp=8))
    close(trained(rows=True, layout=layout), whole)
    by_rows, optimizer = by_rows_of(recommender), make_optimizer(OPTIMIZER)
    params = recommender.init(jax.random.key(0))
    state = layout.new_state(params, {}, optimizer, None, by_rows.start(params))
    for moment in (state.params, *_moments(state.opt_state)):
        shards = moment["items"]["embedding"].addressable_shards
        assert {part.data.shape for part in shards} == {(ITEMS, 1)}
    batch, _ = by_rows.read(*feed_of(recommender, split, objective, CONFIG, seed=0)(0))
    numbers = step_numbers(objective, OPTIMIZER, 0, 0, 1)
    given = (*layout.put_batch(batch, None), layout.put_numbers(numbers))
    step = make_step(OfRows(recommender), objective, optimizer, gathered=layout.gathered)
    program = jax.jit(by_rows.step(step)).lower(state, *given).compile().as_text()
    assert f"f32[{ITEMS},1]" in program and f"f32[{ITEMS},8]" not in program  # nowhere whole


def test_it_goes_on_bit_for_bit(trained, tmp_path):
    uninterrupted = trained(rows=True)

    stop = StopRequest()

    def on_log(step, values):
        stop.requested = step >= 20

    def checkpoints():
        return Checkpoints(tmp_path, Identity("run", {}), Policy(), lambda line: None)

    with checkpoints() as kept, pytest.raises(Interrupted):
        trained(rows=True, checkpoints=kept, stop=stop, on_log=on_log)
    with checkpoints() as kept:
        again = trained(rows=True, checkpoints=kept)
    jax.tree.map(np.testing.assert_array_equal, again, uninterrupted)


@pytest.mark.parametrize("start", [0, 700])
def test_movement_is_that_of_adam(start):
    """Against Adam itself with gradients of 0, from any step on, with any epsilon."""
    rng = np.random.default_rng(start)
    config = dataclasses.replace(OPTIMIZER, eps=1e-4)
    mean, square = rng.normal(size=(3, 2)) * 1e-3, np.square(rng.normal(size=(3, 2)) * 1e-3)
    mean[1] = 0
    mean, square = mean.astype(np.float32), square.astype(np.float32)
    rates = rng.uniform(1e-3, 1e-2, start + 90).astype(np.float32)
    since = np.array([start, start, start + 60], np.int32) + 10
    now = start + 90
    arrays = map(jax.numpy.asarray, (mean, square, since, np.int32(now), rates))
    found = moved_without_gradients(*arrays, config, longest=154)
    expected = np.zeros_like(mean, np.float64)
    for row in range(3):
        m, v = mean[row].astype(np.float64), square[row].astype(np.float64)
        for update in range(since[row] + 1, now + 1):
            m, v = config.b1 * m, config.b2 * v
            m_hat, v_hat = m / (1 - config.b1**update), v / (1 - config.b2**update)
            expected[row] += rates[update - 1] * m_hat / (np.sqrt(v_hat) + config.eps)
    assert_allclose(found, expected, rtol=2e-4)
    assert (np.asarray(found)[1] == 0).all()


def test_after_some_steps_a_row_stands_still():
    by_rows = ByRows((), OPTIMIZER, lambda batch, said: (batch, said))
    assert by_rows.longest == 154
    assert (0.9 / np.sqrt(0.999)) ** by_rows.longest < 1e-7


@pytest.mark.parametrize(
    ("changed", "can"),
    [
        ({}, True),
        ({"weight_decay": 0.1}, False),
        ({"rates": (("items", 0.5),)}, False),
        ({"b1": 0.0}, False),
        ({"b1": 0.99, "b2": 0.9}, False),
    ],
)
def test_which_optimisers_can(changed, can):
    assert can_go_by_rows(dataclasses.replace(OPTIMIZER, **changed)) is can


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sampled_softmax(n=2)", True),
        ("bpr + hidden_mse", True),
        ("bpr + kl(T=2, tail=False, top=5)", True),
        ("bpr + kl(T=2, top=5)", False),
        ("bpr + kl(T=2, top=5, strata=2)", True),
        ("full_softmax", False),
    ],
)
def test_which_losses_look_at_named_items_alone(recommender, text, named):
    shape = recommender.config.shape
    objective = resolve_ranking(text, shape, shape, positions=BATCH * LENGTH)
    assert looks_at_named(objective) is named
