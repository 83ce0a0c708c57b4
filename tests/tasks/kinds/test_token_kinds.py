"""Tasks that ask about every token, the whole way: a teacher, students, a ledger, predictions."""

import json
from functools import partial

import numpy as np
import pytest
from kind_tables import numbers, run

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.engine import run as run_module
from distill_jax.tables.evidence import scores_by_example
from distill_jax.tables.ledger import Ledger
from distill_jax.training.interrupt import Interrupted

TASKS = ("tags", "intent_slots", "spans")
SEVERAL = "0.5*kl(T=2) + 0.5*ce"
LENGTHS = {"tags": 16, "intent_slots": 16, "spans": 28}


@pytest.fixture
def small_of(small, toy_tags, toy_intents, toy_questions):
    """(task, changes) -> arguments of a small table."""
    folders = dict(zip(TASKS, (toy_tags, toy_intents, toy_questions), strict=True))

    def arguments(task, *flags, **changes):
        given = {"data": f"files:{folders[task]}", "label_fraction": 1.0}
        given["max_length"] = LENGTHS[task]
        return small("--task", task, *flags, **{**given, **changes})

    return arguments


@pytest.mark.parametrize("task", TASKS)
def test_the_whole_way(task, small_of, tmp_path, capsys):
    objectives = ("ce", SEVERAL, "mse_logits + hidden_mse + attention_kl")
    spec, rows, said = run(small_of(task, objectives=objectives), tmp_path / "out")
    assert "self-checks: teacher deterministic" in said
    rows = Ledger(tmp_path / "out/ledger.jsonl").rows()
    assert [row.row for row in rows[1:]] == [str(o) for o in objectives for _ in range(2)]
    for row in rows:
        for column in spec.tested:
            own = scores_by_example(row, column)
            assert own.mean() == pytest.approx(row.metrics[column], abs=1e-6)
        assert np.isfinite(row.metrics["test/f1"])
    distilled = rows[-1]
    assert 0 <= distilled.metrics["test/fidelity"] <= 1
    assert distilled.metrics["test/kl_to_teacher"] >= 0
    assert distilled.config["model"]["pooling"] == "tokens"
    assert distilled.config["data"]["task"] == task
    config = json.loads((tmp_path / "out/runs" / distilled.hash / "model/config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    model = str(tmp_path / "out/runs" / distilled.hash)
    with pytest.raises(UserError, match=f"task {task}"):
        dispatch(["export", model])


def trained_alike(first, second):
    assert first.keys() == second.keys()
    for key, (metrics, _, _) in first.items():
        assert metrics == pytest.approx(second[key][0], abs=2e-3, nan_ok=True)


@pytest.mark.parametrize("task", TASKS)
def test_students_train_as_a_population(task, small_of, tmp_path):
    args = small_of(task, objectives=("ce", SEVERAL, "kl"))
    run(args, tmp_path / "alone")
    run(args, tmp_path / "together", strategy="vmap")
    trained_alike(numbers(tmp_path / "alone"), numbers(tmp_path / "together"))


@pytest.mark.parametrize("task", TASKS)
def test_a_stopped_table_goes_on_bit_for_bit(task, small_of, tmp_path, monkeypatch):
    args = partial(small_of, task, objectives=("kl",))
    engine = run_module.Engine
    run(args(), tmp_path / "whole")

    class Impatient(engine.func):
        runs = 0

        def train(self, *given, **named):
            Impatient.runs += 1
            self.stop.requested = Impatient.runs == 3
            return super().train(*given, **named)

    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "another_home"))
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "Engine", partial(Impatient, **engine.keywords))
        with pytest.raises(Interrupted):
            run(args(), tmp_path / "stopped")
    run(args(), tmp_path / "stopped")
    assert numbers(tmp_path / "stopped") == numbers(tmp_path / "whole")


@pytest.mark.parametrize("task", TASKS)
def test_live_and_cached_teachers_say_the_same(task, small_of, tmp_path, capsys):
    only = {"objectives": ("kl + hidden_mse",), "seeds": (0,)}
    run(small_of(task, **only, cache_dtype="float32"), tmp_path / "cached")
    (cache,) = (tmp_path / "home/teacher_outputs").iterdir()
    dispatch(["cache", "verify", str(cache), "--sample", "8"])
    assert "the teacher says the same" in capsys.readouterr().out
    run(small_of(task, **only, teacher_outputs="live"), tmp_path / "live")
    trained_alike(numbers(tmp_path / "cached"), numbers(tmp_path / "live"))


def test_a_part_of_the_labels_leaves_a_transfer_set(small_of, tmp_path):
    _, _, said = run(
        small_of("tags", objectives=("ce", "kl"), seeds=(0,), label_fraction=0.5), tmp_path / "out"
    )
    assert "24 labelled and 24 unlabelled training examples" in said


@pytest.mark.parametrize(
    ("task", "changes", "told"),
    [
        ("tags", {"students": ("static",)}, "student 'static' says one thing of a text.*tiny"),
        ("tags", {"text_b": "second"}, "leave --text-b out"),
        ("tags", {"data": "review_snippets/movie"}, "has no tags: give files"),
        ("spans", {"data": "review_snippets/movie"}, "has no questions: give SQuAD's files"),
        ("spans", {"objectives": ("dist",)}, "no meaning for start and end of an answer"),
        ("spans", {"max_length": 16}, "--max-length 24 at the least"),
        ("tags", {"fine_tune": False}, "leave out --no-fine-tune"),
        ("tags", {"student_pooling": "cls"}, "--student-pooling does nothing"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(task, changes, told, small_of, tmp_path):
    with pytest.raises(UserError, match=told):
        run(small_of(task, **changes), tmp_path / "out")


def a_model(small_of, task, folder):
    run(small_of(task, objectives=("ce",), seeds=(0,), steps=2), folder)
    (row,) = [row for row in Ledger(folder / "ledger.jsonl").rows() if row.row == "ce"]
    return str(folder / "runs" / row.hash)


def test_predict_gives_entities_of_texts_and_of_words(small_of, tmp_path, capsys):
    model = a_model(small_of, "tags", tmp_path / "out")
    capsys.readouterr()
    dispatch(["predict", model, "the  good film", "--format", "jsonl"])
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["text"] == "the  good film" and len(line["predicted_tags"]) == 3
    for each in line["entities"]:
        assert line["text"][each["start"] : each["end"]] == each["text"]
    words = tmp_path / "words.jsonl"
    words.write_text(json.dumps({"tokens": ["the", "good", "film"]}) + "\n")
    dispatch(["predict", model, "--input", str(words), "--format", "jsonl"])
    (other,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert other["predicted_tags"] == line["predicted_tags"]
    assert other["tokens"] == ["the", "good", "film"]
    dispatch(["predict", model, "--input", str(words), "--output", str(tmp_path / "said.csv")])
    assert (tmp_path / "said.csv").read_text().splitlines()[0].endswith("predicted_tags,entities")


def test_predict_gives_intent_and_slots(small_of, tmp_path, capsys):
    model = a_model(small_of, "intent_slots", tmp_path / "out")
    capsys.readouterr()
    dispatch(["predict", model, "the good film", "", "--format", "jsonl"])
    line, blank = map(json.loads, capsys.readouterr().out.splitlines())
    assert line["predicted"] in ("praise", "blame") and 0.5 <= line["probability"] <= 1
    assert set(line["predicted_tags"]) <= {"O", "B-praise", "I-praise", "B-blame", "I-blame"}
    assert blank["predicted"] is None
    dispatch(["predict", model, "the good film"])
    assert capsys.readouterr().out.startswith(f"{line['predicted']}\t")


def test_predict_answers_questions_over_long_contexts(small_of, toy_questions, tmp_path, capsys):
    model = a_model(small_of, "spans", tmp_path / "out")
    paragraphs = json.loads((toy_questions / "test.json").read_text())["data"][0]["paragraphs"]
    rows = [
        {"question": each["qas"][0]["question"], "context": each["context"]} for each in paragraphs
    ]
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    dispatch(["predict", model, "--input", str(asked), "--format", "jsonl"])
    answers = list(map(json.loads, capsys.readouterr().out.splitlines()))
    assert len(answers) == len(rows)
    for row, answer in zip(rows, answers, strict=True):
        text = answer["predicted"]
        assert (answer["start"] is None) == (text == "")
        assert not text or row["context"][answer["start"] :].startswith(text)
    run_folder = tmp_path / "out/runs"
    saved = json.loads(next(run_folder.glob("*/model/task.json")).read_text())
    assert saved["saved"]["unanswerable"] is True and "null_threshold" in saved["saved"]


def test_a_bilstm_tags_too(small_of, tmp_path):
    args = small_of("tags", students=("bilstm-random-4",), objectives=("kl", "hidden_mse + kl"))
    _, rows, _ = run(args, tmp_path / "out")
    (model,) = {json.dumps(row.config["model"]) for row in rows if row.row == "kl"}
    assert json.loads(model)["per_token"] is True
    dispatch(["predict", str(tmp_path / "out/runs" / rows[-1].hash), "the good film"])
