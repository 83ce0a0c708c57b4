"""The first step of every task gives the numbers that it always gave.

What changes them on purpose makes ``golden_step.json`` anew:
``GOLDEN_STEP=write .venv/bin/python -m pytest tests/tasks/test_golden_step.py``
"""

import io
import json
import os
from pathlib import Path

import jax
import pytest
from rich.console import Console
from small_tables import among_walks, pairs, walks, write_pairs

from distill_jax.core.mesh import make_mesh
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.sweep import Point, Sweep
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.table import Classification
from distill_jax.tasks.search.cells import (
    SearchTraining,
)
from distill_jax.tasks.search.table import Search
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.loop import step_numbers
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.recommender import FitConfig

GOLDEN = Path(__file__).with_name("golden_step.json")
FAST = OptimizerConfig(learning_rate=0.05)
"""Teachers learn enough in two steps to say something: a KL near 0 is mostly rounding."""
SHORT = TrainingConfig(steps=2, evaluations=1, batch_size=8, optimizer=FAST)


def classifiers(data, teacher, student):
    setup = ClassifierSetup(data, TeacherConfig(teacher, training=SHORT), student)
    cell = Cell(setup, (Train("0.9*kl(T=4) + 0.1*ce", SHORT),))
    return Classification(
        Sweep("toy", "toy", cell, (Point("kl"),), (Point(student),), (0,), (ACCURACY,))
    )


@pytest.fixture
def text(toy_teacher, toy_reviews):
    data = DataConfig(f"files:{toy_reviews}", label_fraction=0.5, max_length=16)
    return classifiers(data, str(toy_teacher), "1x8x2")


@pytest.fixture
def images():
    return classifiers(DataConfig("digits", label_fraction=0.5), "cnn-4-8", "cnn-2-4")


@pytest.fixture
def recommendation():
    fit = FitConfig(epochs=1, eval_every=1, batch_size=16, optimizer=FAST)
    rows = {"kl": {"objective": "0.5*full_softmax + 0.5*kl(top=5, T=2)"}}
    return among_walks(walks(rows, training=fit, dropout=0.1))


@pytest.fixture
def search(toy_teacher, tmp_path):
    short = SearchTraining(steps=2, evaluations=1, batch_size=8, list_size=3)
    rows = {"kl": {"objective": "ce + kl(T=2)"}}
    return Search(pairs(write_pairs(tmp_path), toy_teacher, rows, training=short))


@pytest.mark.parametrize("task", ["text", "images", "recommendation", "search"])
def test_the_first_step_is_what_it_was(task, request, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    found = first_step(request.getfixturevalue(task), tmp_path)
    kept = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("GOLDEN_STEP") == "write":
        GOLDEN.write_text(json.dumps(kept | {task: found}, indent=1, sort_keys=True) + "\n")
        pytest.skip(f"{GOLDEN} is made anew")
    expected = kept[task]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-5)
    assert found["terms"].keys() == expected["terms"].keys()
    for term, sum_and_count in expected["terms"].items():
        assert found["terms"][term] == pytest.approx(sum_and_count, rel=1e-5), term


def first_step(task, folder):
    """Loss, (sum, count) of each term and gradient norm of the one run of a table."""
    reporter = Reporter(Console(file=io.StringIO()))
    with StopRequest() as stop:
        one_device = make_mesh(jax.devices()[:1])
        engine = Engine(folder / "runs", reporter, stop, "none", mesh=one_device)
        engine.folder.mkdir()
        [entry] = task.sweep.entries()
        task.prepare(engine, [entry])
        task.raise_teachers(Ledger(folder / "ledger.jsonl"))
        run = task.run(entry)
        work = run.works[0]
        batch, said = work.feed(run.outputs())(0)
        numbers = step_numbers(work.objective, work.optimizer, work.seed, 0, work.steps)
        put = engine.layout
        state = put.put_state(engine.new_state(work, run.start()))
        step = engine.step(work)
        _, metrics = step(state, *put.put_batch(batch, said), put.put_numbers(numbers))
    assert metrics.applied
    return {
        "loss": float(metrics.loss),
        "grad_norm": float(metrics.grad_norm),
        "terms": {name: [float(x) for x in both] for name, both in metrics.terms.items()},
    }
