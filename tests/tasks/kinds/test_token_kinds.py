"""Tasks that ask about every token, the whole way: a teacher, students, a ledger, predictions."""

import json
from functools import partial

import numpy as np
import pytest
from compressed import one_device
from kind_tables import exported, made_smaller, numbers, run

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.engine import run as run_module
from distill_jax.tables.evidence import scores_by_example
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.kinds.kinds import kind_named
from distill_jax.training.interrupt import Interrupted

TASKS = ("tags", "intent_slots", "spans")
LENGTHS = {"tags": 16, "intent_slots": 16, "spans": 28}
SEVERAL = "0.5*kl(T=2) + 0.5*ce + hidden_mse + attention_kl"
MOST_ARE_LONG = [
    "spans",
    *(pytest.param(task, marks=pytest.mark.long) for task in ("tags", "intent_slots")),
]
"""Spans differ most from classes; the others are alike."""


@pytest.fixture
def small_of(small, toy_tags, toy_intents, toy_questions):
    """(task, changes) -> arguments of a small table."""
    folders = dict(zip(TASKS, (toy_tags, toy_intents, toy_questions), strict=True))

    def arguments(task, *flags, **changes):
        given = {"data": f"files:{folders[task]}", "label_fraction": 1.0, "steps": 4}
        given["max_length"] = LENGTHS[task]
        return small("--task", task, *flags, **{**given, **changes})

    return arguments


def said_by(capsys, *arguments):
    """What ``predict`` prints, as JSON."""
    capsys.readouterr()
    dispatch(["predict", *map(str, arguments), "--format", "jsonl"])
    return list(map(json.loads, capsys.readouterr().out.splitlines()))


def entities_of_texts_and_of_words(model, folder, tmp_path, capsys):
    (line,) = said_by(capsys, model, "the  good film")
    assert line["text"] == "the  good film" and len(line["predicted_tags"]) == 3
    for each in line["entities"]:
        assert line["text"][each["start"] : each["end"]] == each["text"]
    words = tmp_path / "words.jsonl"
    words.write_text(json.dumps({"tokens": ["the", "good", "film"]}) + "\n")
    (other,) = said_by(capsys, model, "--input", words)
    assert other["predicted_tags"] == line["predicted_tags"]
    assert other["tokens"] == ["the", "good", "film"]
    dispatch(["predict", model, "--input", str(words), "--output", str(tmp_path / "said.csv")])
    assert (tmp_path / "said.csv").read_text().splitlines()[0].endswith("predicted_tags,entities")


def intents_and_slots(model, folder, tmp_path, capsys):
    line, blank = said_by(capsys, model, "the good film", "")
    assert line["predicted"] in ("praise", "blame") and 0.5 <= line["probability"] <= 1
    assert set(line["predicted_tags"]) <= {"O", "B-praise", "I-praise", "B-blame", "I-blame"}
    assert blank["predicted"] is None
    dispatch(["predict", model, "the good film"])
    assert capsys.readouterr().out.startswith(f"{line['predicted']}\t")


def answers_over_long_contexts(model, folder, tmp_path, capsys):
    paragraphs = json.loads((folder / "test.json").read_text())["data"][0]["paragraphs"]
    texts = [(each["qas"][0]["question"], each["context"]) for each in paragraphs]
    rows = [{"question": question, "context": context} for question, context in texts]
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = said_by(capsys, model, "--input", asked)
    assert len(answers) == len(rows)
    for row, answer in zip(rows, answers, strict=True):
        text = answer["predicted"]
        assert (answer["start"] is None) == (text == "")
        assert not text or row["context"][answer["start"] :].startswith(text)


PREDICTS = dict(
    zip(
        TASKS,
        (entities_of_texts_and_of_words, intents_and_slots, answers_over_long_contexts),
        strict=True,
    )
)


@pytest.mark.parametrize("task", MOST_ARE_LONG)
def test_the_whole_way(task, small_of, tmp_path, capsys, monkeypatch):
    args = small_of(task, objectives=("ce", SEVERAL))
    spec, _, said = run(args, tmp_path / "out")
    assert "self-checks: teacher deterministic" in said
    rows = Ledger(tmp_path / "out/ledger.jsonl").rows()
    assert [row.row for row in rows] == ["teacher", "ce", SEVERAL]
    for row in rows:
        for column in spec.tested:
            own = scores_by_example(row, column)
            assert own.mean() == pytest.approx(row.metrics[column], abs=1e-6)
        assert np.isfinite(row.metrics["test/f1"])
    distilled = rows[-1]
    assert 0 <= distilled.metrics["test/fidelity"] <= 1
    assert distilled.metrics["test/kl_to_teacher"] >= 0
    assert distilled.config["data"]["task"] == task
    folder = tmp_path / "out/runs" / distilled.hash
    config = json.loads((folder / "model/config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    saved = json.loads((folder / "model/task.json").read_text())
    assert saved["task"] == task
    assert ("null_threshold" in saved["saved"]) == (task == "spans")
    texts = ["good", "--second", "the good film"] if kind_named(task).pairs else ["the good film"]
    assert "; validation f1" in exported(folder, capsys, texts, "onnx-int8,onnx")
    if task == "tags":
        one_device(monkeypatch)
        made_smaller(folder, kind_named(task), "vocabulary -> int8", tmp_path / "small")
    data = args.data.removeprefix("files:")
    PREDICTS[task](str(folder), type(tmp_path)(data), tmp_path, capsys)


def trained_alike(first, second):
    assert first.keys() == second.keys()
    for key, (metrics, *_) in first.items():
        assert metrics == pytest.approx(second[key][0], abs=2e-3, nan_ok=True)


@pytest.mark.parametrize("task", MOST_ARE_LONG)
def test_students_train_as_a_population_and_go_on_bit_for_bit(
    task, small_of, tmp_path, monkeypatch
):
    args = partial(small_of, task, objectives=("kl",), seeds=(0, 1))
    run(args(), tmp_path / "whole")
    run(args(), tmp_path / "together", strategy="vmap")
    trained_alike(numbers(tmp_path / "whole"), numbers(tmp_path / "together"))
    engine = run_module.Engine

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


@pytest.mark.parametrize("task", MOST_ARE_LONG)
def test_live_and_cached_teachers_say_the_same(task, small_of, tmp_path, capsys):
    only = {"objectives": ("kl + hidden_mse",)}
    run(small_of(task, **only, cache_dtype="float32"), tmp_path / "cached")
    (cache,) = (tmp_path / "home/teacher_outputs").iterdir()
    dispatch(["cache", "verify", str(cache), "--sample", "8"])
    assert "the teacher says the same" in capsys.readouterr().out
    run(small_of(task, **only, teacher_outputs="live"), tmp_path / "live")
    trained_alike(numbers(tmp_path / "cached"), numbers(tmp_path / "live"))


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


def test_a_bilstm_tags_too_with_a_part_of_the_labels(small_of, tmp_path):
    changes = {"students": ("bilstm-random-4",), "objectives": ("hidden_mse + kl",)}
    _, rows, said = run(small_of("tags", **changes, label_fraction=0.5), tmp_path / "out")
    assert "24 labelled and 24 unlabelled training examples" in said
    assert rows[-1].config["model"]["per_token"] is True
    dispatch(["predict", str(tmp_path / "out/runs" / rows[-1].hash), "the good film"])
