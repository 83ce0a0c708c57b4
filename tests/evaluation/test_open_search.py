"""Towers in use: the lists are those of the vectors; damage and mistakes are told."""

import json
import shutil

import numpy as np
import pytest
from samples import place, sample_run
from searches import save_towers

from distill_jax.cli.chosen_run import RANKS
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.evaluation import open_search as module
from distill_jax.evaluation.item_catalogue import Catalogue
from distill_jax.evaluation.open_search import FACTS, open_search
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.spec import TableSpec

TEXTS = ("the film", "good plot", "bad cast and music", "very good film", "not the plot")
PRODUCTS = Catalogue(tuple(f"p{n}" for n in range(len(TEXTS))), TEXTS)


@pytest.fixture(scope="module", params=[True, False], ids=["one tower", "two"])
def folder(request, toy_teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    save_towers(folder, PRODUCTS, toy_teacher / "tokenizer.json", shared=request.param)
    return folder


def test_a_list_is_that_of_the_vectors(folder):
    opened = open_search(folder)
    assert opened.items_ID.shape == (len(TEXTS), 6)
    lists = opened.search(["good film", "music"], k=3)
    assert [len(found) for found in lists] == [3, 3]
    for query, found in zip(["good film", "music"], lists, strict=True):
        [alone] = opened.search([query], k=len(TEXTS))  # whatever stands beside it
        assert [each.item for each in alone[:3]] == [each.item for each in found]
        scores = [each.score for each in alone]
        assert scores == sorted(scores, reverse=True)
        assert all(TEXTS[each.item] == each.text for each in alone)
        assert {each.name for each in alone} == set(PRODUCTS.names)
    cosine = np.linalg.norm(opened.items_ID, axis=1)
    np.testing.assert_allclose(cosine, 1, rtol=1e-5)


def test_an_object_compiles_its_few_shapes_once(folder, monkeypatch, compiled_seconds):
    monkeypatch.setattr(module, "QUERY_LENGTHS", (3, 4, 5))
    opened = open_search(folder)
    assert opened.query_lengths == (3, 4, 5, 6)
    for words in (1, 2, 3, 4):
        opened.search([" ".join(["film"] * words)])
    opened.search(["film", "a good film and plot"])
    opened.search(["film"] * 32)
    assert compiled_seconds
    compiled_seconds.clear()
    for count in (1, 2, 31, 32, 33):
        opened.search(["good film and cast, not the plot", *["music"] * (count - 1)], k=count)
    assert compiled_seconds == []


def test_the_command_prints_a_list_a_query(folder, capsys):
    dispatch(["search", "--model", str(folder), "good film", "-k", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["1", "2"]
    dispatch(["search", "--model", str(folder / "model"), "good film", "music", "-k", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[2]] == ["# good film", "# music"] and len(lines) == 4


def test_a_tables_folder_stands_for_its_best_towers(folder, tmp_path, capsys):
    runs = [
        sample_run("KL", "2x64x2", seed, hash=name, metrics={RANKS: score}, config={})
        for seed, name, score in ((0, "aaaa", 0.2), (1, "bbbb", 0.3))
    ]
    for run in runs:
        Ledger(tmp_path / "ledger.jsonl").append(run)
        shutil.copytree(folder, tmp_path / "runs" / run.hash)
    shown = dict(
        name="search", title="Search", layout="metrics", columns=(ACCURACY,), baseline="KL"
    )
    spec = TableSpec(**shown, places=tuple(map(place, runs)))
    (tmp_path / "table.json").write_text(spec.to_json())
    dispatch(["search", "--model", str(tmp_path), "good film", "-k", "1"])
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 1 and "bbbb: 2x64x2, KL, seed 1" in told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["film", "-k", "0"], "expected at least 1"),
        ([], "no query"),
        (["  "], "a query is empty"),
    ],
)
def test_mistakes_are_told(folder, arguments, message):
    with pytest.raises(UserError, match=message):
        dispatch(["search", "--model", str(folder), *arguments])


def test_damage_is_told(folder, tmp_path):
    with pytest.raises(UserError, match="no two-tower student at"):
        open_search(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    facts = json.loads((copy / "model" / FACTS).read_text())
    for damage in ({}, {**facts, "limits": 3}, {**facts, "similarity": "near"}, [1]):
        (copy / "model" / FACTS).write_text(json.dumps(damage))
        with pytest.raises(UserError):
            open_search(copy)
    (copy / "model" / FACTS).write_text(json.dumps(facts))
    (copy / "model/catalogue.json").unlink()
    with pytest.raises(UserError, match="lacks its products"):
        open_search(copy)
