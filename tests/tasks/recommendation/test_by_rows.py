"""A table whose students are trained by rows is that of whole tables."""

import numpy as np
import pytest
from recsys import small_split
from rich.console import Console
from small_tables import walks

from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tables.evidence import unpack_numbers
from distill_jax.tasks.recommendation import runs
from distill_jax.tasks.recommendation.table import Recommendation
from distill_jax.training.recommender import FitConfig

OBJECTIVE = (
    "sampled_softmax(n=3) + 0.5*kl(T=2, tail=False, top=3)"
    " + 0.1*relaxed_ranking(top=3, sampled=3, stride=1)"
)
SWEEP = walks(
    {"kl": {"objective": OBJECTIVE}},
    training=FitConfig(epochs=2, eval_every=1, batch_size=16),
    seeds=(0, 1),
)


@pytest.fixture(scope="module")
def split():
    return small_split(num_users=40, num_items=120, most=6)


@pytest.fixture
def run(split, tmp_path, monkeypatch):
    """Runs the table; its rows by name and seed, and which were trained by rows."""
    by_rows = []
    train = Engine.train

    def spied(engine, work, params, **more):
        by_rows.append(engine.by_rows(work, params).by_rows is not None)
        return train(engine, work, params, **more)

    monkeypatch.setattr(Engine, "train", spied)

    def run(name, strategy="sequential"):
        task = Recommendation(SWEEP, split)
        reporter = Reporter(Console(quiet=True))
        _, rows = run_table(task, tmp_path / name, reporter, strategy=strategy)
        return {(row.row, row.seed): row for row in rows}, by_rows

    return run


@pytest.mark.long
def test_it_is_the_same_table(run, monkeypatch):
    """Long: two tables."""
    whole, by_rows = run("whole")
    assert not any(by_rows)
    by_rows.clear()
    monkeypatch.setattr(runs, "LARGE", 1)
    monkeypatch.setattr(runs, "NAMED", 0)
    rows, by_rows = run("rows", strategy="auto")
    assert sum(by_rows) == 2  # one at a time, whatever would be faster
    assert whole.keys() == rows.keys()
    for key, row in whole.items():
        ranks, others = (unpack_numbers(each.test_scores["rank"]) for each in (row, rows[key]))
        assert np.mean(ranks == others) > 0.9  # ties within rounding may fall otherwise
        assert rows[key].hash == row.hash
        assert rows[key].metrics["validation/ndcg@10"] == pytest.approx(
            row.metrics["validation/ndcg@10"], abs=0.02
        )
