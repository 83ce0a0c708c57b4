import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.data.build_interactions import Rows, build_interactions
from distill_jax.data.interaction_splits import leave_one_out
from distill_jax.data.interactions import histories_of
from distill_jax.evaluation.recommend import evaluate
from distill_jax.models.recommenders import ease
from distill_jax.models.recommenders.closed_forms import CLOSED_FORMS, fitting, parse_references
from distill_jax.models.recommenders.ease import fit_ease
from distill_jax.models.recommenders.item_knn import fit_item_knn
from distill_jax.models.recommenders.popularity import fit_popularity


def split_of(training):
    """A split whose training part is ``training``, a list of item numbers a user.

    What is asked for, the items p and q behind them, is in no training part.
    """
    rows = [(str(u), str(i)) for u, items in enumerate(training) for i in [*items, 98, 99]]
    data = build_interactions("toy", Rows(*zip(*rows, strict=True)))
    return leave_one_out(data)


TRAINING = [[0, 1, 2], [0, 1], [2, 3], [0]]


@pytest.fixture(scope="module")
def split():
    return split_of(TRAINING)


def dense(training, num_items):
    matrix = np.zeros((len(training), num_items))
    for user, items in enumerate(training):
        matrix[user, items] = 1
    return matrix


def test_popularity_counts_training_only(split):
    model = fit_popularity(split)
    scores = model.scores(histories_of([[3], []], 6))
    assert scores.tolist() == [[3, 2, 2, 1, 0, 0]] * 2 and scores.dtype == np.float32


def test_item_knn_by_hand(split):
    model = fit_item_knn(split, neighbours=9, shrink=0.0)
    both_01, both_02, both_12, both_23 = 2, 1, 1, 1
    a = both_01 / np.sqrt(3 * 2)
    b = both_02 / np.sqrt(3 * 2)
    c, d = both_12 / 2, both_23 / np.sqrt(2)
    expected = [[0, a, b, 0], [a, 0, c, 0], [b, c, 0, d], [0, 0, d, 0]]
    found = model.similarity_II.toarray()
    np.testing.assert_allclose(found[:4, :4], expected, rtol=1e-6)
    assert not found[4:].any() and not found[:, 4:].any()
    scores = model.scores(histories_of([[0, 3], [1, 1]], 6))
    np.testing.assert_allclose(scores[0, :4], [0, a, b + d, 0], rtol=1e-6)
    np.testing.assert_allclose(scores[1, :4], expected[1], rtol=1e-6)  # taken twice counts once
    assert scores.dtype == np.float32 and scores.shape == (2, 6)


def test_item_knn_keeps_the_nearest_and_shrinks(split):
    one = fit_item_knn(split, neighbours=1, shrink=0.0).similarity_II.toarray()
    assert [np.flatnonzero(one[:, item]).tolist() for item in range(4)] == [[1], [0], [3], [2]]
    shrunk = fit_item_knn(split, neighbours=9, shrink=4.0).similarity_II.toarray()
    assert shrunk[0, 1] == pytest.approx(2 / (np.sqrt(6) + 4))


@given(
    st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=2, max_size=8),
    st.integers(1, 4),
    st.sampled_from([0.0, 3.0]),
)
def test_item_knn_is_the_dense_one(training, neighbours, shrink):
    """All pairs, the best of each item, of equals the lower number."""
    split = split_of([sorted(items) for items in training])
    X = split.train_matrix().toarray()
    counts, norms = X.T @ X, np.sqrt(X.sum(axis=0))
    expected = np.zeros(counts.shape, np.float32)
    for item in range(len(norms)):
        with np.errstate(invalid="ignore"):
            column = counts[:, item] / (norms * norms[item] + np.float32(shrink))
        column = np.where(counts[:, item] > 0, column, 0)
        column[item] = 0
        best = np.argsort(-column, kind="stable")[:neighbours]
        expected[best, item] = column[best]
    model = fit_item_knn(split, neighbours=neighbours, shrink=shrink)
    np.testing.assert_allclose(model.similarity_II.toarray(), expected, rtol=1e-6)
    assert (model.similarity_II.data > 0).all()


def test_item_knn_in_blocks(split, monkeypatch):
    whole = fit_item_knn(split, neighbours=2).similarity_II.toarray()
    monkeypatch.setattr("distill_jax.models.recommenders.item_knn._BLOCK", 2)
    assert (fit_item_knn(split, neighbours=2).similarity_II.toarray() == whole).all()


@given(
    st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=2, max_size=8),
    st.sampled_from([0.5, 10.0, 300.0]),
)
def test_ease_solves_its_problem(training, regularisation):
    """Column by column: ridge regression on all other items, in float64."""
    training = [sorted(items) for items in training]
    split = split_of(training)
    names = [int(name) for name in split.data.item_names]
    X = dense([[names.index(item) for item in items] for items in training], len(names))
    weights = fit_ease(split, regularisation=regularisation).weights_II
    assert weights.dtype == np.float32 and not np.diag(weights).any()
    for item in range(len(names)):
        others = np.delete(np.arange(len(names)), item)
        gram = X[:, others].T @ X[:, others] + regularisation * np.eye(len(others))
        expected = np.linalg.solve(gram, X[:, others].T @ X[:, item])
        np.testing.assert_allclose(weights[others, item], expected, atol=2e-5)


@pytest.mark.parametrize("block, rows", [(3, 6), (4, 4), (5, 20)])
def test_ease_in_blocks_solves_the_same_problem(monkeypatch, block, rows):
    rng = np.random.default_rng(0)
    split = split_of([sorted(set(rng.integers(17, size=6).tolist())) for _ in range(30)])
    whole = fit_ease(split, regularisation=3.0).weights_II
    monkeypatch.setattr(ease, "WHOLE", 2)
    monkeypatch.setattr(ease, "BLOCK", block)
    monkeypatch.setattr(ease, "ROWS", rows)
    cut = fit_ease(split, regularisation=3.0).weights_II
    np.testing.assert_allclose(cut, whole, atol=1e-5)
    assert not np.diag(cut).any()


def test_no_inverse_in_blocks_either(monkeypatch):
    monkeypatch.setattr(ease, "WHOLE", 1)
    monkeypatch.setattr(ease, "BLOCK", 2)
    with pytest.raises(UserError, match="no solution"):
        ease.invert(np.ones((4, 4), np.float32))


@pytest.mark.parametrize("name", ["ease", "item_knn"])
def test_a_stop_is_heard_while_they_learn(split, name, monkeypatch):
    monkeypatch.setattr(ease, "WHOLE", 2)
    monkeypatch.setattr(ease, "BLOCK", 2)
    monkeypatch.setattr(ease, "ROWS", 2)
    monkeypatch.setattr("distill_jax.models.recommenders.item_knn._BLOCK", 2)
    calls = []
    CLOSED_FORMS[name].fit(split, on_block=lambda: calls.append(None))
    assert len(calls) >= 4

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CLOSED_FORMS[name].fit(split, on_block=stop)


def test_a_catalogue_that_is_too_large_for_ease_gets_its_neighbours():
    assert fitting(("popularity", "ease"), ease.MAX_ITEMS) == (("popularity", "ease"), ())
    found, (note,) = fitting(("popularity", "ease"), ease.MAX_ITEMS + 1)
    assert found == ("popularity", "item_knn")
    assert "ease needs items x items" in note and "item_knn stands in its place" in note
    assert fitting(("ease", "item_knn"), 10**6)[0] == ("item_knn",)


def test_references_as_text():
    assert parse_references(" popularity, ease,popularity") == ("popularity", "ease")
    assert parse_references("") == ()
    with pytest.raises(UserError, match="Did you mean 'popularity'"):
        parse_references("ease,popularty")


def test_ease_scores_are_sums_over_the_history(split):
    model = fit_ease(split, regularisation=1.0)
    scores = model.scores(histories_of([[0, 3], []], 6))
    np.testing.assert_allclose(scores[0], model.weights_II[0] + model.weights_II[3], rtol=1e-5)
    assert not scores[1].any() and scores.dtype == np.float32


def test_items_taken_together_are_recommended_together():
    """Two tastes: each user has items of one, and the last two of it are held out."""
    rng = np.random.default_rng(0)
    rows = [
        (str(user), str(item))
        for user in range(40)
        for item in rng.permutation(10)[:7] + 10 * (user % 2)
    ]
    split = leave_one_out(build_interactions("toy", Rows(*zip(*rows, strict=True))))
    popular = evaluate(fit_popularity(split).scores, split, ks=(4,)).metrics["hr@4"]
    for model in (fit_item_knn(split, neighbours=10), fit_ease(split, regularisation=5.0)):
        assert evaluate(model.scores, split, ks=(4,)).metrics["hr@4"] == 1 > popular


def test_wrong_options(split, monkeypatch):
    with pytest.raises(UserError, match="0 neighbours"):
        fit_item_knn(split, neighbours=0)
    with pytest.raises(UserError, match="shrink -1"):
        fit_item_knn(split, shrink=-1.0)
    with pytest.raises(UserError, match="regularisation is 0"):
        fit_ease(split, regularisation=0.0)
    monkeypatch.setattr(ease, "MAX_ITEMS", 3)
    with pytest.raises(UserError, match="6 items are more than 3"):
        fit_ease(split)
