"""``distill_jax.distil``: a teacher and texts in, a student out."""

import csv
import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import distill_jax
from distill_jax import api
from distill_jax.cli.compare import parse_arguments, sweep_of
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.tables.ledger import Ledger

QUICK = {"student": "1x8x2", "steps": 2, "teacher_epochs": 1.0, "track": "none", "quiet": True}


def lists(folder, split):
    with open(folder / f"{split}.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["sentence"] for row in rows], [row["label"] for row in rows]


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, distill_jax\n"
        "assert 'distil' in dir(distill_jax)\n"
        "heavy = {'jax', 'numpy', 'tyro', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from distill_jax import distil\n"
        "assert distil.__module__ == 'distill_jax.api'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'destil'"):
        _ = distill_jax.destil


@pytest.fixture(scope="module")
def by_lists(toy_teacher, toy_reviews, tmp_path_factory):
    """(folder, a student that was taught there)."""
    folder = tmp_path_factory.mktemp("distil") / "run"
    return folder, distill_jax.distil(
        toy_teacher,
        lists(toy_reviews, "train"),
        objective="0.9*kl(T=2) + 0.1*ce",
        unlabelled=["the music is good", "the cast was bad"],
        test=lists(toy_reviews, "test"),
        folder=folder,
        **QUICK,
    )


def test_scores_are_those_of_what_it_predicts(by_lists, toy_reviews):
    _, student = by_lists
    texts, labels = lists(toy_reviews, "test")
    answers = student.predict(texts)
    right = [answer.label == label for answer, label in zip(answers, labels, strict=True)]
    assert student.scores["accuracy"] == pytest.approx(sum(right) / len(right))
    assert {"macro_f1", "fidelity"} <= set(student.scores)
    assert 0 < student.teacher_scores["accuracy"] < 1
    assert "fidelity" not in student.teacher_scores
    assert student.predict([" "]) == [None]


def test_what_is_saved_answers_alike(by_lists, tmp_path):
    _, student = by_lists
    texts = ["the film is good", "bad"]
    saved = student.save(tmp_path / "student")
    assert open_classifier(saved).classify(texts) == student.predict(texts)
    with pytest.raises(UserError, match="exists and is not empty"):
        student.save(saved)


def test_it_is_a_table_of_one_row_that_is_not_trained_again(
    by_lists, toy_teacher, toy_reviews, monkeypatch
):
    folder, student = by_lists
    rows = Ledger(folder / "ledger.jsonl").rows()
    assert [(row.experiment, row.row) for row in rows] == [
        ("distil", "teacher"),
        ("distil", "0.9*kl(T=2) + 0.1*ce"),
    ]
    assert student.folder == folder / "runs" / rows[1].hash

    def trained(*arguments, **keywords):
        raise AssertionError("trained again")

    monkeypatch.setattr("distill_jax.engine.engine.train", trained)
    again = distill_jax.distil(
        toy_teacher,
        lists(toy_reviews, "train"),
        objective="0.9*kl(T=2) + 0.1*ce",
        unlabelled=["the music is good", "the cast was bad"],
        test=lists(toy_reviews, "test"),
        folder=folder,
        **QUICK,
    )
    assert again.scores == student.scores
    assert Ledger(folder / "ledger.jsonl").rows() == rows


def test_commands_read_it_as_any_table(by_lists, capsys):
    folder, _ = by_lists
    dispatch(["ledger", str(folder)])
    assert "2 rows" in capsys.readouterr().out
    dispatch(["table", str(folder)])
    assert "0.9*kl(T=2) + 0.1*ce" in (folder / "table.md").read_text(encoding="utf-8")


def test_files_in_a_temporary_folder(toy_teacher, toy_reviews, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    student = distill_jax.distil(toy_teacher, f"files:{toy_reviews}", objective="ce", **QUICK)
    folder = student.folder
    assert folder.is_dir() and list(tmp_path.iterdir()) == []
    assert student.predict(["the film is good"])[0].label in ("pos", "neg")
    assert capsys.readouterr().out == ""
    del student
    assert not folder.exists()


def test_its_defaults_are_those_of_the_command():
    args = api._checked("T", "tiny", "kl", 0, {})
    ours = sweep_of(dataclasses.replace(args, data="files:F"))
    flags = ["--data", "files:F", "--teacher", "T", "--objectives", "kl", "--seeds", "0"]
    theirs = sweep_of(parse_arguments([*flags, "--no-yardsticks"], "t"))
    assert ours == theirs
    assert api._checked("T", "tiny", "kl", 0, {"plugin": "mine.py"}).plugin == Path("mine.py")


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'.*Did you mean 'epochs'"),
        ({"seeds": (1, 2)}, "unknown setting 'seeds'"),
        ({"epochs": "two"}, "epochs must be a number or nothing, not 'two'"),
        ({"student": "tinny"}, "Did you mean 'tiny'"),
        ({"objective": "mse_logit"}, "Did you mean 'mse_logits'"),
        ({"unlabelled": ["x"]}, "'files:nowhere' has its own splits"),
        ({}, "no folder nowhere"),
    ],
)
def test_mistakes_are_one_line(keywords, told):
    with pytest.raises(UserError, match=told) as error:
        distill_jax.distil("nobody", "files:nowhere", **keywords)
    assert "\n" not in str(error.value)


def test_one_text_is_no_list_of_texts(by_lists):
    _, student = by_lists
    with pytest.raises(UserError, match="a list of texts"):
        student.predict("the film is good")
