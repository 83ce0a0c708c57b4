"""A search table in small, from words in files to a table; its teacher has learnt nothing."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console
from small_tables import pairs, write_pairs

from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.evaluation.open_search import OpenSearch, TokenLimits, open_search
from distill_jax.evaluation.search import Encoder
from distill_jax.models.bert import BertConfig
from distill_jax.models.students import student_config
from distill_jax.models.two_tower import TwoTower, TwoTowerConfig, init_two_tower
from distill_jax.objectives.lists import resolve_lists
from distill_jax.tables.build import table_of
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.outputs import load_results, write_outputs
from distill_jax.tasks.search.cells import (
    SearchDataConfig,
    SearchSetup,
    SearchTeacherConfig,
    SearchTraining,
)
from distill_jax.tasks.search.columns import NDCG
from distill_jax.tasks.search.table import Search, _query_costs
from distill_jax.tasks.search.task import prepare

MINILM = BertConfig(30522, 384, 6, 12, 1536, pooling="mean")
SMALL = SearchTraining(steps=2, evaluations=1, batch_size=8, list_size=3)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, toy_teacher):
    folder = write_pairs(tmp_path_factory.mktemp("pairs"))
    rows = {
        "labels": {"objective": "ce"},
        "kl": {"objective": "ce + kl"},
        "placebo": {"objective": "ce + kl", "hears": "shuffled"},
    }
    return pairs(folder, toy_teacher, rows, training=SMALL, tested=(NDCG.key,))


def run(sweep, folder):
    reporter = Reporter(Console(quiet=True))
    return run_table(Search(sweep), folder, reporter, strategy="sequential")


@pytest.fixture(scope="module")
def finished(sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        spec, rows = run(sweep, folder)
        again = run(sweep, folder)
    return folder, spec, rows, again


def test_a_table_has_its_students_and_what_they_are_compared_with(finished, sweep):
    folder, spec, rows, _ = finished
    assert [place.row for place in spec.places] == ["labels", "kl", "placebo"]
    assert [place.row for place in spec.teachers] == [
        "cross-encoder, reranks",
        "encoder as it came",
    ]
    table = table_of(spec, rows)
    assert len(table.rows) == 5
    for row in rows:
        assert 0 <= row.metrics["test/ndcg@10"] <= 1
        assert row.test_scores["ndcg@10"].startswith("10:")
    students = [row for row in rows if row.row in {point.label for point in sweep.rows}]
    assert {row.selected_step for row in students} == {2}
    assert len({row.fingerprints["teacher"] for row in rows}) == 1
    write_outputs(table_of(spec, rows), folder)
    assert load_results(folder)[0] == spec
    assert any("ties by the product's number" in line for line in spec.protocol)


def test_what_is_finished_is_not_run_again(finished):
    folder, spec, rows, (spec_again, rows_again) = finished
    assert spec_again == spec and [r.hash for r in rows_again] == [r.hash for r in rows]
    assert len(Ledger(folder / "ledger.jsonl").history()) == len(rows)


def test_a_kept_student_gives_its_vectors_again(finished, sweep):
    folder, spec, *_ = finished
    opened = open_search(folder / "runs" / spec.places[1].hash)
    task = prepare(sweep.base.setup.data, sweep.base.setup.teacher)
    found = task.find(Encoder(TwoTower(opened.config)), opened.params, "test")
    row = next(r for r in finished[2] if r.hash == spec.places[1].hash)
    assert found.means["ndcg@10"] == pytest.approx(row.metrics["test/ndcg@10"], abs=1e-6)


def test_the_teacher_hears_no_label_that_is_hidden(sweep):
    task = prepare(sweep.base.setup.data, sweep.base.setup.teacher)
    table = task.table(list_size=3, kind="pairs")
    assert set(table.rows_Q) <= set(task.data.splits["train"])
    assert len(task.data.splits["transfer"]) == len(task.data.splits["train"]) == 7
    forbidden = np.concatenate([task.data.splits[s] for s in ("validation", "test")])
    assert (task.candidates.items_QM[forbidden] == -1).all()


def test_identity_is_content(sweep):
    cells = {entry.row: entry.cell.but(data_digest="d") for entry in sweep.entries()}
    cell = cells["kl"]
    lists = {key: json.loads(json.dumps(cell.config[key])) for key in ("teacher", "training")}
    assert json.loads(json.dumps(cell.config)) == cell.config | lists
    others = [
        cells["placebo"],
        cell.but(seed=1),
        cell.but(data_digest="x"),
        cell.but(in_batch=False),
    ]
    assert len({each.hash for each in (cell, *others)}) == 5


def test_settings_that_cannot_be_are_refused():
    def cell(training, **own):
        made = Cell(SearchSetup(), (Train("ce", training),), **own)
        return made.setup.settled(made)

    for wrong, message in (
        (lambda: cell(SearchTraining(), seed=-1), "seeds are from"),
        (lambda: cell(SearchTraining(list_size=99)), "99 products cannot come from"),
        (lambda: SearchDataConfig(label_fraction=0.0), "label fraction"),
        (lambda: SearchTeacherConfig(candidates=4), "at least as many candidates"),
        (lambda: SearchTraining(steps=0), "must be at least 1"),
        (lambda: SearchSetup(start="teacher"), "start"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()


@pytest.mark.parametrize("preset", ["default", "smoke"])
def test_the_experiments_cells_can_be_built(preset):
    path = Path(__file__).resolve().parents[3] / "experiments/search_relevance.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        sweep = module.table(module.SearchRelevance(preset=preset, students=("2x64x2", "l2")))
    cells = [entry.cell.but(data_digest="d") for entry in sweep.entries()]
    assert len({cell.hash for cell in cells}) == len(cells) >= 4
    for cell in cells:
        objective = resolve_lists(
            cell.objective,
            list_size=cell.training.list_size,
            teacher=True,
            in_batch=cell.setup.in_batch,
        )
        assert objective.needs_teacher or cell.objective == "ce"
        assert student_config(cell.setup.student, MINILM).hidden_size in (64, 384)


def test_latency_is_that_of_the_door_that_people_use(toy_teacher, monkeypatch):
    config = TwoTowerConfig(
        BertConfig(17, 8, 1, 2, 16, max_positions=16, num_labels=6, pooling="mean")
    )
    data = SimpleNamespace(
        splits={"test": np.array([1, 2])},
        queries=("the film", "good plot", "bad music"),
        item_ids=("a", "b"),
        items=("the plot", "good music"),
    )
    encoder = SimpleNamespace(tokenizer_file=toy_teacher / "tokenizer.json")
    task = SimpleNamespace(data=data, items=data.items, encoder=encoder, limits=TokenLimits(6, 12))
    heard, honest = [], OpenSearch.search

    def search(self, queries, *args):
        heard.extend(queries)
        return honest(self, queries, *args)

    monkeypatch.setattr(OpenSearch, "search", search)
    costs = _query_costs(config, init_two_tower(config, jax.random.key(0)), task)
    assert heard == ["good plot", "bad music"] * 7
    assert 0 < costs["latency/p50_ms"] <= costs["latency/p95_ms"]
