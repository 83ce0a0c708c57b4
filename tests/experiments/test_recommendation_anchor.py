"""The anchor's script, from files to figures, on a few walks."""

import json
import runpy
from pathlib import Path

import pytest
from recsys import small_split

from distill_jax.models.recommenders.save import load_recommender

SCRIPT = Path(__file__).parents[2] / "experiments" / "recommendation_anchor.py"


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
        out=folder / "out",
        epochs=2,
        eval_every=1,
        batch_size=16,
        width=8,
        layers=1,
        max_length=6,
    )
    script["main"](flags)
    told = capsys.readouterr().out
    assert "ndcg@10" in told and "Protocol: " in told and "leave-one-out" in told
    figures = json.loads((folder / "out" / "figures.json").read_text())
    assert figures["flags"]["width"] == 8 and len(figures["progress"]["history"]) == 2
    assert 0 <= figures["test"]["ndcg@10"] <= 1
    assert load_recommender(folder / "out" / "model").recommender.config.hidden_size == 8
    shown = (folder / "out" / "table.md").read_text().splitlines()
    assert shown[2].count("–") == 2  # nothing is published for these walks
    assert shown[5].startswith("- 2 epochs") and "leave-one-out" in shown[6]
    assert f"{figures['test']['ndcg@10']:.4f}" in shown[2]
    assert f"{figures['popularity']['hr@10']:.4f}" in shown[3]
    script["main"](flags)
    assert "validation/ndcg@10" not in capsys.readouterr().out  # it is not trained again
    again = json.loads((folder / "out" / "figures.json").read_text())
    assert again["test"] == figures["test"]


def test_published_figures_stand_beside_those_of_movielens_1m():
    script = runpy.run_path(str(SCRIPT))
    found = {"ours": {"ndcg@10": 0.18, "hr@10": 0.31}, "popularity": {"ndcg@10": 0, "hr@10": 0}}
    lines = script["table"](found, known=True).splitlines()
    assert lines[2] == "| ours | 0.1800 | .178 to .182 | 0.3100 | .306 to .315 |"
    assert lines[3] == "| popularity | 0.0000 | .0178 | 0.0000 | .0363 |"
