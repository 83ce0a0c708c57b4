"""The anchor's script, from files to figures, on a few walks."""

import runpy
from pathlib import Path

import pytest
from recsys import small_split

from distill_jax.models.recommenders.save import load_recommender
from distill_jax.tables.evidence import scores_by_example
from distill_jax.tables.outputs import load_results

SCRIPT = Path(__file__).parents[2] / "experiments" / "recommendation_anchor.py"
RESULTS = SCRIPT.parent / "results" / "recommendation_anchor"


@pytest.fixture
def folder(tmp_path):
    data = small_split(num_users=16, num_items=25, most=8).data
    lines = [f"{user + 1} {data.items_N[n] + 1}" for n, user in enumerate(data.users_N)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_it_trains_tests_and_keeps_the_model(folder, capsys):
    script = runpy.run_path(str(SCRIPT))
    flags = script["Anchor"](
        data=f"files:{folder / 'data'}",
        output_dir=folder / "out",
        epochs=2,
        eval_every=1,
        batch_size=16,
        width=8,
        layers=1,
        max_length=6,
        strategy="sequential",
    )
    script["main"](flags)
    told = capsys.readouterr().out
    assert "leave-one-out" in told
    spec, rows = load_results(folder / "out")
    popular, trained = rows
    assert trained.config["model"]["name"] == "sasrec-1x8" and len(trained.history) == 2
    assert 0 <= trained.metrics["test/ndcg@10"] <= 1
    for row in rows:  # what tests over users need is kept, and is of the figures shown
        for key in ("test/ndcg@10", "test/hr@10"):
            assert scores_by_example(row, key).mean() == pytest.approx(row.metrics[key])
    model = folder / "out/runs" / spec.places[0].hash / "model"
    assert load_recommender(model).recommender.config.hidden_size == 8
    table = (folder / "out" / "table.md").read_text()
    assert f"{trained.metrics['test/ndcg@10']:.4f}" in table
    assert f"{popular.metrics['test/hr@10']:.4f}" in table
    assert "2 epochs" in table and "Published" not in table  # nothing is for these walks
    script["main"](flags)
    assert "1 of 1 runs are finished already" in capsys.readouterr().out
    assert (folder / "out" / "table.md").read_text() == table
    assert len(load_results(folder / "out")[1]) == 2


def test_published_figures_stand_under_those_of_movielens_1m():
    script = runpy.run_path(str(SCRIPT))
    spec, _ = load_results(RESULTS)
    flags = script["Anchor"]()
    assert script["PUBLISHED"] in spec.protocol
    assert script["table"](flags, "ml-1m", ("published",)).protocol == ("published",)
