"""A table whose students are trained by rows is that of whole tables."""

from pathlib import Path

import numpy as np
import pytest
from recsys import small_split
from rich.console import Console
from small_tables import walks

from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.models.recommenders.build import Recommender, recommender_family
from distill_jax.models.recommenders.occurring_items import OccurringItems
from distill_jax.models.recommenders.text_items import ItemConfig
from distill_jax.objectives.items import resolve_ranking
from distill_jax.tables.evidence import unpack_numbers
from distill_jax.tasks.recommendation import runs
from distill_jax.tasks.recommendation.table import Recommendation
from distill_jax.training.by_rows import ByRows
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


@pytest.mark.parametrize(
    ("items", "text", "source", "by_rows"),
    [
        (45_568, "sampled_softmax(n=256)", "id", True),  # 4 * (2 * 32 * 50 + 32 * 256)
        (45_567, "sampled_softmax(n=256)", "id", False),
        (32_768, "bpr(n=1)", "id", True),
        (32_767, "bpr(n=1)", "id", False),
        (99_999, "full_softmax", "id", False),
        (99_999, "bpr(n=1)", "text", False),
    ],
)
def test_which_catalogues_are_trained_by_rows(items, text, source, by_rows):
    own = ItemConfig(items, 4, source, text_width=3 if source == "text" else 0)
    config = recommender_family("sasrec").fitted(own, num_layers=1, max_length=50, num_heads=1)
    objective = resolve_ranking(text, config.shape, positions=32 * 50)
    assert (runs._named_items(Recommender(config), objective, 32, 50) is not None) is by_rows


def test_a_graph_is_trained_as_a_whole():
    config = recommender_family("lightgcn").fitted(
        ItemConfig(99_999, 4), num_users=9, num_layers=1, max_length=50
    )
    objective = resolve_ranking("bpr(n=1)", config.shape, positions=32 * 50)
    assert runs._named_items(Recommender(config), objective, 32, 50) is None


def test_the_page_says_so():
    page = (Path(__file__).parents[3] / "docs/recommendation.md").read_text("utf-8")
    longest = ByRows((), FitConfig().optimizer, OccurringItems(1).renumber).longest
    assert f"After {longest} steps" in page and f"catalogues of {runs.LARGE:,} items" in page
    assert runs.NAMED == 4 and "four times as many as it names" in page


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
