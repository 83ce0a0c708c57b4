import logging
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.data.build_interactions import Preparation, Rows, build_interactions
from distill_jax.data.interaction_splits import leave_one_out
from distill_jax.data.interactions import Cases, histories_of
from distill_jax.data.load_interactions import load_ranking_split
from distill_jax.evaluation.recommend import (
    evaluate,
    rank_cases,
    recommend,
    rows_at_once,
    top_items,
)
from distill_jax.models.recommenders.popularity import Popularity

USERS, ITEMS = 7, 11


def random_split(seed, repeats="first"):
    rng = np.random.default_rng(seed)
    pairs = [(u, i) for u in range(USERS) for i in rng.integers(ITEMS, size=rng.integers(4, 12))]
    pairs += [(0, i) for i in range(ITEMS)]
    rows = Rows([str(u) for u, _ in pairs], [str(i) for _, i in pairs])
    return leave_one_out(build_interactions("toy", rows, preparation=Preparation(repeats)))


def table_scorer(scores_UI):
    return lambda histories: scores_UI[histories.users_E]


def naive(scores_UI, split, cases, length):
    """Ranks and lists by plain loops, as the module's rules say them."""
    data, ranks, lists = split.data, [], []
    for user, end in zip(cases.users_E.tolist(), cases.ends_E.tolist(), strict=True):
        seen = [] if data.repeats else data.items_N[data.offsets_U1[user] : end].tolist()
        target = int(data.items_N[end])
        scores = scores_UI[user].tolist()
        rank = 1
        for item in range(data.num_items):
            if item != target and item not in seen and scores[item] >= scores[target]:
                rank += 1
        ranks.append(rank)
        shown = sorted(
            (item for item in range(data.num_items) if item not in seen),
            key=lambda item: (-scores[item], item),
        )
        lists.append((shown + [-1] * length)[:length])
    return ranks, lists


@given(
    st.integers(0, 2**16),
    st.integers(1, 9),
    st.integers(1, ITEMS),
    st.sampled_from(["first", "keep"]),
    st.sampled_from([1.0, 1e-6, 1e30]),
)
@settings(max_examples=60)
def test_equal_to_a_naive_loop(seed, batch_size, length, repeats, scale):
    split = random_split(seed, repeats)
    rng = np.random.default_rng(seed)
    # Few different values: many ties; minus infinity and both zeros among them.
    values = np.array([-np.inf, -2, -1, -0.0, 0.0, 1, 2], np.float32) * np.float32(scale)
    scores_UI = rng.choice(values, (USERS, split.data.num_items))
    for cases in (split.validation, split.test):
        ranked = rank_cases(
            table_scorer(scores_UI),
            split.data,
            cases,
            batch_size=batch_size,
            list_length=length,
        )
        ranks, lists = naive(scores_UI, split, cases, min(length, split.data.num_items))
        assert ranked.ranks_E.tolist() == ranks
        assert ranked.top_EK.tolist() == lists


def test_one_case_by_hand():
    # Took 0 1 2, then 3: 4 scores higher, 5 the same, 0 (seen) higher; so rank 3.
    rows = Rows(["u"] * 4 + ["v"] * 3, list("0123") + list("345"))
    split = leave_one_out(build_interactions("toy", rows))
    scores = np.array([[9, 0, 0, 2, 3, 2], [0, 0, 0, 0, 1, 2]], np.float32)
    report = evaluate(table_scorer(scores), split, ks=(1, 3), list_length=3)
    assert report.ranked.ranks_E.tolist() == [3, 1]
    assert report.ranked.top_EK.tolist() == [[4, 3, 5], [5, 0, 1]]
    assert report.metrics["hr@1"] == 0.5 and report.metrics["hr@3"] == 1
    assert report.metrics["ndcg@3"] == pytest.approx((1 / 2 + 1) / 2)
    assert report.metrics["mrr@3"] == pytest.approx((1 / 3 + 1) / 2)
    assert report.metrics["coverage@1"] == 2 / 6
    assert report.metrics["cases/history 0-20"] == 2
    users, means, cases = report.per_user("mrr@3")
    assert users.tolist() == [0, 1] and means.tolist() == [pytest.approx(1 / 3), 1]
    assert cases.tolist() == [1, 1]
    assert report.protocol.startswith("toy, leave-one-out: the last item of 2 users is tested")
    assert "ranks among all 6 items, those of the history left out" in report.protocol
    assert "ties against the model; test split" in report.protocol
    assert "Protocol: toy" in str(report) and "ndcg@3" in str(report)


@pytest.mark.parametrize("repeats", ["first", "keep"])
def test_the_list_shown_is_the_rank_said(repeats):
    """A target of rank r stands at place r, one that was taken before, too."""
    split = random_split(5, repeats)
    scores = np.random.default_rng(1).permutation(USERS * split.data.num_items)
    scores_UI = scores.reshape(USERS, -1).astype(np.float32)
    report = evaluate(table_scorer(scores_UI), split, ks=(1,), list_length=split.data.num_items)
    targets, ranks = split.test.targets_E(split.data), report.ranked.ranks_E
    shown = report.ranked.top_EK[np.arange(len(ranks)), ranks - 1]
    assert shown.tolist() == targets.tolist()
    histories = split.test.histories(split.data)
    again = sum(t in histories.part(n, n + 1).items_S for n, t in enumerate(targets))
    assert (again > 0) == (repeats == "keep")
    top_EK, _ = recommend(table_scorer(scores_UI), histories, 3, with_seen=split.data.repeats)
    assert top_EK.tolist() == report.ranked.top_EK[:, :3].tolist()
    seen = "too" if split.data.repeats else "left out"
    assert f"those of the history {seen}, ties" in report.protocol


def test_histories_are_made_a_batch_at_a_time(monkeypatch):
    """Those of all cases of a split with many targets a user would not fit."""
    split, honest, made = random_split(7), Cases.histories, []

    def histories(self, *args):
        made.append(len(self))
        return honest(self, *args)

    monkeypatch.setattr(Cases, "histories", histories)
    scores = np.zeros((USERS, split.data.num_items), np.float32)
    evaluate(table_scorer(scores), split, batch_size=2)
    assert max(made) == 2 and sum(made) == len(split.test)


def test_a_user_of_whom_training_has_nothing_is_nobody():
    split = random_split(6)
    split.train_ends_U[3] = split.data.offsets_U1[3]
    asked = []

    def scorer(histories):
        asked.extend(histories.users_E.tolist())
        return np.zeros((len(histories), histories.num_items), np.float32)

    evaluate(scorer, split)
    assert sorted(asked) == [-1, *(user for user in split.test.users_E.tolist() if user != 3)]


def test_a_model_that_cannot_tell_items_apart_gains_nothing():
    split = random_split(1)
    report = evaluate(lambda h: np.zeros((len(h), h.num_items), np.float32), split, ks=(1,))
    lengths = split.test.ends_E - split.data.offsets_U1[split.test.users_E]
    assert report.ranked.ranks_E.tolist() == (split.data.num_items - lengths).tolist()


def test_scores_with_nan_make_every_figure_nan():
    split = random_split(2)
    scores = np.ones((USERS, split.data.num_items), np.float32)
    scores[split.test.users_E[1], 0] = np.nan
    report = evaluate(table_scorer(scores), split)
    assert report.ranked.ranks_E[1] == 0 and (np.delete(report.ranked.ranks_E, 1) > 0).all()
    assert math.isnan(report.metrics["ndcg@10"])


def test_sampled_figures_only_on_request_and_with_a_warning(caplog):
    split = random_split(3)
    scores = np.random.default_rng(0).random((USERS, split.data.num_items), np.float32)
    cases = [evaluate(table_scorer(scores), split, ks=(2,), batch_size=b) for b in (2, 7)]
    assert not caplog.records and "sampled" not in "".join(cases[0].metrics)
    with caplog.at_level(logging.WARNING, "distill_jax"):
        found = [
            evaluate(table_scorer(scores), split, ks=(2,), batch_size=b, sampled=2) for b in (2, 7)
        ]
    assert "Krichene" in caplog.text
    assert found[0].ranked.ranks_E.tolist() == found[1].ranked.ranks_E.tolist()
    assert (found[0].ranked.ranks_E <= np.minimum(3, cases[0].ranked.ranks_E)).all()
    assert "2 SAMPLED items" in found[0].protocol
    assert "sampled_hr@2" in found[0].metrics and "hr@2" not in found[0].metrics
    with pytest.raises(UserError, match="0 sampled items were asked for"):
        evaluate(table_scorer(scores), split, sampled=0)
    every = evaluate(table_scorer(scores), split, ks=(2,), sampled=99)
    assert every.ranked.ranks_E.tolist() == cases[0].ranked.ranks_E.tolist()


def test_wrong_requests():
    split = random_split(4)
    scorer = table_scorer(np.zeros((USERS, split.data.num_items), np.float32))
    with pytest.raises(UserError, match="no part 'train'"):
        evaluate(scorer, split, "train")
    with pytest.raises(UserError, match=r"scores of shape \(3, 2\) for 3 histories and 11 items"):
        evaluate(lambda h: np.zeros((len(h), 2)), split, batch_size=3)
    with pytest.raises(UserError, match="batch_size is 0"):
        evaluate(scorer, split, batch_size=0)
    with pytest.raises(UserError, match="no metric 'map@10' by user"):
        evaluate(scorer, split).per_user("map@10")


def test_recommendations_for_strangers():
    model = Popularity(np.array([3, 1, 4, 4], np.float32))
    items, scores = recommend(model.scores, histories_of([[2], [], [0, 1, 2]], 4), k=3)
    assert items.tolist() == [[3, 0, 1], [2, 3, 0], [3, -1, -1]]
    assert scores.tolist() == [[4, 3, 1], [4, 4, 3], [4, -np.inf, -np.inf]]
    assert recommend(model.scores, histories_of([[]], 4), k=99)[0].shape == (1, 4)
    with pytest.raises(UserError, match="diverged"):
        recommend(lambda h: np.full((len(h), 4), np.nan), histories_of([[0]], 4))
    with pytest.raises(UserError, match="at least 1"):
        recommend(model.scores, histories_of([[0]], 4), k=0)


def test_lists_without_anything_taken():
    scores = np.array([[1, 3, 3, 2], [0, -1, -np.inf, 5]], np.float32)
    assert top_items(scores, 4).tolist() == [[1, 2, 3, 0], [3, 0, 1, 2]]


def test_histories_of_like_length_share_a_batch():
    split, batches = random_split(5), []

    def score(histories):
        batches.append(histories.lengths_E.tolist())
        return np.zeros((len(histories), histories.num_items), np.float32)

    rank_cases(score, split.data, split.test, batch_size=3)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    lengths = [length for batch in batches for length in batch]
    assert lengths == sorted(lengths)


def test_many_items_are_scored_for_few_at_a_time(monkeypatch):
    split, asked = random_split(6), []
    scores_UI = np.random.default_rng(0).random((USERS, split.data.num_items), np.float32)

    def score(histories):
        asked.append(len(histories))
        return scores_UI[histories.users_E]

    many = rank_cases(score, split.data, split.test)
    monkeypatch.setattr("distill_jax.evaluation.recommend.MOST_SCORES", 3 * ITEMS - 1)
    few = rank_cases(score, split.data, split.test)
    assert asked == [USERS, 2, 2, 2, 1]
    np.testing.assert_array_equal(few.ranks_E, many.ranks_E)
    np.testing.assert_array_equal(few.top_EK, many.top_EK)
    monkeypatch.setattr("distill_jax.evaluation.recommend.MOST_SCORES", ITEMS - 1)
    assert rows_at_once(ITEMS) == 1


def test_lists_from_a_million_items_in_bounded_memory():
    """All scores would be 200 MB, and looking at them takes several times as much."""
    num_items = 1_000_000
    histories = histories_of([[n, n + 1] for n in range(50)], num_items)
    scores_I = np.arange(num_items, dtype=np.float32)
    tracemalloc.start()
    items, _ = recommend(lambda h: np.tile(scores_I, (len(h), 1)), histories, k=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (items == num_items - 1 - np.arange(3)).all()
    assert peak < 450e6


def test_popularity_on_movielens_1m_is_as_published(shared_data):
    """Published: HR@10 .0363, NDCG@10 .0178.

    Those come out when the validation items are counted too; with the training part alone, as
    ``fit_popularity`` counts, it is .0369 and .0180.
    """
    split = load_ranking_split(f"files:{shared_data('ml-1m')}")
    found = {}
    for name, ends in (("train", split.validation), ("known", split.test)):
        matrix = ends.histories(split.data).matrix()
        model = Popularity(np.asarray(matrix.sum(axis=0), np.float32))
        found[name] = evaluate(model.scores, split).metrics
    assert found["known"]["hr@10"] == pytest.approx(0.0363, abs=5e-5)
    assert found["known"]["ndcg@10"] == pytest.approx(0.0178, abs=5e-5)
    assert found["train"]["hr@10"] == pytest.approx(223 / 6040)
    assert found["train"]["ndcg@10"] == pytest.approx(0.01803, abs=5e-6)
    assert found["train"]["cases/head"] + found["train"]["cases/tail"] == 6040
