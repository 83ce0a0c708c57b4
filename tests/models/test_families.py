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
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
from distill_jax.objectives.resolve import resolve
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


@pytest.mark.long
def test_families_from_their_names_to_their_answers(bag, run, toy_reviews, capsys):
    expected = {
        "bag-8": {"vocab_size": 17, "width": 8, "max_positions": 32, "num_labels": 2},
        "static": {
            "vocab_size": 17, "width": 16, "num_labels": 2, "max_positions": 32,
            "type_vocab_size": 2, "dropout": 0.1,
        },
        "bilstm-4": {
            "vocab_size": 17, "width": 4, "num_labels": 2, "max_positions": 32,
            "type_vocab_size": 2, "dropout": 0.1,
        },
    }  # fmt: skip
    spec, rows, out, said = run(*expected, "1x8x2")
    assert "self-checks: teacher deterministic" in said
    assert {place.group for place in spec.places} == {*expected, "1x8x2"}
    with open(Path(toy_reviews) / "test.csv", encoding="utf-8") as file:
        texts = [row["sentence"] for row in csv.DictReader(file)]
    for student, config in expected.items():
        of_student = [row for row in rows if row.group == student]
        assert len(of_student) == 4
        for row in of_student:
            assert row.config["model"] == config and row.history[-1]["step"] == 40
            opened = open_classifier(out / "runs" / row.hash)
            family = student_family(student)
            assert type(opened.model.config) is family.config_type and opened.max_length == 16
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(opened.model.params))
            kept = np.load(out / "runs" / row.hash / "test_logits.npz")
            names = kept["label_names"][kept["logits_NC"].argmax(axis=1)]
            assert [answer.label for answer in opened.classify(texts)] == list(names)
        dispatch(["predict", str(out / "runs" / row.hash), texts[0]])
        assert capsys.readouterr().out.split("\t")[0] == names[0]


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
        "static": "static", "static-random-3": "static", "bilstm-3": "bilstm",
        "distilbert": "bert_kin", "mobilebert": "mobilebert", "mobilebert-4x96": "mobilebert",
        "textcnn-random": "textcnn", "minilm-6x384": "bert", "tinybert-4": "bert",
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
    with pytest.raises(UserError, match="holds a bag, which is none of this version's"):
        load_model(tmp_path / "bag")


@pytest.fixture
def of_texts(bag):
    """name -> (config, parameters) of a student of each family that reads texts."""

    def student(name):
        family = student_family(name)
        config = family.student(name, TEACHER)
        rng = np.random.default_rng(0)
        drawn = family.init(config, jax.random.key(0))
        return config, jax.tree.map(
            lambda x: x + 0.1 * rng.standard_normal(x.shape, np.float32), drawn
        )

    return student


TEXT_STUDENTS = (
    "2x8x2",
    "static-5",
    "bilstm-3",
    "bag-4",
    "distilbert",
    "mobilebert-1",
    "textcnn-5",
)


def test_every_family_of_texts_is_among_those_tried(bag):
    tried = {student_family(name).name for name in TEXT_STUDENTS}
    named = [each for each in registered(Classifiers) if each.names]
    assert tried == {each.name for each in named if each.reads == "texts"}


@pytest.mark.parametrize("name", TEXT_STUDENTS)
def test_padding_never_changes_an_answer(of_texts, make_batch, name):
    """More of it, whatever tokens stand there, and whole rows of it."""
    config, params = of_texts(name)
    apply = jax.jit(build_model(config).apply)

    @given(st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 29))
    def holds(lengths, rubbish):
        tight = make_batch(lengths, 6, vocab_size=30)
        loose = make_batch([*lengths, 0], 9, vocab_size=30)
        ids = np.where(loose.where_BT, loose.input_ids_BT, rubbish).astype(np.int32)
        said = apply({"params": params}, tight)
        again = apply({"params": params}, loose.replace(input_ids_BT=ids))
        np.testing.assert_allclose(again.logits_BC[:-1], said.logits_BC, rtol=1e-5, atol=1e-6)
        assert np.isfinite(again.logits_BC).all()
        for number, hidden in said.hidden_states.items():
            real = np.asarray(tight.where_BT)[:, :, None]
            others = np.where(real, again.hidden_states[number][:-1, :6], 0)
            np.testing.assert_allclose(np.where(real, hidden, 0), others, rtol=1e-5, atol=1e-5)

    holds()


@pytest.mark.parametrize("name", TEXT_STUDENTS)
def test_gradients_do_not_come_from_padding(of_texts, make_batch, name):
    config, params = of_texts(name)

    def loss(params, batch):
        logits = build_model(config).apply({"params": params}, batch).logits_BC
        return jnp.sum(jnp.where(batch.where_B[:, None], logits**2, 0))

    grad = jax.jit(jax.grad(loss))
    tight = grad(params, make_batch([4, 2], 4, vocab_size=30))
    loose = grad(params, make_batch([4, 2, 0], 7, vocab_size=30))
    jax.tree.map(
        lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5), tight, loose
    )


@pytest.mark.parametrize("name", ["static-5", "bilstm-3", "mobilebert-1", "textcnn-5"])
def test_a_population_under_vmap_equals_its_members(of_texts, make_batch, name):
    config, params = of_texts(name)
    batch = make_batch([4, 2], 4, vocab_size=30)

    def loss(params):
        return jnp.sum(build_model(config).apply({"params": params}, batch).logits_BC ** 2)

    members = [params, jax.tree.map(lambda x: 1.5 * x, params)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.jit(jax.vmap(jax.grad(loss)))(stacked)
    for number, member in enumerate(members):
        jax.tree.map(
            lambda many, one, n=number: np.testing.assert_allclose(
                many[n], one, rtol=1e-4, atol=1e-5
            ),
            together,
            jax.jit(jax.grad(loss))(member),
        )


@pytest.mark.parametrize("name", TEXT_STUDENTS)
def test_the_shape_is_what_the_output_has(of_texts, make_batch, name):
    config, params = of_texts(name)
    said = build_model(config).apply({"params": params}, make_batch([3, 2], 3, vocab_size=30))
    shape = config.shape
    assert sorted(said.hidden_states) == list(range(shape.num_layers + 1))
    for hidden in said.hidden_states.values():
        assert hidden.shape == (2, 3, shape.hidden_size)
    assert said.logits_BC.shape == (2, shape.num_labels) and said.logits_BC.dtype == np.float32
    assert bool(said.attention_scores) == (shape.num_heads > 0)


def test_losses_on_what_a_student_lacks_are_refused(of_texts):
    def refused(text, name):
        with pytest.raises(UserError) as caught:
            resolve(text, of_texts(name)[0].shape, TEACHER.shape)
        return str(caught.value)

    assert "compares attention, and the student has none" in refused("attention_kl", "bilstm-3")
    assert "compares attention, and the student has none" in refused("minilm", "bilstm-3")
    assert "compares layers, and the student has none" in refused("hidden_mse", "static-5")
    embeddings = resolve(
        "hidden_mse(embeddings=True)", of_texts("static-5")[0].shape, TEACHER.shape
    )
    assert "student 0 <- teacher 0" in embeddings.notes[0]
    assert resolve("hidden_mse + kl", of_texts("bilstm-3")[0].shape, TEACHER.shape).needs_teacher


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
    names = (
        "tiny",
        "cnn-4-8",
        "mlp-4-8",
        "bag-3",
        "static-3",
        "bilstm-3",
        "distilbert",
        "mobilebert",
    )
    for name in (*names, "textcnn-3"):
        family = student_family(name)
        teacher = TEACHER if family.reads == "texts" else family.alone(name, 2)
        config = family.student(name, teacher)
        assert config.num_labels == teacher.num_labels and hash(config) == hash(config)
        assert config.token_range == teacher.token_range
        assert dataclasses.is_dataclass(config) and family_of(config) is family
