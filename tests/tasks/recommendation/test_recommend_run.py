"""A table of recommenders in small: everything between a split and the table's outputs."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from recsys import small_split
from rich.console import Console
from small_tables import walks

from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import axis
from distill_jax.evaluation.open_recommender import OpenRecommender, open_recommender
from distill_jax.evaluation.ranking import mean_metrics
from distill_jax.evaluation.recommend import evaluate
from distill_jax.export.vectors import export_vectors
from distill_jax.models.recommenders.build import Recommender
from distill_jax.tables.build import table_of
from distill_jax.tables.evidence import unpack_numbers
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.outputs import write_outputs
from distill_jax.tasks.recommendation.build import build_recommender, start_from_items
from distill_jax.tasks.recommendation.catalogue import Catalogue
from distill_jax.tasks.recommendation.cells import (
    RecData,
    RecModel,
    RecommenderSetup,
    parse_model,
)
from distill_jax.tasks.recommendation.columns import NDCG
from distill_jax.tasks.recommendation.runs import latency
from distill_jax.tasks.recommendation.table import Recommendation
from distill_jax.training.recommender import FitConfig

TRAINING = FitConfig(epochs=2, eval_every=1, batch_size=16)
KL = "0.5*full_softmax + 0.5*kl(top=5)"
SWEEP = walks(
    {
        "labels": {"objective": "full_softmax"},
        "kl": {"objective": KL},
        "start": {"objective": "full_softmax", "start": "teacher_items"},
        "placebo": {"objective": KL, "placebo": True},
    },
    training=TRAINING,
    dropout=0.1,
    seeds=(0, 1, 2),
    references=("popularity", "ease"),
    tested=(NDCG.key,),
)
ROWS, TEACHER = SWEEP.rows, SWEEP.base.setup.teacher


def run(sweep, folder, split):
    task = Recommendation(sweep, split)
    return run_table(task, folder, Reporter(Console(quiet=True)), strategy="sequential")


@pytest.fixture(scope="module")
def split():
    return small_split(num_users=40, num_items=25)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, split):
    folder = tmp_path_factory.mktemp("walks")
    spec, rows = run(SWEEP, folder, split)
    return folder, spec, rows


def runs_of(rows, label):
    return {row.seed: row for row in rows if row.row == label}


def test_every_row_and_seed_is_there_with_its_evidence(finished, split):
    _, spec, rows = finished
    assert {row.row for row in rows} == {
        "teacher",
        "popularity",
        "ease",
        "labels",
        "kl",
        "start",
        "placebo",
    }
    assert len(rows) == 3 + 4 * 3 and len(set(spec.hashes)) == len(spec.hashes) == 15
    for row in rows:
        ranks = unpack_numbers(row.test_scores["rank"])
        assert len(ranks) == len(split.test)
        for name, value in mean_metrics(ranks, (10,)).items():
            assert row.metrics[f"test/{name}"] == pytest.approx(value)
        shared = row.metrics.get("test/fidelity@20")
        assert (shared is None) == (row.row == "teacher")
        assert shared is None or 0 < shared <= 1
        assert row.fingerprints["data"] == split.digest
    kl = runs_of(rows, "kl")
    assert all(row.metrics["parameters"] == kl[0].metrics["parameters"] for row in kl.values())
    assert kl[0].metrics["latency/p50_ms"] > 0 and kl[0].fingerprints["teacher"]
    assert "teacher" not in runs_of(rows, "labels")[0].fingerprints


def test_rows_differ_as_they_should(finished):
    _, _, rows = finished
    scores = {
        label: [runs_of(rows, label)[s].test_scores["rank"] for s in (0, 1, 2)]
        for label in ("labels", "kl", "start", "placebo")
    }
    assert len({tuple(ranks) for ranks in scores.values()}) == 4


def test_what_is_finished_is_not_trained_again(finished, split, monkeypatch):
    folder, spec, rows = finished

    def never(*args, **kwargs):
        raise AssertionError("nothing is left to train")

    monkeypatch.setattr(Engine, "train", never)
    again_spec, again = run(SWEEP, folder, split)
    assert again_spec == spec and again == rows
    other = dataclasses.replace(SWEEP, seeds=(0, 3))
    with pytest.raises(AssertionError, match="nothing is left"):
        run(other, folder, split)


def test_a_run_comes_out_the_same_again(finished, split, tmp_path):
    _, _, rows = finished
    few = dataclasses.replace(SWEEP, rows=ROWS[:2], seeds=(1,), references=())
    _, again = run(few, tmp_path, split)
    for label in ("teacher", "labels", "kl"):
        seed = 0 if label == "teacher" else 1
        one, other = runs_of(rows, label)[seed], runs_of(again, label)[seed]
        assert one.hash == other.hash and one.test_scores == other.test_scores, label


def test_the_table_has_paired_tests_over_users(finished, split, tmp_path):
    folder, spec, rows = finished
    table = table_of(spec, rows)
    entries = {row.row: row.entries["test/ndcg@10"] for row in table.rows}
    assert entries["kl"].tests.examples.n == len(split.test) and entries["labels"].tests is None
    paths = write_outputs(table_of(spec, rows), tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "tail NDCG@10" in text and "| teacher" in text and (tmp_path / "curves.svg") in paths
    assert any(split.protocol in sentence for sentence in spec.protocol)
    assert Ledger(folder / "ledger.jsonl").rows() == rows


def test_a_finished_run_can_be_asked(finished):
    folder, spec, _ = finished
    place = next(p for p in spec.places if p.row == "kl" and p.seed == 0)
    run = folder / "runs" / place.hash
    found = open_recommender(run).recommend("item 3; the film 4", k=3)
    assert len(found) == 3 and not {3, 4} & {each.item for each in found}
    assert json.loads((run / "model" / "run.json").read_text())["data"] == "walks"
    assert not (run / "checkpoint").exists()


def test_latency_is_that_of_the_door_that_people_use(split, monkeypatch):
    recommender = build_recommender(RecModel("sasrec-1x4", max_length=8), split, lambda: None)
    heard, honest = [], OpenRecommender.recommend

    def recommend(self, history, *args, **options):
        heard.append(history)
        return honest(self, history, *args, **options)

    monkeypatch.setattr(OpenRecommender, "recommend", recommend)
    engine = SimpleNamespace(check_stop=lambda: None)
    params = recommender.init(jax.random.key(0))
    timed = latency(Catalogue(engine, split), recommender, params)
    assert timed.runs * 7 == len(heard) * 5 > 0 and 0 < timed.p50_ms <= timed.p95_ms
    data, cases = split.data, split.test.histories(split.data)
    known = {
        tuple(data.item_names[item] for item in cases.part(row, row + 1).items_S)
        for row in range(len(cases))
    }
    assert set(map(tuple, heard)) <= known


def test_a_finished_run_is_exported_with_its_numbers(finished, tmp_path):
    folder, spec, rows = finished
    place = next(p for p in spec.places if p.row == "kl" and p.seed == 0)
    manifest = export_vectors(folder / "runs" / place.hash, tmp_path / "vectors")
    row = runs_of(rows, "kl")[0]
    assert manifest.source["run"] == place.hash and manifest.source["data"] == "walks"
    assert manifest.source["scores"]["test/ndcg@10"] == row.metrics["test/ndcg@10"]
    card = (tmp_path / "vectors" / "README.md").read_text()
    assert f"| test/ndcg@10 | {row.metrics['test/ndcg@10']:.4g} |" in card


def test_a_closed_form_can_be_asked_and_answers_as_in_the_table(finished, split):
    folder, _, rows = finished
    for name in ("ease", "popularity"):
        (row,) = runs_of(rows, name).values()
        opened = open_recommender(folder / "runs" / row.hash)
        report = evaluate(opened.model.scorer, split, ks=(10,))
        assert report.metrics["ndcg@10"] == pytest.approx(row.metrics["test/ndcg@10"])
        assert len(opened.recommend("item 3", k=5)) == 5
        assert opened.audience.counts_I.tolist() == split.train_counts_I.tolist()


def test_mistakes_are_told_before_anything_is_trained(tmp_path, split):
    def changed(**changes):
        run(dataclasses.replace(SWEEP, **changes), tmp_path, split)

    with pytest.raises(UserError, match="top=25 is not below the 25 items"):
        changed(rows=axis("objective", ["kl(top=25)"]))
    with pytest.raises(UserError, match="Did you mean 'full_softmax'"):
        changed(rows=axis("objective", ["full_softmx"]))
    with pytest.raises(UserError, match=r"reference 'popular'.*Did you mean 'popularity'"):
        changed(references=("popular",))
    with pytest.raises(UserError, match="needs a teacher, and the table has none"):
        changed(base=SWEEP.base.but(teacher=None))
    assert not list(tmp_path.glob("runs/*/checkpoint"))


def test_cells_have_hashes_of_content():
    setup = RecommenderSetup(RecData("a"))
    cell = Cell(setup, (Train("full_softmax", TRAINING),), data_digest="d")
    assert cell.hash == cell.but(data=RecData("b"), teacher=TEACHER).hash
    changed = {
        "model": RecModel("gru4rec-1x16"),
        "objective": "kl",
        "training": dataclasses.replace(TRAINING, epochs=3),
        "seed": 1,
        "start": "teacher_items",
        "placebo": True,
        "data_digest": "e",
        "teacher_digest": "t",
        "top": 7,
    }
    hashes = {cell.but(**{k: v}).hash for k, v in changed.items()}
    assert len(hashes | {cell.hash}) == len(changed) + 1
    with pytest.raises(ValueError, match="when its data are known"):
        _ = cell.but(data_digest="").hash


@pytest.mark.parametrize(
    ("name", "kind", "layers", "width", "source"),
    [
        ("sasrec-2x64", "sasrec", 2, 64, "id"),
        ("gru4rec-1x32-both", "gru4rec", 1, 32, "both"),
        ("bert4rec-1x8-text", "bert4rec", 1, 8, "text"),
        ("bpr_mf-16", "bpr_mf", 1, 16, "id"),
    ],
)
def test_models_by_name(split, name, kind, layers, width, source):
    found = parse_model(name)
    assert (found.kind, found.layers, found.width, found.source) == (kind, layers, width, source)
    if source == "id":
        built = build_recommender(RecModel(name), split, lambda: None)
        assert isinstance(built, Recommender) and built.config.hidden_size == width


@pytest.mark.parametrize("name", ["sasrec", "sasrec-2", "bpr_mf-0", "bpr_mf-8-text", "sas-1x2"])
def test_names_of_no_model_are_refused(name):
    with pytest.raises(UserError, match="no recommender is called"):
        RecModel(name)


@pytest.mark.parametrize("width", [4, 12])
def test_item_vectors_of_the_teacher_as_a_start(split, width):
    """Distances between items are the teacher's, as far as the width allows."""
    student = build_recommender(RecModel(f"sasrec-1x{width}"), split, lambda: None)
    params = student.init(jax.random.key(0))
    teacher = np.random.default_rng(0).normal(size=(25, 8)) * [9, 7, 5, 3, 0, 0, 0, 0] + 1
    begun = start_from_items(student, params, teacher)
    vectors = np.asarray(begun["items"]["embedding"])
    fresh = np.asarray(params["items"]["embedding"])
    assert vectors.shape == fresh.shape and vectors.std() == pytest.approx(fresh.std(), rel=1e-4)
    centred = teacher - teacher.mean(axis=0)
    ours, theirs = vectors @ vectors.T, centred @ centred.T
    np.testing.assert_allclose(ours / ours.max(), theirs / theirs.max(), atol=1e-4)
    others = [key for key in params if key != "items"]
    assert all(begun[key] is params[key] for key in others)
