"""How long a teacher is fine-tuned and at which rate: chosen on validation, told, gone on with."""

import dataclasses
import io
import json
import re
from functools import partial

import jax
import pytest
from rich.console import Console

from distill_jax.cli.compare import CompareLosses, sweep_of
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.classification.cells import TeacherConfig, TrainingConfig
from distill_jax.tasks.classification.table import Classification
from distill_jax.tasks.classification.teacher_rates import best_of, how_it_ended, in_short
from distill_jax.tasks.kinds.kinds import kind_named
from distill_jax.training.interrupt import Interrupted

CLASSES = kind_named("classes")


@pytest.fixture
def run(toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """(folder, changes) -> the teacher's row and what was said, of a table of one short student."""

    def go(folder, engine=Engine, home="home", **changes):
        monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / home))
        one_device = partial(engine, mesh=make_mesh(jax.devices()[:1]))
        monkeypatch.setattr(run_module, "Engine", one_device)
        args = CompareLosses(
            data=f"files:{toy_reviews}",
            teacher=str(toy_teacher),
            students=("1x8x2",),
            objectives=("ce",),
            seeds=(0,),
            steps=1,
            teacher_batch_size=16,
            max_shapes=1,
            max_length=16,
        )
        out = io.StringIO()
        run_table(
            Classification(sweep_of(dataclasses.replace(args, **changes))),
            tmp_path / folder,
            Reporter(Console(file=out, width=200)),
            track="none",
        )
        [row] = [r for r in Ledger(tmp_path / folder / "ledger.jsonl").rows() if r.row == "teacher"]
        return row, out.getvalue()

    return go


def measured(row):
    """What a run must reproduce: everything but times."""
    kept = {k: v for k, v in row.metrics.items() if not k.startswith("latency/")}
    return row.hash, row.selected_step, row.history, kept


def test_the_rate_of_the_better_validation_score_teaches(run, tmp_path):
    """A rate of nothing learns nothing; the row, its hash and its model are those of the other."""
    row, said = run("out", teacher_rates=(1e-9, 1e-2), teacher_min_steps=40, teacher_patience=0)
    assert re.search(r"teacher: rate 1e-2 of 1e-9, 1e-2 by validation (accuracy|loss)", said)
    assert row.config["training"]["optimizer"]["learning_rate"] == 1e-2
    assert row.metrics["train/steps"] == 40
    assert re.search(r"teacher: best step \d+ of 40, validation accuracy \d+\.\d%", said)
    alone, said = run(
        "alone", home="other", teacher_learning_rate=1e-2, teacher_min_steps=40, teacher_patience=0
    )
    assert measured(alone) == measured(row) and "teacher: rate" not in said
    assert len(list((tmp_path / "home/teachers").iterdir())) == 2
    assert not list((tmp_path / "out/runs").rglob("checkpoint"))


def test_a_stop_amid_the_second_rate_goes_on_there(run, tmp_path):
    changes = {"teacher_rates": (1e-3, 1e-2), "teacher_min_steps": 6}
    expected, _ = run("whole", home="other", **changes)
    labels = []

    class Impatient(Engine):
        def train(self, work, params, **given):
            labels.append(given["label"])
            self.stop.requested = len(labels) == 2
            return super().train(work, params, **given)

    with pytest.raises(Interrupted):
        run("stopped", Impatient, **changes)
    row, said = run("stopped", Impatient, **changes)
    assert labels[:3] == [f"fine-tuning the teacher at {rate}" for rate in ("1e-3", "1e-2", "1e-2")]
    assert "fine-tuning the teacher at 1e-2: goes on from step 1 of 12" in said
    assert measured(row) == measured(expected)


def test_a_teacher_that_learns_nothing_ends_by_patience(run, tmp_path):
    """A rate so low that no score moves; the planned length stays that of the schedule."""
    row, said = run("out", teacher_learning_rate=1e-30, teacher_min_steps=40, teacher_patience=2)
    assert "best step 4 of 12 (ended early, 40 planned)" in said
    assert "flat for the last 2 evaluations" in said
    assert row.metrics["train/steps"] == 12 and row.selected_step == 4
    [folder] = (tmp_path / "home/teachers").iterdir()
    kept = json.loads((folder / "training.json").read_text())
    assert (kept["steps"], kept["planned_steps"]) == (12, 40)
    assert row.config["training"]["min_steps"] == 40


def test_of_many_labels_no_rate_is_chosen(run, monkeypatch):
    monkeypatch.setattr("distill_jax.cli.teacher_training.RATES_WITHIN", 11)
    row, said = run("out", teacher_min_steps=12)
    long = "rate 1e-4, not chosen on validation: fine-tuning takes up to 12 steps, more than 11"
    assert f"teacher: {long}" in said
    assert row.config["training"]["optimizer"]["learning_rate"] == 1e-4


def curve(*accuracies, planned=None, best=None):
    history = [
        {"step": 10 * n, "accuracy": value, "nll": 1.0 / n, "macro_f1": value}
        for n, value in enumerate(accuracies, 1)
    ]
    best = best or 10 * (accuracies.index(max(accuracies)) + 1)
    steps = history[-1]["step"]
    return {"history": history, "selected_step": best, "planned_steps": planned or steps}


@pytest.mark.parametrize(
    ("training", "told"),
    [
        (
            curve(0.5, 0.7, 0.807),
            "best step 30 of 30, validation accuracy 80.7%, still rising: more --teacher-epochs "
            "may help",
        ),
        (curve(0.5, 0.7, 0.6), "best step 20 of 30, validation accuracy 70.0%, flat for the last "
         "1 evaluation"),
        (curve(0.7, 0.5, 0.7, best=30), "best step 30 of 30, validation accuracy 70.0%, flat for "
         "the last 2 evaluations"),
        (curve(0.7, 0.5, 0.6, planned=90), "best step 10 of 30 (ended early, 90 planned), "
         "validation accuracy 70.0%, flat for the last 2 evaluations"),
        (curve(0.7, 1.0), "best step 20 of 20, validation accuracy 100.0%"),
        (curve(0.7), "best step 10 of 10, validation accuracy 70.0%"),
        ({}, None),
    ],
)  # fmt: skip
def test_the_end_of_a_curve_is_told(training, told):
    assert how_it_ended(training, TrainingConfig(), CLASSES) == told


def test_a_loss_falls():
    by_loss = TrainingConfig(select="loss")
    assert how_it_ended(curve(0.5, 0.4), by_loss, CLASSES) is not None
    assert "still falling" in how_it_ended(curve(0.5, 0.4, best=20), by_loss, CLASSES)


@pytest.mark.parametrize(("select", "expected"), [("accuracy", 2), ("macro_f1", 1), ("loss", 0)])
def test_rates_are_compared_by_what_selects_and_then_by_loss(select, expected):
    scores = [
        {"accuracy": 0.8, "macro_f1": 0.5, "nll": 0.1},
        {"accuracy": 0.9, "macro_f1": 0.9, "nll": 0.5},
        {"accuracy": 0.9, "macro_f1": 0.7, "nll": 0.4},
        {},
    ]
    assert best_of(scores, TrainingConfig(select=select), CLASSES) == expected
    assert best_of([scores[1], scores[1]], TrainingConfig(select=select), CLASSES) == 0


def test_rates_in_short():
    assert [in_short(r) for r in (1e-4, 2e-4, 2.5e-5, 0.01, 1.0)] == [
        "1e-4", "2e-4", "2.5e-5", "1e-2", "1e0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": (1e-4, 1e-4)}, "repeat themselves: 0.0001, 0.0001"),
        ({"rates": (1e-4, -1.0)}, "learning rate must be positive"),
        ({"rates_within": -1}, "rates_within"),
    ],
)
def test_impossible_rates_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        TeacherConfig(**changes)
