"""The examples in docs/recommendation.md and docs/search.md run."""

import re
import shlex
from pathlib import Path

import pytest
from alone import alone
from recsys import save_model
from searches import save_towers

from distill_jax.cli.export import Export
from distill_jax.cli.recommend import Recommend
from distill_jax.cli.run import parse_flags
from distill_jax.cli.search import Search
from distill_jax.evaluation.item_catalogue import Catalogue
from distill_jax.evaluation.open_recommender import open_recommender
from distill_jax.evaluation.open_search import open_search
from distill_jax.export.vectors import export_vectors

DOCS = Path(__file__).resolve().parents[2] / "docs"
DOC, SEARCH = ((DOCS / f"{name}.md").read_text("utf-8") for name in ("recommendation", "search"))
FLAGS = {"recommend": Recommend, "export": Export, "search": Search}


def python_of(page):
    return re.findall(r"```python\n(.*?)```", page, re.S)


def test_an_evaluation(fetch_asset, capsys):
    fetch_asset("movielens-100k")
    code, _ = python_of(DOC)
    names: dict[str, object] = {}
    exec(code, names)
    assert 0.05 < names["report"].metrics["ndcg@10"] < 0.1
    assert "leaks the future of other users" in capsys.readouterr().out


def own_readme(folder):
    (code,) = python_of((folder / "README.md").read_text("utf-8"))
    return code


def test_vectors_without_this_package(tmp_path):
    save_model(tmp_path, "sasrec-1x8", max_length=50)
    folder = tmp_path / "vectors"
    export_vectors(tmp_path, folder)
    _, code = python_of(DOC)
    assert own_readme(folder) == code
    ask = "import json\nprint(json.dumps(recommend(['item 3', 'item 7'], 4)))"
    found = alone(code.replace("FOLDER", str(folder)) + ask)
    expected = open_recommender(tmp_path).recommend(["item 3", "item 7"], 4)
    assert [row[:2] for row in found] == [[each.name, each.title] for each in expected]
    assert [row[2] for row in found] == pytest.approx([each.score for each in expected], rel=1e-4)


def test_towers_without_this_package(tmp_path, toy_teacher):
    words = ("the film", "good plot", "bad cast and music", "very good film")
    products = Catalogue(tuple(f"p{n}" for n in range(len(words))), words)
    save_towers(tmp_path, products, toy_teacher / "tokenizer.json", shared=True, limits=(32, 48))
    folder = tmp_path / "vectors"
    export_vectors(tmp_path, folder)
    (code,) = python_of(SEARCH)
    assert own_readme(folder) == code
    ask = "import json\nadd('new', 'good film')\nprint(json.dumps(search('good plot', 9)))"
    found = alone(code.replace("FOLDER", str(folder)) + ask)
    (expected,) = open_search(tmp_path).search(["good plot"], 9)
    known = [row for row in found if row[0] != "new"]
    assert len(known) == len(found) - 1 == len(words)
    assert [row[0] for row in known] == [each.name for each in expected]


def test_the_commands_that_they_show_parse():
    shown = re.findall(r"distill-jax (recommend|export|search) ((?:\\\n|[^\n])*)", DOC + SEARCH)
    assert len(shown) == 9
    for command, arguments in shown:
        parse_flags(FLAGS[command], shlex.split(arguments.replace("\\\n", " ")), command)
