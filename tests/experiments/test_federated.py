"""experiments/federated.py: the whole path in small; the server hears logits alone."""

import csv

import numpy as np
import pytest
from scripts import ROOT, module_at

from distill_jax.tables.outputs import load_results
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.federated import server_setup, shared_texts

SCRIPT = module_at(ROOT / "experiments/federated.py")


@pytest.mark.long
@pytest.mark.slow
def test_the_smoke_preset_trains_clients_and_a_server(
    toy_teacher, toy_reviews, tmp_path, monkeypatch, capsys
):
    """Slow: nine small students in two tables."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    flags = SCRIPT.Federated(
        preset="smoke", data=f"files:{toy_reviews}", tokenizer=str(toy_teacher), student="1x8x2",
        label_fraction=0.5, alpha=5.0, max_length=16, steps=4, seeds=(0,), strategy="sequential",
        output_dir=tmp_path,
    )  # fmt: skip
    SCRIPT.main(flags)
    folder = tmp_path / "federated-smoke"
    spec, rows = load_results(folder)
    by_hash = {row.hash: row for row in rows}
    servers = [place for place in spec.places if place.row == SCRIPT.SERVER]
    assert {place.group for place in servers} == {"alike", "skewed"} and len(servers) == 2
    for place in spec.places:
        assert np.isfinite(by_hash[place.hash].metrics["test/accuracy"])
    seeds = {by_hash[place.hash].fingerprints["teacher"] for place in servers}
    assert len(seeds) == 2  # each hears its own clients
    shared = set(shared_texts(DataConfig(f"files:{toy_reviews}", label_fraction=0.5)))
    for path in (folder / "answers").glob("*seed*.npz"):
        with np.load(path) as said:
            assert set(said.files) == {"ids", "label_names", "logits"}
            assert set(said["ids"].tolist()) == shared
    assert "server" in (folder / "trends.md").read_text(encoding="utf-8")
    capsys.readouterr()
    SCRIPT.main(flags)
    assert "9 of 9 runs are finished already" in capsys.readouterr().out


def test_what_is_shared_has_no_label_that_anybody_uses(toy_reviews):
    data = DataConfig(f"files:{toy_reviews}", label_fraction=0.5)
    shared = shared_texts(data)
    with open(toy_reviews / "train.csv", encoding="utf-8") as file:
        rows = {row["id"]: row["sentence"] for row in csv.DictReader(file)}
    assert len(shared) == 30 and all(rows[key] == texts[0] for key, texts in shared.items())
    setup = server_setup(data, "tiny", ["a.npz", "b.npz"])
    assert setup.data.transfer == "only" and not setup.data.client
    assert [teacher.name for teacher in setup.teachers] == ["file:a.npz", "file:b.npz"]
