"""Recipes from the command line to the saved student: alone, together, after a stop."""

import dataclasses
import io
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from distill_jax.cli.compare import sweep_of
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.tables.names import TRAINED
from distill_jax.tasks.classification.finished import cell_of
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.interrupt import Interrupted

MESH = make_mesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A teacher that one test fine-tuned serves the others."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def world(small_table, home, monkeypatch):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(home))
    return partial(small_table, objectives=("kl",), seeds=(0, 1), steps=6)


def run(args, folder, strategy="sequential"):
    out = io.StringIO()
    spec, rows = run_table(
        Classification(sweep_of(args)),
        folder,
        Reporter(Console(file=out, width=200)),
        track="none",
        strategy=strategy,
        options=args.options,
    )
    return spec, [row for row in rows if row.row != "teacher"], out.getvalue()


def numbers(rows):
    return {
        (row.row, row.seed): {k: v for k, v in row.metrics.items() if not k.startswith("latency/")}
        for row in rows
    }


def assert_near(rows, others):
    first, second = numbers(rows), numbers(others)
    assert first.keys() == second.keys()
    for place, found in first.items():
        assert found["test/nll"] == pytest.approx(second[place]["test/nll"], rel=2e-3), place


ALL = {
    "students": ("l2",),
    "recipe": "rdrop + fgm(0.1) + lora(2)",
    "rate": ("lora/layer_1=0.5",),
    "layer_decay": 0.9,
}


@pytest.mark.long
def test_all_together_alone_in_parts_and_after_a_stop(world, tmp_path, monkeypatch):
    args = world(**ALL)
    spec, rows, _ = run(args, tmp_path / "alone")
    assert any("Recipe of all students: `fgm(0.1) + lora(2) + rdrop`." in p for p in spec.protocol)
    _, together, _ = run(args, tmp_path / "together", "vmap")
    assert_near(rows, together)
    parts = dataclasses.replace(args, options=RunOptions(accumulate=4))
    assert_near(rows, run(parts, tmp_path / "parts")[1])

    class Impatient(Engine):
        def train(self, *args, **given):
            self.stop.requested = not (tmp_path / "stopped").exists()
            (tmp_path / "stopped").touch()
            return super().train(*args, **given)

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "Engine", partial(Impatient, mesh=MESH))
        with pytest.raises(Interrupted):
            run(args, tmp_path / "disturbed")
    _, again, said = run(args, tmp_path / "disturbed")
    assert "goes on from step 1" in said
    assert numbers(again) == numbers(rows)


def test_a_lora_student_is_saved_as_one_model(world, tmp_path, toy_reviews):
    _, plain, _ = run(world(students=("l2",)), tmp_path / "plain")
    _, rows, _ = run(world(students=("l2",), recipe="lora(2)"), tmp_path / "lora")
    row, folder = rows[0], tmp_path / "lora/runs" / rows[0].hash
    assert row.metrics["parameters"] == plain[0].metrics["parameters"] == plain[0].metrics[TRAINED]
    width, head = 16, 16 * 2 + 2
    pooler = 16 * 16 + 16
    assert row.metrics[TRAINED] == 2 * 2 * (2 * width + 2 * width) + head + pooler
    assert row.config["training"]["recipe"] == "lora(2)" and cell_of(row).hash == row.hash
    saved = load_file(folder / "model/model.safetensors")
    assert not any("lora" in name for name in saved)
    theirs = load_file(tmp_path / "plain/runs" / plain[0].hash / "model/model.safetensors")
    same = {name for name in saved if np.array_equal(saved[name], theirs[name])}
    assert same == set()  # all moved there, few here, but none to the same place
    kept = np.load(folder / "test_logits.npz", allow_pickle=False)
    lines = (toy_reviews / "test.csv").read_text().splitlines()[1:]
    texts = {line.split(",")[0]: line.split(",")[1] for line in lines}
    opened = open_classifier(folder / "model")
    said = opened.classify([texts[each] for each in kept["ids"].tolist()])
    expected_NC = jax.nn.softmax(kept["logits_NC"] / np.float32(opened.temperature))
    found_NC = np.array([list(answer.probabilities.values()) for answer in said])
    np.testing.assert_allclose(found_NC, expected_NC, atol=1e-5)


def test_what_is_frozen_is_saved_as_it_started(world, tmp_path):
    """Of all tokens, those that never occur among them; in a population too."""
    args = world(freeze=("^embeddings/",), seeds=(0,))
    _, (row,), _ = run(args, tmp_path / "one")
    _, (other,), _ = run(dataclasses.replace(args, steps=3), tmp_path / "other", "vmap")
    one, two = (
        load_file(tmp_path / name / "runs" / r.hash / "model/model.safetensors")
        for name, r in (("one", row), ("other", other))
    )
    frozen = {name for name in one if np.array_equal(one[name], two[name])}
    assert frozen == {name for name in one if "embeddings." in name}
    assert row.metrics[TRAINED] < row.metrics["parameters"]


def test_recipes_count_in_the_hash_and_the_teacher_has_none(world, tmp_path):
    hashes = set()
    for changes in ({}, {"recipe": "rdrop"}, {"layer_decay": 0.5}, {"freeze": ("layer_1/",)}):
        sweep = sweep_of(world(**changes))
        cell = sweep.entries()[0].cell
        hashes.add(cell.but(data_digest="d", teacher_digest="t").hash)
        assert cell.setup.teacher.training.recipe == ""
        assert not cell.setup.teacher.training.optimizer.has_factors
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": ("embedings",)}, "the nearest are embeddings"),
        ({"rate": ("layer_7=0.5",)}, "'layer_7' is found in .*the nearest are layer_1"),
        ({"rate": ("layer_1",)}, "REGEX=FACTOR"),
        ({"rate": ("layer_1=much",)}, "REGEX=FACTOR"),
        ({"freeze": ("(",)}, "no regular expression"),
        ({"recipe": "rdrp"}, "unknown ingredient 'rdrp'.*'rdrop'"),
        ({"recipe": "lora", "students": ("bilstm-4",)}, "no kernel of the student"),
        ({"layer_decay": 0.5, "students": ("static-4",)}, "this one has none"),
        ({"layer_decay": 2.0}, "layer decay must be in"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(world, tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as told:
        run(world(**changes), tmp_path / "out")
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "out").rglob("*.safetensors"))


@pytest.mark.parametrize("student", ["bilstm-4", "static-4"])
def test_attacks_find_the_embeddings_of_every_family(world, tmp_path, student):
    args = world(students=(student,), recipe="freelb(2)", seeds=(0,), steps=2)
    _, (row,), _ = run(args, tmp_path / "out")
    plain = run(dataclasses.replace(args, recipe=""), tmp_path / "plain")[1][0]
    assert row.metrics["test/nll"] != plain.metrics["test/nll"]
