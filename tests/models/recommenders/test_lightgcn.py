"""LightGCN: smoothed over the training part alone, a matrix factorisation in use."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recsys import fit, save_model, small_split
from safetensors.numpy import load_file, save_file

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.data.interaction_splits import leave_one_out
from distill_jax.data.interactions import Interactions, RankingSplit, histories_of
from distill_jax.data.load_interactions import load_ranking_split
from distill_jax.evaluation.open_recommender import open_recommender
from distill_jax.evaluation.score_histories import HistoryScorer
from distill_jax.models.recommenders import lightgcn
from distill_jax.models.recommenders.bpr_mf import BprMfConfig
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.save import load_recommender, recommender_digest
from distill_jax.objectives.items import resolve_ranking
from distill_jax.tasks.recommendation.build import build_recommender
from distill_jax.tasks.recommendation.cells import RecModel
from distill_jax.teachers.recommender_speaker import RecommenderSpeaker
from distill_jax.training.layout import Layout
from distill_jax.training.recommender import ADAM, FitConfig

LAYERS, WIDTH = 3, 8
NAME = f"lightgcn-{LAYERS}x{WIDTH}"


@pytest.fixture(scope="module")
def split():
    """Somebody takes an item twice, and there is a user whom training does not know."""
    whole = small_split()
    items_N = whole.data.items_N.copy()
    start = whole.data.offsets_U1[4]
    items_N[start + 1] = items_N[start]
    data = dataclasses.replace(whole.data, items_N=items_N, repeats=True)
    ends_U = whole.train_ends_U.copy()
    ends_U[2] = data.offsets_U1[2]
    return RankingSplit(data, ends_U, whole.validation, whole.test, whole.protocol)


@pytest.fixture(scope="module")
def model(split):
    recommender = build_recommender(RecModel(NAME, max_length=6), split, lambda: None)
    return recommender, recommender.init(jax.random.key(0))


def by_hand(split, params, num_layers=LAYERS):
    """The paper's matrix form (equations 6 to 8), dense: users and items in one adjacency."""
    data = split.data
    users, items = data.num_users, data.num_items
    adjacency = np.zeros((users + items, users + items))
    for user in range(users):
        for place in range(data.offsets_U1[user], split.train_ends_U[user]):
            item = users + data.items_N[place]
            adjacency[user, item] = adjacency[item, user] = 1
    degrees = adjacency.sum(axis=1)
    half = np.diag([degree**-0.5 if degree else 0.0 for degree in degrees])
    normal = half @ adjacency @ half
    first = np.concatenate([params["user_embedding"], params["items"]["embedding"]]).astype(float)
    layers = [np.linalg.matrix_power(normal, k) @ first for k in range(num_layers + 1)]
    final = np.mean(layers, axis=0)
    return final[:users], final[users:]


def test_smoothing_is_the_papers_matrix_product(split, model):
    recommender, params = model
    assert len(recommender.texts.edge_users_N) < split.train_where_N.sum()  # one edge a pair
    users_UD, items_ID = by_hand(split, params)
    used = recommender.params_in_use(params)
    np.testing.assert_allclose(used["user_embedding"], users_UD, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(used["items"]["embedding"], items_ID, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(recommender.item_vectors(params), items_ID, rtol=1e-4, atol=1e-7)


def test_scores_of_users_and_of_people_whom_nobody_knows(split, model):
    """Who has no vector is asked by the mean of what the history's items became."""
    recommender, params = model
    users_UD, items_ID = by_hand(split, params)
    rows = [[3, 1], [5], [3, 9, 1]]
    histories = histories_of(rows, split.data.num_items, [4, 7, -1])
    scores = np.asarray(HistoryScorer(recommender).of(params)(histories))
    queries = np.stack([users_UD[4], users_UD[7], items_ID[rows[2]].mean(axis=0)])
    np.testing.assert_allclose(scores, queries @ items_ID.T, rtol=1e-4, atol=1e-8)


def test_the_graph_knows_nothing_of_what_is_tested(split, model):
    recommender, params = model
    data, training = split.data, split.train_where_N
    moved_N = np.where(training, data.items_N, (data.items_N + 5) % data.num_items)
    other = dataclasses.replace(split, data=dataclasses.replace(data, items_N=moved_N))
    assert not np.array_equal(moved_N, data.items_N)
    again = build_recommender(RecModel(NAME, max_length=6), other, lambda: None)
    assert recommender_digest(again, params) == recommender_digest(recommender, params)


def test_neither_way_is_there_an_array_of_users_by_items():
    """In a large catalogue of which little was taken."""
    users, items, width = 300, 400, 4
    data = Interactions(
        name="sparse",
        user_names=tuple(f"u{n}" for n in range(users)),
        item_names=tuple(f"i{n}" for n in range(items)),
        item_texts=None,
        offsets_U1=np.arange(0, 5 * users + 1, 5),
        items_N=(np.arange(5 * users, dtype=np.int32) * 7) % items,
    )
    split = leave_one_out(data)
    texts = build_recommender(RecModel(f"lightgcn-2x{width}"), split, lambda: None).texts
    edges = len(texts.edge_users_N)

    def total(users_UD, items_ID):
        return jnp.sum(lightgcn.mean_of(lightgcn.smoothed(users_UD, items_ID, texts, 2))[0])

    vectors = jnp.ones((users, width)), jnp.ones((items, width))
    program = jax.make_jaxpr(jax.grad(total, argnums=(0, 1)))(*vectors)
    sizes = [value.aval.size for equation in program.eqns for value in equation.outvars]
    assert edges * width in sizes and max(sizes) <= 3 * edges * width < users * items


def test_in_use_it_is_a_matrix_factorisation(split, model):
    """Asked either way the answers are the same, and what is in use stays what it is."""
    recommender, params = model
    used, factors = recommender.in_use, recommender.params_in_use(params)
    assert type(used.config) is BprMfConfig and used.in_use is used
    assert used.params_in_use(factors) is factors
    batch = HistoryScorer(recommender).batch(histories_of([[3, 1], [2]], 17, [4, -1]))
    trained = recommender.apply({"params": params}, batch)
    answered = used.apply({"params": factors}, batch)
    for name in ("queries_BTD", "items_ID"):
        one, other = getattr(trained, name), getattr(answered, name)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-8)
    speaker = RecommenderSpeaker(recommender, params, 5)
    np.testing.assert_allclose(speaker.items_ID, answered.items_ID, rtol=1e-5, atol=1e-8)
    said = speaker(batch)
    np.testing.assert_array_equal(said.ids_BTK[:, -1], jax.lax.top_k(answered.scores, 5)[1])


def test_it_is_opened_as_it_was_saved(tmp_path):
    recommender, params = save_model(tmp_path, "lightgcn-2x8")
    split = small_split()
    scores = np.asarray(HistoryScorer(recommender).of(params)(split.test.histories(split.data)))
    opened = open_recommender(tmp_path)
    again = np.asarray(opened.model.scorer(split.test.histories(split.data)))
    np.testing.assert_array_equal(scores, again)
    assert len(opened.recommend("item 3; item 5", k=4)) == 4
    with pytest.raises(UserError, match="knows items by their numbers alone"):
        opened.recommend("item 3", new_items=("a new film",))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found.pop("edge_users_N"), "graph is missing"),
        (lambda found: found.update(edge_items_N=found["edge_items_N"][1:]), "no list of edges"),
        (lambda found: found.update(edge_users_N=found["edge_users_N"] + 90), "there are not"),
        (lambda found: found.update(edge_items_N=found["edge_items_N"] - 1), "there are not"),
        (
            lambda found: found.update(edge_users_N=found["edge_users_N"].astype(np.int64)),
            "there are not",
        ),
        (lambda found: found["edge_weights_N"].fill(np.nan), "no numbers"),
        (lambda found: found["edge_weights_N"].fill(1), "has changed since it was saved"),
    ],
)
def test_a_graph_that_is_none_is_told(tmp_path, change, told):
    save_model(tmp_path, "lightgcn-2x8")
    path = tmp_path / "model" / "item_texts.safetensors"
    found = {name: array.copy() for name, array in load_file(path).items()}
    change(found)
    save_file(found, path)
    with pytest.raises(UserError, match=told):
        load_recommender(tmp_path / "model")


def test_without_its_graph_or_all_vectors_it_is_refused(model):
    recommender, params = model
    with pytest.raises(UserError, match="reads the graph"):
        Recommender(recommender.config).item_vectors(params)
    few = dataclasses.replace(recommender.config.items, num_items=5)
    smaller = dataclasses.replace(
        recommender, config=dataclasses.replace(recommender.config, items=few)
    )
    batch = HistoryScorer(recommender).batch(histories_of([[3]], 17))
    with pytest.raises(ValueError, match="more than the 5 vectors"):
        smaller.apply({"params": smaller.init(jax.random.key(0))}, batch)
    with pytest.raises(UserError, match="num_layers"):
        dataclasses.replace(recommender.config, num_layers=0)


def test_it_learns_on_movielens(fetch_asset):
    """Eight steps over 98,114 edges: what users took rises above what they did not."""
    fetch_asset("movielens-100k")
    split = load_ranking_split("movielens-100k")
    recommender = build_recommender(RecModel("lightgcn-2x8", max_length=50), split, lambda: None)
    assert len(recommender.texts.edge_users_N) == split.train_where_N.sum() == 98_114
    training = FitConfig(
        epochs=1, batch_size=128, optimizer=dataclasses.replace(ADAM, learning_rate=0.1)
    )
    objective = resolve_ranking("bpr(n=1)", recommender.config.shape, positions=128 * 50)
    losses = []
    fit(
        recommender,
        split,
        objective,
        training,
        seed=0,
        layout=Layout(make_mesh(jax.devices()[:1])),
        evaluate=lambda params: {"ndcg@10": 0.0},
        log_every=1,
        on_log=lambda step, values: losses.append(values.get("train/loss")),
    )
    losses = [loss for loss in losses if loss is not None]
    assert losses[0] == pytest.approx(np.log(2), abs=1e-3) and losses[-1] < 0.5
