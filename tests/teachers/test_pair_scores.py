import numpy as np
import pytest
from searches import toy_table, true_scores

from distill_jax.core.errors import UserError
from distill_jax.teachers.pair_scores import PairScores, kept_scores
from distill_jax.training.feed import Feed


def kept(table, cache=None, calls=None, teacher="t"):
    def compute(query_P, item_P):
        if calls is not None:
            calls.append(len(query_P))
        return 100.0 * query_P + item_P

    return kept_scores(table.candidates, compute, teacher_digest=teacher, cache=cache)


def test_a_batch_gets_the_scores_of_its_own_pairs():
    table = toy_table()
    scores = kept(table)
    batch, said = Feed(table, (4,), 8, 0, teacher=scores, draws=table.draw)(1)
    for b, query in enumerate(batch.example_ids_B):
        own = np.where(batch.there_BN[b], 100.0 * query + batch.items_BN[b], -np.inf)
        assert said.scores_BN[b].tolist() == (own if query >= 0 else own * np.inf).tolist()
        for c in range(8):
            item, there = batch.items_BN[c, 0], batch.there_BN[c, 0] and query >= 0
            known = there and item in table.candidates.items_QM[max(query, 0)]
            assert said.others_BB[b, c] == (100.0 * query + item if known else -np.inf)


def test_scores_are_computed_once_and_refused_when_damaged(tmp_path):
    table, calls = toy_table(), []
    first = kept(table, tmp_path, calls)
    again = kept(table, tmp_path, calls)
    assert len(calls) == 1 and calls[0] == (table.candidates.items_QM >= 0).sum()
    assert np.array_equal(first.scores_QM, again.scores_QM)
    kept(table, tmp_path, calls, teacher="another")
    assert len(calls) == 2
    for folder in tmp_path.iterdir():
        scores = np.load(folder / "scores.npy")
        scores[0, 0] += 1
        np.save(folder / "scores.npy", scores)
    with pytest.raises(UserError, match=r"are damaged .*delete that folder"):
        kept(table, tmp_path)


def test_scores_that_are_not_finite_are_refused():
    table = toy_table()
    with pytest.raises(UserError, match="not finite"):
        kept_scores(table.candidates, lambda q, i: q * np.nan, teacher_digest="t")


def test_the_placebo_keeps_each_querys_scores_and_moves_them():
    table = toy_table()
    scores = PairScores(table.candidates, true_scores(table.data, table.candidates.items_QM))
    placebo, again = scores.shuffled(3), scores.shuffled(3)
    assert np.array_equal(placebo.scores_QM, again.scores_QM)
    assert np.array_equal(np.sort(placebo.scores_QM, axis=1), np.sort(scores.scores_QM, axis=1))
    assert not np.array_equal(placebo.scores_QM, scores.scores_QM)
    assert np.array_equal(np.isfinite(placebo.scores_QM), table.candidates.items_QM >= 0)
