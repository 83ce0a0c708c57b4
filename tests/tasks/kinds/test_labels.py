"""Several labels a text, the whole way in small."""

import csv
import json

import numpy as np
import pytest
from kind_tables import numbers, run
from scipy import special
from sklearn.metrics import f1_score

from distill_jax.api import distil
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.evaluation.several import best_threshold
from distill_jax.tables.evidence import scores_by_example
from distill_jax.tables.report_errors import errors
from distill_jax.tasks.classification.models import load_checkpoint
from distill_jax.tasks.kinds.kinds import kind_named

FLAGS = ("--task", "labels", "--label", "moods", "--label-separator", "|")
NAMES = ("bad", "good", "music")


def test_the_whole_way(small, toy_tasks, tmp_path, capsys):
    assert small(*FLAGS).objectives == ("labels", "bce", "mse_logits", "hidden_mse + bce")
    args = small(*FLAGS, objectives=("bce",), yardsticks=True, select="macro-F1")
    _, rows, said = run(args, tmp_path / "out")
    assert "labels bad, good, music" in said
    by_row = {(row.row, row.seed): row for row in rows}
    assert {"constant", "tfidf+logreg"} <= {row.row for row in rows}
    student = by_row["bce", 0]
    folder = tmp_path / "out/runs" / student.hash
    kept = np.load(folder / "test_logits.npz")["logits_NC"]
    with open(toy_tasks / "test.csv", encoding="utf-8") as file:
        moods = [set(row["moods"].split("|")) for row in csv.DictReader(file)]
    labels = np.array([[name in own for name in NAMES] for own in moods])

    task = json.loads((folder / "model/task.json").read_text())
    threshold = task["saved"]["threshold"]
    assert task["task"] == "labels" and threshold == student.metrics["threshold"]
    given = special.expit(kept.astype(np.float64)) >= threshold
    for average in ("micro", "macro"):
        expected = f1_score(labels, given, average=average, zero_division=0)
        assert student.metrics[f"test/{average}_f1"] == pytest.approx(expected)
        contributed = scores_by_example(student, f"test/{average}_f1")
        assert contributed.mean() == pytest.approx(expected, abs=1e-5)

    out = tmp_path / "answers.jsonl"
    test = str(toy_tasks / "test.csv")
    dispatch(["predict", str(folder), "--input", test, "--output", str(out)])
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    found = [[name in answer["predicted"] for name in NAMES] for answer in answers]
    assert np.array_equal(found, given)
    assert set(answers[0]["probabilities"]) == set(NAMES)
    capsys.readouterr()
    dispatch(["predict", str(folder), "good film", "--format", "csv"])
    heading, row = capsys.readouterr().out.splitlines()
    assert heading == "text,predicted,probability of bad,probability of good,probability of music"
    assert row.count(",") >= 4

    report = json.loads((folder / "mistakes.json").read_text())
    assert [each["name"] for each in report["classes"]] == list(NAMES)
    page = "".join(errors(student, tmp_path / "out"))
    assert "precision %" in page and "Which class for which" not in page


def test_the_threshold_is_chosen_on_validation_alone(small, tmp_path):
    said_N = np.random.default_rng(0).normal(size=(40, 3))
    labels = kind_named("labels")

    class Split:
        targets = (np.random.default_rng(1).random((40, 3)) < 0.3).astype(np.float32)

    fitted = labels.calibrate(said_N, Split(), None)
    assert fitted == {"threshold": best_threshold(said_N, Split.targets)}
    shifted = labels.scores(said_N, Split(), None, calibrated={"threshold": 0.999})
    assert shifted["micro_f1"] < labels.scores(said_N, Split(), None)["micro_f1"]


def test_teachers_together_are_the_mean_of_their_probabilities():
    one, other = np.float32([[0.0, 3.0]]), np.float32([[2.0, -3.0]])
    both = kind_named("labels").mean([one, other])
    expected = (special.expit(one) + special.expit(other)) / 2
    assert special.expit(both) == pytest.approx(expected, abs=1e-6)


@pytest.mark.long
def test_members_are_trained_as_alone(small, tmp_path):
    args = small(*FLAGS, objectives=("bce(T=2)",), seeds=(0, 1))
    run(args, tmp_path / "one")
    run(args, tmp_path / "many", "vmap")
    one, many = numbers(tmp_path / "one"), numbers(tmp_path / "many")
    for key, (metrics, *_) in one.items():
        for name in ("test/map", "validation/bce"):
            expected = pytest.approx(metrics.get(name, np.nan), rel=1e-2, nan_ok=True)
            assert many[key][0].get(name, np.nan) == expected, (key, name)


def test_from_python_on_lists_with_patience(small, toy_teacher, toy_tasks, tmp_path):
    """A rate of 0 in float32: no look is better than the first, two more end it."""
    with open(toy_tasks / "train.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    moods = [[mood for mood in row["moods"].split("|") if mood] for row in rows]
    student = distil(
        toy_teacher,
        ([row["sentence"] for row in rows], moods),
        "1x8x2",
        "labels",
        task="labels",
        folder=tmp_path / "own",
        quiet=True,
        steps=40,
        evaluations=40,
        patience=2,
        learning_rate=1e-20,
        teacher_epochs=1,
        teacher_learning_rate=1e-4,
        max_shapes=1,
        max_length=16,
        track="none",
    )
    history = json.loads((student.folder / "history.json").read_text())
    assert [at["step"] for at in history] == [1, 2, 3]
    given, blank = student.predict(["good film", " "])
    assert set(given.probabilities) == set(NAMES) and blank is None
    assert 0 <= student.scores["micro_f1"] <= 1

    model = student.save(tmp_path / "saved")
    raw = json.loads((model / "config.json").read_text())
    assert raw["problem_type"] == "multi_label_classification"
    assert "predict FOLDER" in (model / "README.md").read_text()
    with pytest.raises(UserError, match="is for task classes"):
        load_checkpoint(str(model), num_labels=None, fresh=False)
