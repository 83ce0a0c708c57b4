"""A new family is one file: the one in docs/students.md, trained and asked as any other."""

import ast
import csv
import dataclasses
import importlib.util
import io
import re
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import distill_jax
from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.models import family as families
from distill_jax.models.bert import BertConfig
from distill_jax.models.build import (
    build_model,
    family_in,
    family_of,
    load_model,
    student_family,
    teacher_family,
)
from distill_jax.models.family import Classifiers, Family, register, registered
from distill_jax.tasks.classification.table import Classification

PACKAGE = Path(distill_jax.__file__).parent
PAGE = (PACKAGE.parent / "docs/students.md").read_text(encoding="utf-8")
TEACHER = BertConfig(30, 8, 2, 2, 16)


@pytest.fixture
def own_families(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(families, "_FAMILIES", dict(families._FAMILIES))


@pytest.fixture
def bag(own_families, tmp_path, monkeypatch):
    """The module that the page shows, imported."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    (tmp_path / "bag.py").write_text(code)
    spec = importlib.util.spec_from_file_location("bag", tmp_path / "bag.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bag", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """(students, changes) -> a table of ``compare-losses``, its rows, its folder, what it said."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(run_module, "Engine", one_device)
    small = {"teacher_epochs": 1, "max_shapes": 1, "max_length": 16, "batch_size": 16}
    data, teacher = f"files:{toy_reviews}", str(toy_teacher)

    def run(*students, objectives=("ce", "kl"), **changes):
        args = CompareLosses(
            data=data, teacher=teacher, students=students, objectives=objectives, seeds=(0, 1),
            label_fraction=0.5, steps=40, evaluations=2, yardsticks=False, **small, **changes,
        )  # fmt: skip
        said = io.StringIO()
        reporter = Reporter(Console(file=said, width=200))
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        spec, rows = run_table(
            Classification(sweep_of(args)), out, reporter, track="none", strategy="vmap"
        )
        return spec, rows, out, said.getvalue()

    return run


def test_a_new_family_from_its_name_to_its_answers(bag, run, toy_reviews, capsys):
    spec, rows, out, said = run("bag-8", "1x8x2")
    assert "self-checks: teacher deterministic" in said
    students = {row.hash: row for row in rows if row.group == "bag-8"}
    assert len(students) == 4 and {place.group for place in spec.places} == {"bag-8", "1x8x2"}
    with open(Path(toy_reviews) / "test.csv", encoding="utf-8") as file:
        texts = [row["sentence"] for row in csv.DictReader(file)]
    for hash_, row in students.items():
        assert row.config["model"] == {
            "vocab_size": 17, "width": 8, "max_positions": 32, "num_labels": 2,
        }  # fmt: skip
        assert row.history[-1]["step"] == 40
        opened = open_classifier(out / "runs" / hash_)
        assert type(opened.model.config) is bag.BagConfig and opened.max_length == 16
        kept = np.load(out / "runs" / hash_ / "test_logits.npz")
        names = kept["label_names"][kept["logits_NC"].argmax(axis=1)]
        assert [answer.label for answer in opened.classify(texts)] == list(names)
    trained = opened.model.params["Embed_0"]["embedding"]
    dispatch(["predict", str(out / "runs" / hash_), texts[0]])
    assert capsys.readouterr().out.split("\t")[0] == names[0]
    assert np.isfinite(np.asarray(trained)).all()


def test_what_a_family_cannot_do_is_said(bag, run):
    def refused(student="bag-8", **changes):
        with pytest.raises(UserError) as caught:
            run(student, **changes)
        return str(caught.value)

    assert "student 'bag-8' of texts has no pooling 'mean'" in refused(student_pooling="mean")
    assert "Bag computes in float32 alone" in refused(precision="bf16")
    assert "bag-WIDTH (bag-16)" in refused("bag-0")
    assert "hidden_mse" in refused(objectives=("ce", "hidden_mse + ce"))
    with pytest.raises(UserError, match="--remat is for BERTs: a Bag"):
        build_model(bag.BagConfig(3, 2, 4, 2), remat=True)
    with pytest.raises(UserError, match="'bag' is there already"):
        register(bag.Bags("bag", bag.BagConfig, bag.Bag))


def test_names_have_one_family_each(bag):
    for name, owner in {
        **dict.fromkeys(("tiny", "l2", "l3", "3x256x4"), "bert"), "cnn-4-8": "cnn", "bag-3": "bag",
    }.items():  # fmt: skip
        assert [each.name for each in registered(Classifiers) if each.claims(name)] == [owner]
        assert student_family(name).name == owner
    assert teacher_family("cnn-4-8").name == "cnn"
    assert {teacher_family(name).name for name in ("minilm-l6", "bag-3", "tiny")} == {"bert"}
    configs = [each.student("bag-3", TEACHER) for each in registered(bag.Bags)]
    assert [family_of(config).name for config in configs] == ["bag"]


def test_a_folder_is_opened_by_the_family_it_names(bag, own_families, toy_teacher, tmp_path):
    family = student_family("bag-3")
    config = family.student("bag-3", load_model(toy_teacher).config)
    params = family.init(config, jax.random.key(0))
    tokenizer = load_model(toy_teacher).tokenizer_file
    family.save(tmp_path / "bag", config, params, tokenizer, ("a", "b"))
    assert load_model(tmp_path / "bag").digest == load_model(tmp_path / "bag").digest
    assert family_in(tmp_path / "bag") is family and family_in(toy_teacher).name == "bert"
    families._FAMILIES.pop(bag.BagConfig)
    with pytest.raises(UserError, match="has 'distill_jax_bag'; supported model types: 'bert'"):
        load_model(tmp_path / "bag")


def kinds():
    """Names of the classes of configs, outputs and tables of the house."""
    configs = {each.config_type.__name__ for each in registered(Family)}
    found = {"MultiTaskConfig", *configs}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                ending = node.name.endswith(("Table", "Output")) and "tables" not in file.parts
                if ending and node.name != "ExampleTable":
                    found.add(node.name)
    assert {"BertConfig", "ModelOutput", "RankingOutput", "TokenTable", "ImageTable"} <= found
    return found


def asks_for(source, names):
    """Lines of a module that ask whether something is of one of these classes."""
    for node in ast.walk(ast.parse(source)):
        asked = []
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            asked = [node.args[1]]
        elif isinstance(node, ast.Compare) and "type(" in ast.unparse(node.left):
            asked = node.comparators
        elif isinstance(node, ast.MatchClass):
            asked = [node.cls]
        words = {each.id for part in asked for each in ast.walk(part) if isinstance(each, ast.Name)}
        if words & names:
            yield node.lineno if hasattr(node, "lineno") else 0


def test_nobody_outside_the_models_asks_what_something_is():
    names = kinds()
    found = {}
    for file in PACKAGE.rglob("*.py"):
        place = file.relative_to(PACKAGE)
        if place.parts[0] != "models":
            lines = list(asks_for(file.read_text(encoding="utf-8"), names))
            found |= {str(place): lines} if lines else {}
    assert found == {}
    for broken in (
        "assert isinstance(config, (int, BertConfig))",
        "if type(table) is TokenTable: pass",
        "match config:\n    case BertConfig(): pass",
    ):
        assert list(asks_for(broken, names))


def test_every_config_says_what_everybody_may_know(bag):
    for name in ("tiny", "cnn-4-8", "bag-3"):
        family = student_family(name)
        teacher = TEACHER if family.reads == "texts" else family.alone("cnn-2-4", 2)
        config = family.student(name, teacher)
        assert config.num_labels == teacher.num_labels and hash(config) == hash(config)
        assert config.token_range == teacher.token_range
        assert dataclasses.is_dataclass(config) and family_of(config) is family
