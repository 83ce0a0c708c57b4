"""Recommenders through the house's loop: they learn, go on exactly, and run on many devices."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from recsys import feed_of, fit, small_split

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.data.histories import Hiding
from distill_jax.evaluation.recommend import evaluate
from distill_jax.evaluation.score_histories import HistoryScorer
from distill_jax.models.family import family_of
from distill_jax.models.recommenders.bert4rec import Bert4RecConfig
from distill_jax.models.recommenders.bpr_mf import BprMfConfig
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.gru4rec import Gru4RecConfig
from distill_jax.models.recommenders.lightgcn import LightGcnConfig
from distill_jax.models.recommenders.sasrec import SasRecConfig
from distill_jax.models.recommenders.text_items import ItemConfig
from distill_jax.objectives.items import resolve_ranking
from distill_jax.training.checkpoint import Checkpoints
from distill_jax.training.interrupt import Interrupted, StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import make_optimizer, static_part
from distill_jax.training.recommender import ADAM, FitConfig
from distill_jax.training.step import make_step

LENGTH, WIDTH = 8, 8
FAST = dataclasses.replace(ADAM, learning_rate=2e-2)
LEARN = FitConfig(
    epochs=40,
    eval_every=20,
    batch_size=16,
    optimizer=FAST,
    hiding=Hiding(0.3, 0.5),
    select="hr@3",
)


@pytest.fixture(scope="module")
def split():
    return small_split(num_users=40, num_items=12, most=10)


@functools.cache
def model_of(name, split, dropout=0.0):
    items = ItemConfig(split.data.num_items, WIDTH)
    given = {"num_layers": 1, "max_length": LENGTH, "dropout": dropout}
    config = {
        "sasrec": lambda: SasRecConfig(items, **given, attention_dropout=dropout),
        "gru4rec": lambda: Gru4RecConfig(items, **given),
        "bert4rec": lambda: Bert4RecConfig(items, **given, attention_dropout=dropout),
        "bpr_mf": lambda: BprMfConfig(items, split.data.num_users, LENGTH),
        "lightgcn": lambda: LightGcnConfig(items, split.data.num_users, 2, LENGTH),
    }[name]()
    return Recommender(config, family_of(config).constants(None, split))


def objective_of(recommender, text):
    return resolve_ranking(text, recommender.config.shape, positions=16 * LENGTH, rows=32)


def one_device():
    return Layout(make_mesh(jax.devices()[:1]))


@pytest.mark.parametrize(
    "name, text, least",
    [
        ("sasrec", "full_softmax", 0.6),
        ("gru4rec", "sampled_softmax(n=4)", 0.6),
        ("bert4rec", "full_softmax(label_smoothing=0.05)", 0.6),
        ("bpr_mf", "bpr(n=1)", None),
    ],
)
def test_each_model_learns_what_can_be_learned(split, name, text, least):
    """The next item is one of two in twelve, equally often; by chance it is among the first
    three a quarter of the time. Matrix factorisation sees no order: its loss falls."""
    recommender, losses = model_of(name, split), []
    scorer = HistoryScorer(recommender)

    def validate(params):
        return evaluate(scorer.of(params), split, "validation", ks=(3,)).metrics

    result = fit(
        recommender,
        split,
        objective_of(recommender, text),
        LEARN,
        seed=0,
        evaluate=validate,
        layout=one_device(),
        log_every=3,
        on_log=lambda step, values: losses.append(values.get("train/loss")),
    )
    if least is None:
        first, *_, last = [loss for loss in losses if loss is not None]
        assert last < 0.7 * first
    else:
        test = evaluate(scorer.of(result.params), split, "test", ks=(3,)).metrics
        assert test["hr@3"] > least
        assert result.progress.best_score == max(h["hr@3"] for h in result.progress.history)


@pytest.mark.parametrize(
    "name, text",
    [("sasrec", "full_softmax"), ("bert4rec", "bpr(n=2)"), ("lightgcn", "bpr(n=1)")],
)
def test_an_interrupted_run_is_the_same_run(split, name, text, tmp_path):
    """With dropout, hiding and negatives: all are functions of seed and step."""
    recommender = model_of(name, split, 0.3)
    objective = objective_of(recommender, text)
    config = FitConfig(epochs=2, batch_size=16, select="score")

    def go(stop=None, checkpoints=None, on_log=lambda step, values: None):
        return fit(
            recommender,
            split,
            objective,
            config,
            seed=3,
            evaluate=lambda params: {"score": float(params["items"]["embedding"][0, 0])},
            layout=one_device(),
            on_log=on_log,
            stop=stop,
            checkpoints=checkpoints,
            log_every=1,
            checkpoint_seconds=0,
        )

    whole, seen = [], []
    expected = go(on_log=lambda step, values: whole.append((step, values)))
    stop = StopRequest()

    def log(step, values):
        seen.append((step, values))
        stop.requested = step == 4 and len(seen) < 7

    with Checkpoints(tmp_path) as checkpoints, pytest.raises(Interrupted):
        go(stop, checkpoints, log)
    stop.requested = False
    with Checkpoints(tmp_path) as checkpoints:
        resumed = go(StopRequest(), checkpoints, lambda step, values: seen.append((step, values)))
    assert seen == whole
    jax.tree.map(np.testing.assert_array_equal, resumed.params, expected.params)


def two_steps(split, layout, accumulate=1, text="full_softmax + bpr(n=2)"):
    recommender = model_of("bert4rec", split, 0.3)  # item biases too
    objective, config = objective_of(recommender, text), FitConfig(batch_size=16, optimizer=FAST)
    feed = feed_of(recommender, split, objective, config, seed=1)
    optimizer = make_optimizer(static_part(FAST))
    state = layout.new_state(recommender.init(jax.random.key(0)), {}, optimizer)
    step = layout.compile(
        make_step(
            recommender,
            objective,
            optimizer,
            accumulate=accumulate,
            axis=layout.axis,
            gathered=layout.gathered,
        )
    )
    for number in (0, feed.steps_per_epoch - 1):  # the last batch is not full
        numbers = step_numbers(objective, FAST, 1, number, 10)
        given = (*layout.put_batch(*feed(number)), layout.put_numbers(numbers))
        state, metrics = step(state, *given)
    return jax.device_get((state.params, metrics))


@pytest.fixture(scope="module")
def alone(split):
    return two_steps(split, one_device())


@pytest.mark.parametrize(
    "layout, accumulate",
    [
        (lambda: Layout(make_mesh()), 1),
        (lambda: Layout(make_mesh(jax.devices()[:4], fsdp=2)), 1),
        (one_device, 4),
        (lambda: Layout(make_mesh(jax.devices()[:2]), "pmap"), 2),
    ],
    ids=["mesh", "fsdp", "parts", "pmap"],
)
def test_every_way_of_running_a_step_gives_one_result(split, alone, layout, accumulate):
    params, metrics = two_steps(split, layout(), accumulate)
    expected, told = alone
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), params, expected
    )
    np.testing.assert_allclose(metrics.loss, told.loss, rtol=1e-5)
    np.testing.assert_allclose(metrics.grad_norm, told.grad_norm, rtol=1e-4)


def test_what_goes_wrong_is_named(split):
    recommender = model_of("sasrec", split)
    params = recommender.init(jax.random.key(0))
    params["items"]["embedding"] = params["items"]["embedding"].at[3].set(np.nan)
    with pytest.raises(UserError, match=r"step 1: full_softmax not finite on examples? user \d+"):
        fit(
            recommender,
            split,
            objective_of(recommender, "full_softmax"),
            FitConfig(epochs=1, batch_size=16, select="score"),
            seed=0,
            evaluate=lambda params: {"score": 0.0},
            params=params,
            layout=one_device(),
        )


def test_mistakes_are_told():
    for wrong in ({"epochs": 0}, {"batch_size": -1}, {"hiding": 0.3}):
        with pytest.raises(UserError):
            FitConfig(**wrong)


@pytest.mark.parametrize("items, moves", [("all", True), ("trained", False)])
def test_vectors_of_items_nobody_took_stay_where_they_were_if_asked(items, moves):
    sparse = small_split(num_users=9, num_items=40, most=6)
    unseen_I = sparse.train_counts_I == 0
    assert unseen_I.any() and not unseen_I.all()
    recommender = model_of("sasrec", sparse)
    objective = objective_of(recommender, f"full_softmax(items='{items}', label_smoothing=0.1)")
    start = recommender.init(jax.random.key(0))
    result = fit(
        recommender,
        sparse,
        objective,
        dataclasses.replace(LEARN, epochs=2, eval_every=2),
        seed=0,
        evaluate=lambda params: {"hr@3": 0.0},
        params=start,
        layout=one_device(),
    )
    before, after = (np.asarray(recommender.item_vectors(p)) for p in (start, result.params))
    assert (before[unseen_I] != after[unseen_I]).any() == moves
    assert (before[~unseen_I] != after[~unseen_I]).any()
