"""experiments/minimal.py: the whole path without tables, small."""

import ast
import re

import pytest
from scripts import ROOT, module_at

from distill_jax.data.load import load_dataset
from distill_jax.evaluation.open_classifier import open_classifier

SCRIPT = ROOT / "experiments/minimal.py"


def test_it_is_read_in_one_go_and_stands_on_nothing_of_the_sweeps():
    source = SCRIPT.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 120
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert "distill_jax.training.step" in imported
    assert [name for name in imported if re.match(r"distill_jax\.(engine|tasks)", name)] == []


def test_the_saved_student_answers_as_was_printed(toy_teacher, toy_reviews, tmp_path, capsys):
    minimal = module_at(SCRIPT)
    data, output = f"files:{toy_reviews}", tmp_path / "student"
    minimal.main(
        minimal.Minimal(
            teacher=str(toy_teacher),
            data=data,
            label_fraction=0.5,
            student="1x8x2",
            teacher_steps=2,
            steps=60,
            output=output,
        )
    )
    told = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", told.partition("student 1x8x2")[2])]
    assert len(losses) == 4 and losses[-1] < losses[0]
    (teacher, student) = re.findall(r"test accuracy: teacher (\S+), student (\S+)", told)[0]

    dataset = load_dataset(data)
    test = dataset.splits["test"]
    answers = open_classifier(output).classify(test.texts)
    right = [
        answer.label == dataset.label_names[label]
        for answer, label in zip(answers, test.labels_N, strict=True)
    ]
    assert float(student) == pytest.approx(sum(right) / len(right), abs=1e-4)
    assert 0 <= float(teacher) <= 1
