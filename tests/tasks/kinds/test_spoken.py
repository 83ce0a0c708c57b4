"""Files of numbers, and of labels that do not exclude each other, as teachers."""

import csv
import json

import numpy as np
import pytest
from kind_tables import run

from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelOutput, as_batch
from distill_jax.objectives.predictions import PredictionReader
from distill_jax.tasks.kinds.kinds import kind_named
from distill_jax.tasks.kinds.number import Numbers
from distill_jax.teachers.predictions import NUMBER, read_predictions


def rows_of(folder):
    for split in ("train", "dev", "test"):
        with open(folder / f"{split}.csv", encoding="utf-8") as file:
            yield from ((split, row) for row in csv.DictReader(file))


def test_numbers_in_the_labels_units_teach(small, toy_teacher, toy_tasks, tmp_path):
    """Keyed by text, of all examples but two of train: nobody listens there."""
    file, silent = tmp_path / "said.csv", 2
    with open(file, "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["sentence", "rating", "predicted"])
        for number, (_, row) in enumerate(rows_of(toy_tasks)):
            if number >= silent:
                writer.writerow([row["sentence"], "unread", float(row["rating"]) + 0.5])
    args = small(
        "--task", "number", "--label", "rating", teacher=(f"file:{file}",), fine_tune=False,
        teacher_learning_rate=None, tokenizer=str(toy_teacher), objectives=("mse_regression",),
    )  # fmt: skip
    _, rows, said = run(args, tmp_path / "out")
    assert "said.csv: numbers by text, of 58 of 60 training, 24 of 24 validation" in said
    assert "nobody listens there" in said
    teacher, student = rows
    assert teacher.metrics["test/mse"] == pytest.approx(0.25, rel=1e-3)
    assert teacher.metrics["test/pearson"] == pytest.approx(1.0, abs=1e-6)
    assert -1 <= student.metrics["test/pearson_to_teacher"] <= 1


@pytest.mark.long
def test_labels_teach(small, toy_teacher, toy_tasks, tmp_path):
    file = tmp_path / "said.jsonl"
    with open(file, "w", encoding="utf-8") as out:
        for _, row in rows_of(toy_tasks):
            moods = row["moods"].split("|")
            probs = {name: 0.9 if name in moods else 0.2 for name in ("Music", "good", "bad")}
            probs["Music"] = 0.9 if "music" in moods else 0.2
            print(json.dumps({"sentence": row["sentence"], "probabilities": probs}), file=out)
    args = small(
        "--task", "labels", "--label", "moods", "--label-separator", "|",
        teacher=(f"file:{file}",), fine_tune=False, teacher_learning_rate=None,
        tokenizer=str(toy_teacher), objectives=("bce",),
    )  # fmt: skip
    _, (teacher, student), _ = run(args, tmp_path / "out")
    assert teacher.metrics["test/micro_f1"] == 1.0
    assert 0 <= student.metrics["test/gap_to_teacher"] <= 1


def test_nobody_listens_where_nothing_is_said():
    reader = PredictionReader(Numbers(), labelled=False)
    tokens = np.ones((3, 2), np.int32)
    batch = as_batch(tokens, tokens > 0, 0 * tokens)
    said = ModelOutput(logits_BC=np.zeros((3, 1), np.float32))
    assert np.asarray(reader.where(batch, said)).tolist() == [True, True, True]
    half = ModelOutput(logits_BC=said.logits_BC, heard_B=np.array([True, False, True]))
    assert np.asarray(reader.where(batch, half)).tolist() == [True, False, True]


def test_the_forms_of_numbers_and_labels(tmp_path):
    file = tmp_path / "said.csv"
    file.write_text("id,text,predicted\na,x,3.5\nb,y,-1\n")
    said = read_predictions(file, meaning="number")
    assert said.logits([0], "drop").tolist() == [[3.5], [-1.0]] and said.names == (NUMBER,)
    np.savez(tmp_path / "said.npz", ids=np.array(["a", "b"]), predicted=np.array([3.5, -1.0]))
    again = read_predictions(tmp_path / "said.npz", meaning="number")
    assert again.logits([0], "drop").tolist() == [[3.5], [-1.0]]
    file.write_text("id,probability of joy,probability of anger\na,0.75,0.5\nb,0,1\n")
    odds = read_predictions(file, meaning="labels").logits([0, 1], "drop")
    assert odds[0] == pytest.approx([np.log(3), 0.0], abs=1e-6) and np.isfinite(odds).all()


@pytest.mark.parametrize(
    ("meaning", "text", "told"),
    [
        ("number", "id,rating\na,3\n", "columns id, rating; expected one 'predicted'"),
        ("number", "id,predicted\na,inf\n", "line 2.*expected a finite number"),
        ("labels", "id,label_1,probability_1\na,joy,0.5\n", "some labels alone; expected all"),
        ("labels", "id,joy,anger\na,0.5,1.5\n", "1.5 is no probability"),
        ("classes", "id,joy,anger\na,0.75,0.5\n", "the probabilities sum to 1.25"),
    ],
)
def test_what_is_damaged_is_named(meaning, text, told, tmp_path):
    file = tmp_path / "said.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=told):
        read_predictions(file, meaning=meaning)


def test_arrays_without_numbers_are_named(tmp_path):
    np.savez(tmp_path / "said.npz", ids=np.array(["a"]), logits=np.zeros((1, 1)))
    with pytest.raises(UserError, match=r"has ids; expected ids \(or texts\), predicted"):
        read_predictions(tmp_path / "said.npz", meaning="number")


def test_a_task_of_tokens_has_no_such_file(small, tmp_path):
    assert {n for n in ("tags", "spans", "intent_slots") if kind_named(n).spoken} == set()
    args = small("--task", "tags", teacher=("file:said.csv",), fine_tune=False)
    with pytest.raises(UserError, match="is of one answer a text, not for task tags"):
        run(args, tmp_path / "out")
