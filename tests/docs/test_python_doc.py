"""The Python of README.md and docs/python.md does what they say."""

import csv
import re
from pathlib import Path

import pytest

from distill_jax.api import SETTINGS
from distill_jax.cli import compare, teacher_training
from distill_jax.evaluation.open_classifier import open_classifier

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, toy_teacher):
    """(page, names, further replacements) -> lines that it printed, what is bound afterwards."""

    def run(page, names, replaced):
        (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
        for old, new in {"minilm-l6": str(toy_teacher), **replaced}.items():
            assert old in code
            code = code.replace(old, new)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(compare, "MIN_STEPS", 12)  # these few sentences are learnt by then
        monkeypatch.setattr(teacher_training, "MIN_STEPS", 12)
        exec(code, names)
        return capsys.readouterr().out.splitlines(), names["student"]

    return run


def test_the_readmes(run, toy_reviews, tmp_path):
    with open(toy_reviews / "train.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = {
        "texts": [row["sentence"] for row in rows],
        "labels": [row["label"] for row in rows],
        "more_texts": ["the music is good", "the cast was bad"],
    }
    told, student = run(README, names, {})
    assert told[-2] == f"{student.scores['accuracy']} {student.teacher_scores['accuracy']}"
    assert told[-1] in ("pos", "neg")
    text = ["a gripping, clever film"]
    assert open_classifier(tmp_path / "my_student").classify(text)[0].label == told[-1]
    assert any("serve as test" in line for line in told)
    assert "serve as test" in (tmp_path / "results/mine/table.json").read_text(encoding="utf-8")


def test_the_pages(run, toy_reviews, tmp_path):
    told, student = run(PAGE, {}, {"FOLDER": str(toy_reviews), "tiny": "1x8x2"})
    assert [line.split()[0] in ("pos", "neg") for line in told[-2:]] == [True, True]
    assert {path.name for path in tmp_path.iterdir()} == {"my_student"}
    fields = re.findall(r"^\| (.*?) \|", PAGE.partition("| of the student |")[2], flags=re.M)
    named = {name for field in fields for name in re.findall(r"`([a-z_]+)", field)}
    assert named == {"scores", "teacher_scores", "predict", "save", "folder"}
    assert all(hasattr(student, name) for name in named)
    metrics = re.search(r"read once: (.*?) and so on", PAGE)[1]
    assert set(re.findall(r"`(\w+)`", metrics)) <= set(student.scores)


def test_the_settings_that_the_page_names_are_settings():
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| anything else")]
    named = re.findall(r"`(\w+)=", row)
    assert len(named) == 7 and set(named) <= set(SETTINGS)
