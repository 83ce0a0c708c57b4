"""What an export says of its origin is what the ledger says; the data is the run's own or none."""

import dataclasses
import json

import jax
import pytest
from trained import knowing_head, saved

from distill_jax.core.errors import UserError
from distill_jax.data.load import load_dataset
from distill_jax.data.tokenise import tokenise_dataset
from distill_jax.evaluation.calibration import write_temperature
from distill_jax.export.formats import format_named
from distill_jax.export.manifest import read_manifest
from distill_jax.export.own_data import NoData, OwnData, own_data
from distill_jax.export.source import open_source, public_name
from distill_jax.export.write import export_model
from distill_jax.models.cnn import parse_cnn
from distill_jax.models.family import family_of
from distill_jax.tables.ledger import Ledger, LedgerRow
from distill_jax.tasks.classification.cells import DataConfig

HASH = "0123456789abcdef"


@pytest.fixture
def results(toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """A folder of results with one finished run, whose student knows the toy reviews."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    run = tmp_path / "results/runs" / HASH
    run.mkdir(parents=True)
    head = knowing_head(toy_teacher, toy_reviews)
    saved(run / "model", head, ("neg", "pos"))
    write_temperature(run / "model", 1.25)
    data = DataConfig(name=f"files:{toy_reviews}", max_length=32, label_fraction=0.5)
    tokens = tokenise_dataset(load_dataset(data.name), head[2], max_length=32)
    row = LedgerRow(
        hash=HASH, experiment="compare_losses", row="kl", group="tiny", seed=3,
        config={"data": dataclasses.asdict(data), "teacher": {"name": "minilm-l6"}},
        metrics={"test/accuracy": 0.875, "latency/p50_ms": 1.5, "latency/p95_ms": 2.25,
                 "test/nll": float("nan")},
        selected_step=10, fingerprints={"tokens": tokens.digest, "teacher": "feed", "data": "da7a"},
        code={"version": "0"}, packages={}, device="cpu: a toy", seconds={},
        examples_per_second=None, finished_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    Ledger(tmp_path / "results/ledger.jsonl").append(row)
    return tmp_path / "results"


def test_the_ledger_s_numbers_are_in_manifest_and_card(results, toy_reviews, tmp_path):
    source = open_source(results / "runs" / HASH)
    data = own_data(source)
    assert isinstance(data, OwnData)
    manifest = export_model(
        source, format_named("onnx-int8"), tmp_path / "out", data=data, max_drop=0.05
    )
    assert manifest.source["run"] == HASH and manifest.source["seed"] == 3
    assert manifest.source["scores"] == {
        "test/accuracy": 0.875, "latency/p50_ms": 1.5, "latency/p95_ms": 2.25,
    }  # fmt: skip
    assert manifest.source["fingerprints"]["teacher"] == "feed"
    scores = manifest.parity["accuracy"]
    assert scores["test"]["sentences"] == 30 and scores["validation"]["sentences"] == 24
    assert scores["test"]["source"] > 0.8  # it knows them
    assert manifest.parity["sentences"] == 30 and "test split of files:" in manifest.parity["texts"]
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    for said in ("| test accuracy | 87.5% |", "1.50 / 2.25 ms, on cpu: a toy", "minilm-l6 `feed`",
                 "weights Apache-2.0", f"run `{HASH}` of compare_losses: tiny, kl, seed 3",
                 "divided by 1.25 before", "not known here: ask who gave it"):  # fmt: skip
        assert said in card, said
    assert read_manifest(tmp_path / "out") == manifest
    for path in (tmp_path / "out").iterdir():  # where somebody's data lies is nobody's business
        assert str(tmp_path) not in path.read_text("utf-8", errors="replace"), path
        assert str(toy_reviews.parent) not in path.read_text("utf-8", errors="replace"), path
    assert manifest.source["data"] == "files:reviews"


def test_a_format_that_loses_too_much_is_not_written(results, tmp_path):
    """Validation decides."""
    source = open_source(results / "runs" / HASH)
    rounded = format_named("onnx-int8")

    def upside_down(*args):
        logits = rounded.open(*args)
        return lambda *tokens: -logits(*tokens)

    wrong = dataclasses.replace(rounded, open=upside_down)
    with pytest.raises(UserError, match=r"onnx-int8 loses \d+\.\d points of accuracy"):
        export_model(source, wrong, tmp_path / "out", data=own_data(source), max_drop=0.05)
    assert not (tmp_path / "out").exists()


def test_data_that_is_gone_or_another_is_said(results, toy_reviews, tmp_path):
    run = results / "runs" / HASH
    (row,) = Ledger(results / "ledger.jsonl").rows()

    def reason(**changes):
        config = {**row.config, "data": {**row.config["data"], **changes.pop("data", {})}}
        (results / "ledger.jsonl").unlink()
        Ledger(results / "ledger.jsonl").append(dataclasses.replace(row, config=config, **changes))
        found = own_data(open_source(run))
        assert isinstance(found, NoData)
        return found.reason

    assert "cannot be loaded" in reason(data={"name": "files:/nowhere/at/all"})
    assert "cannot be loaded" in reason(data={"of_tomorrow": 1})
    assert "no longer what it was" in reason(fingerprints={"tokens": "0"})
    (results / "ledger.jsonl").unlink()
    found = own_data(open_source(run))
    assert isinstance(found, NoData) and "no row of a ledger" in found.reason


def test_what_cannot_be_exported_is_said(tmp_path, toy_teacher):
    with pytest.raises(UserError, match="no run at"):
        open_source(tmp_path / "nowhere")
    unfinished = tmp_path / "results/runs/abc"
    unfinished.mkdir(parents=True)
    (unfinished / "checkpoint").mkdir()
    with pytest.raises(UserError, match="holds no model: a run keeps one when it is finished"):
        open_source(unfinished)
    config = parse_cnn("cnn-2-4", num_labels=2)
    family = family_of(config)
    family.save(tmp_path / "cnn", config, family.init(config, jax.random.key(0)), None, ("a", "b"))
    with pytest.raises(UserError, match="classifier of images; exports are of class"):
        open_source(tmp_path / "cnn")


@pytest.mark.parametrize(
    ("name", "public"),
    [("files:/home/me/own", "files:own"), ("files:own/data", "files:data"),
     ("review_snippets/movie", "review_snippets/movie"), ("tfds:glue/sst2", "tfds:glue/sst2"),
     ("/models/mine", "mine"), ("~/mine", "mine"), ("org/bert", "org/bert")],
)  # fmt: skip
def test_names_without_somebody_s_folders(name, public):
    assert public_name(name) == public


def test_its_digest_is_the_model_s(results):
    source = open_source(results / "runs" / HASH)
    raw = json.loads((results / "runs" / HASH / "model/config.json").read_text())
    assert raw["id2label"] == {"0": "neg", "1": "pos"}
    assert source.birth["model"] == source.model.digest and source.birth["family"] == "bert"
