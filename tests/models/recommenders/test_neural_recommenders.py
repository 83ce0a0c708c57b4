"""SASRec, GRU4Rec, BERT4Rec and matrix factorisation: shapes, causality, padding, gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, scores_last
from distill_jax.models.bert import BertConfig
from distill_jax.models.family import family_of
from distill_jax.models.recommenders.bert4rec import Bert4RecConfig
from distill_jax.models.recommenders.bpr_mf import BprMfConfig
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.gru4rec import Gru4RecConfig
from distill_jax.models.recommenders.lightgcn import LightGcnConfig
from distill_jax.models.recommenders.sasrec import SasRecConfig
from distill_jax.models.recommenders.save import (
    config_from_json,
    config_to_json,
    load_recommender,
    save_recommender,
)
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts, ItemVectors

ITEMS, D, U = 11, 8, 5
TOWER = BertConfig(20, 6, 1, 2, 12, max_positions=6)
SOURCES = {
    "id": {},
    "vectors": {"source": "text", "text_width": 4},
    "both": {"source": "both", "text_width": 4},
    "tower": {"source": "text", "tower": TOWER},
}
MODELS = {
    "sasrec": lambda items: SasRecConfig(items, max_length=10),
    "gru4rec": lambda items: Gru4RecConfig(items, num_layers=2, max_length=10),
    "bert4rec": lambda items: Bert4RecConfig(items, max_length=10),
    "bpr_mf": lambda items: BprMfConfig(items, U, max_length=10),
    "lightgcn": lambda items: LightGcnConfig(items, U, num_layers=2, max_length=10),
}
PAIRS = [(name, "id") for name in MODELS] + [
    ("sasrec", "vectors"),
    ("sasrec", "both"),
    ("gru4rec", "tower"),
    ("bert4rec", "both"),
    ("bpr_mf", "vectors"),
    ("lightgcn", "both"),
]
"""Every model, every way of making item vectors, and item biases of new items."""
SEQUENTIAL = ("sasrec", "gru4rec", "bert4rec")


def texts_of(source, num_items=ITEMS):
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 6, num_items)
    if source == "id":
        return None
    if source != "tower":
        return ItemTexts(vectors_IE=rng.standard_normal((num_items, 4)).astype(np.float32))
    return ItemTexts(
        tokens_IL=rng.integers(0, 20, (num_items, 6)).astype(np.int32),
        where_IL=np.arange(6)[None] < lengths[:, None],
    )


class Walks:
    """Users who took item after item, each of which somebody took."""

    def train_matrix(self):
        rows, columns = np.repeat(np.arange(U), 4), np.arange(4 * U) % ITEMS
        return sparse.csr_array((np.ones(4 * U, np.float32), (rows, columns)), (U, ITEMS))


@functools.cache
def model_of(name, source="id", seed=0):
    config = MODELS[name](ItemConfig(ITEMS, D, **SOURCES[source]))
    texts = family_of(config).constants(texts_of(source), Walks())
    recommender = Recommender(config, texts)
    return recommender, recommender.init(jax.random.key(seed))


@functools.cache
def compiled(recommender):
    return jax.jit(lambda params, batch: recommender.apply({"params": params}, batch))


def say(recommender, params, batch):
    return compiled(recommender)(params, batch)


def batch_of(rows, length=6, users=None):
    """Left-padded histories of item numbers + 1."""
    ids = np.zeros((len(rows), length), np.int32)
    for row, items in zip(ids, rows, strict=True):
        row[length - len(items) :] = items
    where = ids > 0
    users = np.arange(len(rows), dtype=np.int32) if users is None else np.asarray(users, np.int32)
    return HistoryBatch(*map(jnp.asarray, (users, ids, where, np.zeros_like(ids), where)))


ROWS = [[3, 1, 4, 1, 5], [9, 2], [6]]


@pytest.mark.parametrize("name, source", PAIRS)
def test_shapes_and_dtypes(name, source):
    recommender, params = model_of(name, source)
    output = say(recommender, params, batch_of(ROWS))
    assert output.queries_BTD.shape == (3, 6, D) and output.items_ID.shape == (ITEMS, D)
    assert scores_last(output).shape == (3, ITEMS)
    layers = recommender.config.num_layers
    assert sorted(output.hidden_states) == list(range(layers + 1))
    assert all(hidden.shape == (3, 6, D) for hidden in output.hidden_states.values())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((output, params)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(output))
    assert recommender.config.shape.num_labels == ITEMS
    ready = recommender.item_vectors(jax.tree.map(np.asarray, params))
    again = recommender.apply({"params": params}, batch_of(ROWS), items_ID=ready)
    if recommender.in_use is not recommender:  # of other layers, with a bias that is 0
        assert not again.item_bias_I.any()
        again, output = (x.replace(hidden_states={}, item_bias_I=None) for x in (again, output))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), again, output)


@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_a_later_item_changes_nothing_earlier(name):
    recommender, params = model_of(name)
    one = say(recommender, params, batch_of([[3, 1, 4, 1, 5, 9]]))
    for place in range(1, 6):
        items = [3, 1, 4, 1, 5, 9]
        items[place] = 2
        other = say(recommender, params, batch_of([items]))
        before = np.abs(one.queries_BTD - other.queries_BTD)[0].max(axis=-1)
        np.testing.assert_array_equal(before[:place], 0)
        assert before[place] > 1e-4  # and the place itself does change


def test_bert4rec_looks_both_ways():
    recommender, params = model_of("bert4rec")
    one = say(recommender, params, batch_of([[3, 1, ITEMS + 1, 1, 5]]))
    other = say(recommender, params, batch_of([[3, 1, ITEMS + 1, 1, 2]]))
    assert np.abs(one.queries_BTD - other.queries_BTD)[0, 3].max() > 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_nothing(name):
    """Neither columns nor rows of it, nor what the other rows are."""
    recommender, params = model_of(name)
    whole = say(recommender, params, batch_of(ROWS))
    padded = batch_of([*ROWS, []], length=9, users=[0, 1, 2, -1])
    wide = say(recommender, params, padded)
    for row, items in enumerate(ROWS):
        own = slice(-len(items), None)
        np.testing.assert_allclose(
            whole.queries_BTD[row, own], wide.queries_BTD[row, own], rtol=1e-5, atol=1e-6
        )
    alone = say(recommender, params, batch_of(ROWS[1:2], 2, users=[1]))
    np.testing.assert_allclose(
        whole.queries_BTD[1, -2:], alone.queries_BTD[0], rtol=1e-5, atol=1e-6
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(wide))


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_the_order_matters(name):
    recommender, params = model_of(name)
    scores = scores_last(say(recommender, params, batch_of([[3, 1, 4], [1, 3, 4]])))
    assert np.abs(scores[0] - scores[1]).max() > 1e-6


@pytest.mark.parametrize("name, source", PAIRS)
def test_gradients_reach_every_parameter(name, source):
    recommender, params = model_of(name, source)
    params = jax.tree.map(
        lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params
    )
    rows = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [7, ITEMS + 1 if name == "bert4rec" else 8, 10]]

    def total(params):
        output = recommender.apply({"params": params}, batch_of(rows, 10))
        logits_BTI = output.queries_BTD @ output.items_ID.T
        if output.item_bias_I is not None:
            logits_BTI = logits_BTI + output.item_bias_I[None, None]
        picks = jnp.sin(jnp.arange(logits_BTI.size, dtype=jnp.float32)).reshape(logits_BTI.shape)
        return jnp.sum(jax.nn.log_softmax(logits_BTI) * picks)

    grads = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(total))(params))
    silent = [jax.tree_util.keystr(path) for path, leaf in grads if not np.abs(leaf).max() > 0]
    # A key's bias shifts all scores of a query alike, which the softmax does not see.
    assert [path for path in silent if not ("key" in path and "bias" in path)] == []


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_dropout_needs_training_and_its_key(name):
    recommender, params = model_of(name)

    @functools.partial(jax.jit, static_argnames="train")
    def say(seed=0, train=True):
        rngs = {"dropout": jax.random.key(seed)} if train else None
        return recommender.apply({"params": params}, batch_of(ROWS), train=train, rngs=rngs)

    assert np.abs(say(0).queries_BTD - say(1).queries_BTD).max() > 0
    np.testing.assert_array_equal(say(0).queries_BTD, say(0).queries_BTD)
    np.testing.assert_array_equal(say(train=False).queries_BTD, say(train=False).queries_BTD)
    np.testing.assert_array_equal(say(0).items_ID, say(train=False).items_ID)


def test_the_gru_is_its_formulas():
    recommender, params = model_of("gru4rec")
    config = dataclasses.replace(recommender.config, num_layers=1)
    recommender = Recommender(config)
    params = recommender.init(jax.random.key(2))
    output = say(recommender, params, batch_of([[3, 1, 4]]))
    own = jax.tree.map(np.asarray, params["layer_1"])
    state = np.zeros(D)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for item in (3, 1, 4):
        x = np.asarray(params["items"]["embedding"])[item - 1] * np.sqrt(D)
        given = x @ own["input"]["kernel"] + own["input"]["bias"]
        before = state @ own["recurrent_kernel"]
        r, z = (sigmoid((given + before)[k * D : (k + 1) * D]) for k in (0, 1))
        new = np.tanh(given[2 * D :] + r * (before[2 * D :] + own["recurrent_bias"]))
        state = (1 - z) * new + z * state
    np.testing.assert_allclose(output.hidden_states[1][0, -1], state, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name, source", [pair for pair in PAIRS if pair[1] != "id" and pair[0] != "lightgcn"]
)
def test_items_nobody_has_seen_are_scored_by_their_text(name, source):
    """The old items' scores stay as they are, and a new item of equal text has equal text part."""
    recommender, params = model_of(name, source)
    texts = texts_of(source)
    more = ItemTexts(
        **{key: np.concatenate([x, x[2:4]]) for key, x in vars(texts).items() if x is not None}
    )
    wider = dataclasses.replace(recommender, texts=more)
    batch = batch_of(ROWS)
    old = scores_last(say(recommender, params, batch))
    new = scores_last(wider.apply({"params": params}, batch))
    assert new.shape == (3, ITEMS + 2)
    np.testing.assert_allclose(new[:, :ITEMS], old, rtol=1e-5, atol=1e-6)
    if source != "both":
        np.testing.assert_allclose(new[:, ITEMS:], old[:, 2:4], rtol=1e-5, atol=1e-6)
    else:
        vectors = wider.item_vectors(params)
        own = params["items"]["embedding"][2:4]
        np.testing.assert_allclose(vectors[ITEMS:], vectors[2:4] - own, rtol=1e-5, atol=1e-6)


def test_a_user_without_a_vector_gets_the_mean_of_the_items():
    recommender, params = model_of("bpr_mf")
    output = say(recommender, params, batch_of([[3, 1], [3, 1]], users=[1, U]))
    np.testing.assert_array_equal(output.queries_BTD[0, -1], params["user_embedding"][1])
    items = params["items"]["embedding"]
    np.testing.assert_allclose(output.queries_BTD[1, -1], (items[2] + items[0]) / 2, rtol=1e-6)


@pytest.mark.parametrize("name, source", PAIRS)
def test_a_saved_recommender_is_the_same(name, source, tmp_path):
    recommender, params = model_of(name, source)
    names = tuple(f"item {n}" for n in range(ITEMS))
    save_recommender(tmp_path / "model", recommender, params, names)
    saved = load_recommender(tmp_path / "model")
    assert saved.item_names == names and saved.recommender.config == recommender.config
    jax.tree.map(np.testing.assert_array_equal, saved.params, params)
    jax.tree.map(np.testing.assert_array_equal, saved.recommender.texts, recommender.texts)


def test_a_damaged_folder_is_told(tmp_path):
    recommender, params = model_of("sasrec")
    names = tuple(map(str, range(ITEMS)))
    folder = tmp_path / "model"
    save_recommender(folder, recommender, params, names)
    with pytest.raises(UserError, match="not empty"):
        save_recommender(folder, recommender, params, names)
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"dropout": 0.2', '"dropout": 0.3'))
    with pytest.raises(UserError, match="has changed since it was saved"):
        load_recommender(folder)
    (folder / "config.json").write_text(text.replace('"max_length": 10', '"max_length": 12'))
    with pytest.raises(UserError, match="does not hold the parameters"):
        load_recommender(folder)
    (folder / "config.json").write_text(text.replace('"num_layers"', '"layers"'))
    with pytest.raises(UserError, match="is damaged"):
        load_recommender(folder)
    (folder / "config.json").write_text(text)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UserError, match="is damaged or not a safetensors file"):
        load_recommender(folder)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ItemConfig(0, 8), "at least 1"),
        (lambda: ItemConfig(3, 8, "text"), "need either text_width or a tower"),
        (lambda: ItemConfig(3, 8, "id", text_width=4), "need no text"),
        (lambda: ItemConfig(3, 8, "words"), "words"),
        (lambda: SasRecConfig(ItemConfig(3, 8), num_heads=3), "not a multiple"),
        (lambda: SasRecConfig(ItemConfig(3, 8), num_layers=0), "at least 1"),
        (lambda: SasRecConfig(ItemConfig(3, 8), expansion=0), "expansion"),
        (lambda: Gru4RecConfig(ItemConfig(3, 8), dropout=1.0), "dropout"),
        (lambda: BprMfConfig(ItemConfig(3, 8), 0), "at least 1"),
    ],
)
def test_impossible_configs_are_errors(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_wrong_texts_and_too_long_histories_are_errors():
    recommender, params = model_of("sasrec", "vectors")
    for texts in (None, ItemTexts(vectors_IE=np.zeros((ITEMS, 5), np.float32))):
        with pytest.raises(UserError, match="text vectors of width 4"):
            dataclasses.replace(recommender, texts=texts).apply({"params": params}, batch_of(ROWS))
    recommender, params = model_of("sasrec")
    with pytest.raises(UserError, match="positions for 10"):
        say(recommender, params, batch_of(ROWS, 11))


def vectors_of(source, texts, given, seed=0):
    config = ItemConfig(
        3,
        8,
        source,
        text_width=0 if texts is None else texts.shape[1],
        given_width=0 if given is None else given.shape[1],
    )
    module, known = ItemVectors(config), ItemTexts(vectors_IE=texts, given_IV=given)
    params = module.init(jax.random.key(seed), known)["params"]
    return lambda known: np.asarray(module.apply({"params": params}, known)), params


@pytest.mark.parametrize("source", ["id", "text", "both", "vectors"])
def test_given_vectors_alone_and_beside(source):
    """What items have of their own, of texts and of given vectors is summed."""
    rng = np.random.default_rng(0)
    texts = np.float32(rng.normal(size=(5, 4))) if source in ("text", "both") else None
    texts_3 = None if texts is None else texts[:3]
    given = np.float32(rng.normal(size=(5, 2)))
    made, params = vectors_of(source, texts_3, given[:3])
    assert {"given_inner", "given_outer"} <= params.keys()
    whole = made(ItemTexts(vectors_IE=texts, given_IV=given))
    assert whole.shape == (5, 8)
    other = given.copy()
    other[1] += 1
    changed = made(ItemTexts(vectors_IE=texts, given_IV=other))
    np.testing.assert_array_equal(np.flatnonzero((changed != whole).any(axis=1)), [1])
    if source == "id":
        alone = ItemVectors(ItemConfig(3, 8, "vectors", given_width=2))
        rest = np.asarray(alone.apply({"params": params}, ItemTexts(given_IV=given)))
        own = np.pad(np.asarray(params["embedding"]), ((0, 2), (0, 0)))
        np.testing.assert_allclose(whole, rest + own, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="reads given vectors of width 2, got none"):
        made(ItemTexts(vectors_IE=texts))
    if source != "vectors":
        with pytest.raises(UserError, match=r"2 vectors (for a catalogue of 3|of) items"):
            made(ItemTexts(vectors_IE=texts, given_IV=given[:2]))


def test_a_config_without_given_vectors_is_called_as_before():
    """Saved models and caches keep their digests."""
    raw = config_to_json(SasRecConfig(ItemConfig(3, 8)))
    assert "given_width" not in raw["items"]
    given = SasRecConfig(ItemConfig(3, 8, "vectors", given_width=2))
    assert config_to_json(given)["items"]["given_width"] == 2
    assert config_from_json(config_to_json(given)) == given
