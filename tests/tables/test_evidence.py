"""Numbers kept an example: they come back, damage is told, tests over examples use them."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples import sample_run, sample_spec

from distill_jax.core.errors import UserError
from distill_jax.tables.build import table_of
from distill_jax.tables.columns import Column
from distill_jax.tables.evidence import by_rank, pack_numbers, scores_by_example, unpack_numbers
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tables.statistics import paired_bootstrap

NDCG = Column("test/ndcg@10", "NDCG@10", decimals=3, higher_is_better=True)


@given(hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(0, 2**32 - 1)))
def test_whole_numbers_come_back(values):
    packed = pack_numbers(values)
    assert unpack_numbers(packed).tolist() == values.tolist()
    widest = values.max(initial=0)
    assert packed.split(":")[1] == ("u1" if widest < 256 else "u2" if widest < 65536 else "u4")


def test_fractions_come_back_in_float32():
    values = np.array([0.1, -2.5, 0.0])
    assert unpack_numbers(pack_numbers(values)).tolist() == np.float32(values).tolist()


def test_what_cannot_be_kept_is_refused():
    for wrong in ([[1]], [-1], [2**32], [math.nan], ["a"], [math.inf]):
        with pytest.raises(ValueError, match=r"expected finite numbers|whole numbers"):
            pack_numbers(wrong)


def test_damaged_numbers_are_told():
    for text in ("", "3", "2:u1:AA==", "x:u1:AA==", "1:i8:AAAAAAAAAAA=", "1:u2:AA==", "1:u1:!"):
        with pytest.raises(UserError, match="damaged per-example numbers"):
            unpack_numbers(text)


def test_ranking_metrics_by_hand():
    ranks = [1, 2, 10, 11]
    assert by_rank("hr@10", ranks).tolist() == [1, 1, 1, 0]
    assert by_rank("mrr@10", ranks) == pytest.approx([1, 0.5, 0.1, 0])
    assert by_rank("ndcg@10", ranks) == pytest.approx([1, 1 / math.log2(3), 1 / math.log2(11), 0])
    assert by_rank("ndcg@2", ranks).tolist()[2:] == [0, 0]
    for other in ("accuracy", "ndcg", "ndcg@0", "recall@10", "tail_ndcg@10"):
        assert by_rank(other, ranks) is None


def ranked(row, seed, ranks, **scores):
    metrics = {"test/ndcg@10": float(by_rank("ndcg@10", ranks).mean())}
    packed = {"rank": pack_numbers(ranks), **scores}
    return sample_run(row, "tiny", seed, metrics=metrics, test_scores=packed)


def test_a_ledger_keeps_them(tmp_path):
    run = ranked("kl", 0, [1, 300], tail=pack_numbers([0.5, 0.25]))
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(run)
    assert ledger.rows() == [run]
    assert scores_by_example(run, "test/hr@10").tolist() == [1, 0]
    assert scores_by_example(run, "test/tail").tolist() == [0.5, 0.25]
    for key in ("validation/hr@10", "test/accuracy", "test/fidelity", "parameters"):
        assert scores_by_example(run, key) is None
    plain = sample_run("kl", "tiny", 0)
    assert "test_scores" not in plain.to_json()
    assert LedgerRow.from_dict({**vars(plain)}).test_scores == {}
    with pytest.raises(ValueError, match="test_scores is not an object"):
        LedgerRow.from_dict({**vars(plain), "test_scores": "3"})


def table_with(runs, **changes):
    return table_of(sample_spec(runs, columns=(NDCG,), tested=(NDCG.key,), **changes), runs)


def test_paired_tests_over_users_use_the_ranks():
    rng = np.random.default_rng(0)
    base = [ranked("ce", seed, rng.integers(1, 40, 200)) for seed in range(3)]
    better = [
        ranked("kl", seed, np.maximum(1, unpack_numbers(run.test_scores["rank"]).astype(int) - 6))
        for seed, run in enumerate(base)
    ]
    table = table_with([*base, *better])
    entry = next(row for row in table.rows if row.row == "kl").entries[NDCG.key]
    ours, theirs = (
        np.mean([scores_by_example(run, NDCG.key) for run in side], axis=0)
        for side in (better, base)
    )
    assert entry.tests.examples == paired_bootstrap(ours, theirs)
    assert entry.tests.examples.difference == pytest.approx(entry.tests.seeds.difference)
    assert entry.bold(True)
    notes = " ".join(table.notes)
    assert "p: NDCG@10 against `ce`" in notes and "3 seeds and 200 test examples at once" in notes


def test_without_ranks_there_is_no_test_over_examples():
    runs = [
        ranked(row, seed, [1, 5, 3, 4, 1, seed + 2]) for row in ("ce", "kl") for seed in range(3)
    ]
    runs[-1] = dataclasses.replace(runs[-1], test_scores={})
    entry = next(row for row in table_with(runs).rows if row.row == "kl").entries[NDCG.key]
    assert entry.tests.seeds is not None and entry.tests.joint is None


def test_runs_tested_on_different_users_are_not_compared():
    runs = [
        ranked(row, seed, [1, 5, 3, 4, 1, seed + 2]) for row in ("ce", "kl") for seed in range(3)
    ]
    runs[-1] = ranked("kl", 2, [1, 2])
    with pytest.raises(UserError, match="tested on 2 and 6 examples"):
        table_with(runs)
