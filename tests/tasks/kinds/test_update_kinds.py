"""Students that predict no classes go on with new texts: the whole way, with their own scores."""

import csv
import json
import random
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from kind_tables import run
from token_toys import questions, tagged
from toys import WORDS

from distill_jax.cli.main import dispatch
from distill_jax.compression import pipeline
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.data.tokenise import TokenTable
from distill_jax.engine.engine import Engine
from distill_jax.evaluation.spans import found_answers
from distill_jax.tables.evidence import unpack_numbers
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.classification.cells import DataConfig

SIZES = {"train": 20, "test": 16}


def numbers_and_moods(folder, rng):
    """As the run's, in texts that end otherwise."""
    for split, size in SIZES.items():
        with open(folder / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "rating", "moods"])
            for number in range(size):
                words = rng.choices(WORDS, k=number % 6 + 3)
                rating = 20 + 10 * (words.count("good") - words.count("bad"))
                moods = "|".join(w for w in ("good", "bad", "music") if w in words) or "|"
                writer.writerow([f"{' '.join(words)} again {split} {number}", rating, moods])


def in_jsonl(make):
    def written(folder, rng):
        for split, size in SIZES.items():
            rows = [json.dumps(make(rng, split, number)) for number in range(size)]
            (folder / f"{split}.jsonl").write_text("\n".join(rows))

    return written


def words_and_tags(rng, split, number):
    words, tags = tagged(rng)
    intent = "praise" if "good" in words else "blame"
    return {"id": f"n{split}{number}", "tokens": words, "tags": tags, "intent": intent}


def related(rng, split, number):
    first, second = [0, 1], [3, 5]
    relation = rng.choice(["before", "behind"])
    subject, other = (first, second) if relation == "before" else (second, first)
    words = [*rng.choices(WORDS, k=5), str(number), split]
    return {"tokens": words, "subject": subject, "object": other, "relation": relation}


def asked(folder, rng):
    for split, size in SIZES.items():
        paragraphs = list(questions(rng, split, size))
        told = {"version": "2.0", "data": [{"title": split, "paragraphs": paragraphs}]}
        (folder / f"{split}.json").write_text(json.dumps(told))


NEWER = {
    "number": numbers_and_moods,
    "labels": numbers_and_moods,
    "tags": in_jsonl(words_and_tags),
    "intent_slots": in_jsonl(words_and_tags),
    "relations": in_jsonl(related),
    "spans": asked,
}
FLAGS = {
    "number": ("--label", "rating"),
    "labels": ("--label", "moods", "--label-separator", "|"),
}
SCORES = {
    "number": ("pearson", "mse"),
    "labels": ("micro_f1", "macro_f1"),
    "tags": ("f1",),
    "intent_slots": ("f1", "intent_accuracy"),
    "relations": ("accuracy",),
    "spans": ("f1", "exact_match"),
}
OBJECTIVES = {"number": "labels + mse_regression", "labels": "labels + bce"}
MOST_ARE_LONG = [
    "number",
    *(pytest.param(task, marks=pytest.mark.long) for task in NEWER if task != "number"),
]


@pytest.fixture
def finished(small, toy_tasks, toy_tags, toy_intents, toy_questions, tmp_path, monkeypatch):
    """(task) -> the folder of a finished run."""
    engine = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(pipeline, "Engine", engine)
    folders = {"tags": toy_tags, "intent_slots": toy_intents, "spans": toy_questions}

    def made(task):
        folder = folders.get(task, toy_tasks)
        if task == "relations":
            folder = tmp_path / "related"
            folder.mkdir()
            in_jsonl(related)(folder, random.Random(0))
        changes = {"data": f"files:{folder}", "objectives": (OBJECTIVES.get(task, "kl + ce"),)}
        if task == "spans":
            changes["max_length"] = 28
        args = small("--task", task, *FLAGS.get(task, ()), **{"steps": 4, **changes})
        spec, _, _ = run(args, tmp_path / "out")
        return tmp_path / "out/runs" / spec.places[0].hash

    return made


def make_newer(task, folder, seed=7):
    folder.mkdir()
    NEWER[task](folder, random.Random(seed))
    return f"files:{folder}"


@pytest.mark.parametrize("task", MOST_ARE_LONG)
def test_a_student_goes_on_and_is_reported_by_its_own_scores(task, finished, tmp_path, capsys):
    run_folder = finished(task)
    data = make_newer(task, tmp_path / "newer")
    output = tmp_path / "updated"
    dispatch(["update", str(run_folder), "--data", data, "--output", str(output), "--steps", "4"])
    told = json.loads((output / "update.json").read_text())
    at, text = told["metrics"], (output / "update.md").read_text()
    rows = Ledger(output / "ledger.jsonl").rows()
    own = {row.hash: row for row in Ledger(run_folder.parents[1] / "ledger.jsonl").rows()}
    before = own[run_folder.name].metrics
    main = SCORES[task][0]
    assert told["before"] == pytest.approx(before[f"test/{main}"], rel=1e-4)
    for name in SCORES[task]:
        then = "" if name == main else f"/{name}"
        assert at[f"test{then}/before"] == pytest.approx(before[f"test/{name}"], rel=1e-4)
        assert at[f"test/{name}"] == pytest.approx(rows[-1].metrics[f"test/{name}"], rel=1e-4)
        assert f"new/{name}" in at and f" | {name}" in text
    assert at["new/examples"] >= at["old/rehearsed"] > 10
    assert ("test/forgotten" in at) == (task not in ("number", "tags"))
    assert f"teacher/new/{'after'}" in at and "How far the new" in text
    model = Path(told["folder"]) / "model"
    assert (model / "model.safetensors").is_file()
    if task == "number":
        asked, said = tmp_path / "newer/test.csv", tmp_path / "said.csv"
        dispatch(["predict", told["folder"], "--input", str(asked), "--output", str(said)])
        found = [list(csv.DictReader(path.open(encoding="utf-8"))) for path in (asked, said)]
        gaps = [
            float(row["rating"]) - float(answer["predicted"])
            for row, answer in zip(*found, strict=True)
        ]
        assert at["new/mse"] == pytest.approx(np.mean(np.square(gaps)), rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("task", NEWER)
def test_it_goes_on_again(task, finished, tmp_path):
    """The old test is then that of the run and that of the first update, whatever their ids."""
    folder, told = finished(task), {}
    for seed, name in enumerate(("one", "two"), 7):
        data, output = make_newer(task, tmp_path / name, seed), tmp_path / f"updated-{name}"
        update = ["update", str(folder), "--data", data, "--output", str(output), "--rehearse", "9"]
        dispatch([*update, *(("--steps", "4") if name == "one" else ())])
        told[name] = json.loads((output / "update.json").read_text())
        folder = Path(told[name]["folder"])
    first, at = told["one"]["metrics"], told["two"]["metrics"]
    assert at["test/tested"] == first["test/tested"] + first["new/tested"]
    assert at["old/examples"] == first["old/examples"] + first["new/examples"]
    assert at["old/rehearsed"] == at["old/examples"]
    ledgers = [Ledger(tmp_path / f"updated-{name}/ledger.jsonl").rows() for name in told]
    begun, row = ledgers[0][1], ledgers[1][-1]
    assert [step["data"] for step in row.config["steps"]] == [
        f"files:{tmp_path / name}" for name in ("one", "two")
    ]
    if task == "spans":  # of questions with one id none is lost
        asked = [len(unpack_numbers(each.test_scores["f1"])) for each in (begun, row)]
        assert asked[1] == asked[0] + SIZES["test"]


@pytest.mark.long
def test_unlabelled_texts_and_unknown_labels(finished, tmp_path):
    run_folder = finished("labels")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "transfer.txt").write_text("\n".join(f"the film {n} again" for n in range(12)))
    common = ("update", str(run_folder), "--steps", "3", "--data")
    output = ("--output", str(tmp_path / "o"))
    dispatch([*common, f"files:{bare}", "--objective", "bce", *output])
    at = json.loads((tmp_path / "o/update.json").read_text())["metrics"]
    assert (at["new/labelled"], at["new/examples"]) == (0, 12) and "new/micro_f1" not in at
    with pytest.raises(UserError, match="has no labels, and 'labels' listens to no teacher"):
        dispatch([*common, f"files:{bare}", "--objective", "labels", *output])
    with pytest.raises(UserError, match="kl"):
        dispatch([*common, f"files:{bare}", "--objective", "kl", *output])
    (bare / "train.csv").write_text("sentence,moods\nthe film,good|odd\n")
    with pytest.raises(UserError, match=r"'odd' in .*, which the run does not have"):
        dispatch([*common, f"files:{bare}", *output])
    with pytest.raises(UserError, match="has no sets of labels"):
        dispatch([*common, "review_snippets/movie", *output])


def test_questions_of_one_id_stay_two_beside_each_other(tmp_path, toy_questions, toy_teacher):
    config = DataConfig(f"files:{toy_questions}", task="spans", max_length=28)
    kind = config.kind
    tokens = kind.tokenise(kind.load(config), toy_teacher / "tokenizer.json", 28, None)
    test = tokens.splits["test"]
    both = test.joined(kind.renamed(test, "new/"))
    said = np.zeros((len(both), int(both.lengths_N.max()), 2), np.float32)
    one, two = (found_answers(said[: len(each)], each.aside) for each in (test, both))
    assert len(two) == 2 * len(one) and len(set(both.ids)) == 2 * len(test)


def test_tables_of_targets_are_joined_row_by_row():
    def table(first, count, **columns):
        offsets = np.arange(count + 1) * 2
        tokens = np.arange(2 * count, dtype=np.int32) + first
        ids = tuple(f"{first}/{n}" for n in range(count))
        zeros = np.zeros(2 * count, np.int8)
        labels = np.zeros(count, np.int32)
        return TokenTable(ids, labels, tokens, zeros, offsets, **columns)

    dense = [table(n, 2, targets=np.full((2, 3), n, np.float32)) for n in (1, 5)]
    assert dense[0].joined(dense[1]).targets[:, 0].tolist() == [1, 1, 5, 5]
    tokens = [
        table(n, 2, targets_S=np.full(4, n, np.int32), aside=(f"{n}a", f"{n}b")) for n in (1, 5)
    ]
    both = tokens[0].joined(tokens[1])
    assert both.targets_S.tolist() == [1] * 4 + [5] * 4 and both.aside == ("1a", "1b", "5a", "5b")
    with pytest.raises(ValueError, match="one of the tables has targets"):
        dense[0].joined(tokens[0])
