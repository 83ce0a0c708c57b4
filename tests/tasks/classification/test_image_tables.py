"""A table of classifiers of a user's images: trained as a population, jittered, told in errors."""

import dataclasses

import numpy as np
import pytest
from digit_tables import Runner
from image_files import quarters, written

from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Sweep, axis
from distill_jax.evaluation.open_images import open_images
from distill_jax.tables.columns import ACCURACY, ERRORS
from distill_jax.tables.evidence import unpack_correct
from distill_jax.tables.names import PIXELS, YARDSTICK
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.training.optimizer import OptimizerConfig

IMAGES, LABELS = quarters(400)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    return Runner(tmp_path, monkeypatch)


@pytest.fixture
def sweep(tmp_path):
    """A table of ce and kl on images, three seeds, under a teacher of moved images."""
    file = written(tmp_path / "own.npz", IMAGES, labels=LABELS)
    training = TrainingConfig(
        steps=40, evaluations=2, batch_size=32, optimizer=OptimizerConfig(2e-2)
    )
    teacher = TeacherConfig("mlp-16-drop", training=dataclasses.replace(training, jitter=1))
    setup = ClassifierSetup(DataConfig(f"images:{file}", label_fraction=1.0), teacher, "mlp-8")
    return Sweep(
        name="images",
        title="images",
        base=Cell(setup, (Train("ce", training),)),
        rows=axis("objective", ["ce", "kl(T=2)"]),
        groups=axis("student", ["mlp-8"]),
        seeds=(0, 1, 2),
        columns=(ACCURACY, ERRORS),
        references=(YARDSTICK,),
    )


def test_students_of_images_are_trained_together_and_answer_as_they_did(run, sweep):
    found = run(sweep, "together", "vmap")
    assert len(found) == 6
    for row in found.values():
        right = unpack_correct(row.test_correct)
        assert row.metrics["test/errors"] == (~right).sum()
        assert row.metrics["test/accuracy"] == right.mean() > 0.5
    assert {row.row for row in run.rows} >= {PIXELS, "teacher"}
    (teacher,) = [row for row in run.rows if row.row == "teacher"]
    assert teacher.config["training"]["jitter"] == 1
    folder = run._root / "together/runs" / found["ce", "mlp-8", 0].hash
    kept = np.load(folder / "test_logits.npz")
    keys = {key: n for n, key in enumerate(content(IMAGES))}
    said = open_images(folder).classify(IMAGES[[keys[each] for each in kept["ids"]]])
    names = kept["label_names"][kept["logits_NC"].argmax(axis=1)]
    assert [answer.label for answer in said] == list(names)


def content(images):
    from distill_jax.data.image_files import content_keys

    return content_keys(images[..., None])


def test_jitter_changes_what_is_learnt_and_is_part_of_the_hash(run, sweep):
    jittered = sweep.base.but(**{"training": dataclasses.replace(sweep.base.training, jitter=1)})
    few = dataclasses.replace(
        sweep, rows=axis("objective", ["ce"]), groups=axis("student", ["mlp-8"]),
        references=(), baseline="ce",
    )  # fmt: skip
    plain, moved = (
        run(each, name, "vmap")
        for name, each in (("plain", few), ("moved", dataclasses.replace(few, base=jittered)))
    )
    for where, row in plain.items():
        assert row.hash != moved[where].hash
        logits = [
            np.load(run._root / name / "runs" / each.hash / "test_logits.npz")["logits_NC"]
            for name, each in (("plain", row), ("moved", moved[where]))
        ]
        assert np.abs(logits[0] - logits[1]).max() > 1e-3


def test_a_student_of_moved_images_wants_its_teacher_live(run, sweep):
    training = dataclasses.replace(sweep.base.training, jitter=1)
    moved = dataclasses.replace(sweep, base=sweep.base.but(training=training))
    with pytest.raises(UserError, match="let it be asked live"):
        run(moved, "cached")


def test_a_student_that_never_saw_a_class_is_measured_with_the_right_bias(run, sweep):
    base = sweep.base.but(objective="kl(T=2)")
    rows = axis("data.left_out", {"all": (), "without 3": ("3",)})
    unseen = dataclasses.replace(
        sweep, base=base, rows=rows, groups=axis("student", ["mlp-8"]), references=()
    )
    found = run(unseen, "unseen", "vmap")
    for seed in range(3):
        at = found["without 3", "mlp-8", seed].metrics
        gain = at["test/errors"] - at["test/errors_biased"]
        count = len(unpack_correct(found["all", "mlp-8", seed].test_correct))
        assert at["test/gain_by_bias"] == pytest.approx(gain / count)
        assert "left_out/bias" not in found["all", "mlp-8", seed].metrics
    assert len([row for row in run.rows if row.row == "teacher"]) == 1  # one for both rows
    with pytest.raises(UserError, match="'ce' listens to no teacher"):
        run(dataclasses.replace(unseen, base=base.but(objective="ce")), "deaf")
