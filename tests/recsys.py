"""A world of interactions in small, for tests of recommenders."""

import jax
import numpy as np

from distill_jax.core.mesh import make_mesh
from distill_jax.data.histories import Draws, HistoryTable
from distill_jax.data.interaction_splits import leave_one_out
from distill_jax.data.interactions import Interactions
from distill_jax.data.plan import choose_lengths
from distill_jax.evaluation.audience import save_audience
from distill_jax.evaluation.item_catalogue import Catalogue, save_catalogue
from distill_jax.models.recommenders.build import Recommender, parse_model, recommender_family
from distill_jax.models.recommenders.occurring_items import OfRows
from distill_jax.models.recommenders.save import save_recommender
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts
from distill_jax.objectives.items import negatives_of, trained_on
from distill_jax.tasks.recommendation.runs import audience_of
from distill_jax.training.diagnose import make_diagnostics
from distill_jax.training.feed import Feed
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.layout import Layout
from distill_jax.training.loop import LoopConfig, train
from distill_jax.training.optimizer import make_optimizer
from distill_jax.training.step import make_step


def small_split(num_users=13, num_items=17, seed=0, most=12):
    """Users walk the catalogue in steps of one or two: what comes next can be learned."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, most + 1, num_users)
    lengths[:3] = 1, 3, most
    rows = [
        (rng.integers(num_items) + np.cumsum(np.append(0, rng.integers(1, 3, n - 1)))) % num_items
        for n in lengths
    ]
    data = Interactions(
        name="walks",
        user_names=tuple(f"user {n}" for n in range(num_users)),
        item_names=tuple(f"item {n}" for n in range(num_items)),
        item_texts=tuple(f"the film {n}" for n in range(num_items)),
        offsets_U1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items_N=np.concatenate(rows).astype(np.int32),
    )
    return leave_one_out(data)


def save_model(
    folder, name="sasrec-1x8", *, split=None, max_length=6, audience=True, text_vectors=None
):
    """A recommender that was never trained, as a finished run keeps it: ``folder/model``."""
    split = split or small_split()
    data = split.data
    model = parse_model(name)
    width, texts = 0, None
    if model.source != "id":
        if text_vectors is None:
            text_vectors = np.random.default_rng(0).normal(size=(data.num_items, 5))
        width = text_vectors.shape[1]
        texts = ItemTexts(vectors_IE=text_vectors.astype(np.float32))
    items = ItemConfig(
        data.num_items, model.width, model.source, text_width=width, initializer_range=0.5
    )
    family = recommender_family(model.kind)
    config = family.fitted(
        items, num_users=data.num_users, num_layers=model.layers, max_length=max_length, num_heads=2
    )
    recommender = Recommender(config, family.constants(texts, split))
    params = recommender.init(jax.random.key(1))
    if "item_bias" in params:  # begins as zeros
        params["item_bias"] = jax.random.normal(jax.random.key(2), (data.num_items,))
    save_recommender(folder / "model", recommender, params, data.item_names)
    save_catalogue(folder / "model", Catalogue(data.item_names, data.item_texts))
    if audience:
        save_audience(folder / "model", audience_of(split, recommender))
    return recommender, params


def feed_of(recommender, split, objective, config, *, seed, teacher=None):
    """The batches of a recommender's training."""
    task = recommender.config.task
    table = HistoryTable(split, task, recommender.config.max_length)
    lengths = choose_lengths(
        table.lengths_N, batch_size=config.batch_size, max_shapes=config.max_shapes
    )
    hiding = config.hiding if task == "hidden" else None
    draws = Draws(table, hiding, negatives_of(objective))
    return Feed(table, lengths, config.batch_size, seed, teacher, draws=draws)


def fit(
    recommender,
    split,
    objective,
    config,
    *,
    seed,
    evaluate,
    params=None,
    teacher=None,
    layout=None,
    stop=None,
    on_log=lambda step, values: None,
    checkpoints=None,
    say=lambda line: None,
    by_rows=None,
    **loop,
):
    """The house's loop around a recommender, without a table around it."""
    layout = layout or Layout(make_mesh())
    objective = trained_on(objective, split.train_counts_I)
    feed = feed_of(recommender, split, objective, config, seed=seed, teacher=teacher)
    key, optimizer = jax.random.key(seed), make_optimizer(config.optimizer)
    loss_params = objective.init_params(jax.random.fold_in(key, 1))
    step = make_step(
        OfRows(recommender) if by_rows else recommender,
        objective,
        optimizer,
        axis=layout.axis,
        gathered=layout.gathered,
    )
    step = by_rows.step(step) if by_rows else step
    params = recommender.init(key) if params is None else params
    return train(
        layout.new_state(
            params, loss_params, optimizer, None, by_rows.start(params) if by_rows else None
        ),
        layout.compile(step),
        feed,
        objective=objective,
        optimizer=config.optimizer,
        loop=LoopConfig(
            config.epochs * feed.steps_per_epoch,
            config.eval_every * feed.steps_per_epoch,
            select=config.select,
            **loop,
        ),
        layout=layout,
        evaluate=evaluate,
        on_log=on_log,
        stop=stop or StopRequest(),
        checkpoints=checkpoints,
        diagnostics=make_diagnostics(recommender, objective),
        say=say,
        by_rows=by_rows,
    )
