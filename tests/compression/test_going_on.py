"""What was brought up to date is brought up to date again, as often as something new comes."""

import csv
import json
import shutil

import numpy as np
import pytest
from newer import brought_up, make_newer
from rich.console import Console

from distill_jax.compression.going_on import went_on
from distill_jax.compression.pipeline import begun
from distill_jax.compression.update import Update, new_data
from distill_jax.core.errors import UserError
from distill_jax.data.load import load_dataset
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.models.build import load_model
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.classification.finished import row_of
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.step import CompiledStep

SIZES = {"train": 60, "dev": 16, "test": 40}
WORDS = {"verdicts": ("good", "bad")}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The new data of two weeks; of the second some are of the first."""
    folder = tmp_path_factory.mktemp("weeks")
    data = make_newer(folder / "one", SIZES)
    then = make_newer(folder / "two", {"train": 50, "dev": 10, "test": 30}, **WORDS)
    for source, target in (("test", "train"), ("train", "test")):
        rows = read(data, source)[:4]
        with open(folder / f"two/{target}.csv", "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return data, then


def read(data, split):
    with open(f"{data.removeprefix('files:')}/{split}.csv", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def counting(patch):
    """Rows that a teacher is asked about, as they are asked."""
    asked, speak = [], LiveTeacher.__call__

    def counted(self, batch):
        rows = np.asarray(batch.example_ids_B)
        asked.extend(rows[rows >= 0].tolist())
        return speak(self, batch)

    patch.setattr(LiveTeacher, "__call__", counted)
    return asked


@pytest.fixture(scope="module")
def first(finished_run, places, tmp_path_factory):
    return brought_up(finished_run, places[0], tmp_path_factory.mktemp("one"), objective="kl + ce")


@pytest.fixture(scope="module")
def second(first, places, tmp_path_factory):
    """The update of what came out of the first one, its folder, and who was asked about."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        asked = counting(patch)
        found = brought_up(first.folder, places[1], folder, objective="")
    return found, folder, asked


def test_the_old_test_is_all_that_was_asked_so_far(
    finished_run, first, second, places, toy_reviews
):
    """Before is the student that came out of the first update."""
    found, at = second[0], second[0].metrics
    old = load_dataset(f"files:{toy_reviews}").splits["test"]
    asked = [
        [text, ("neg", "pos")[label]] for text, label in zip(old.texts, old.labels_N, strict=True)
    ]
    tests = {"test": asked + read(places[0], "test"), "new": read(places[1], "test")[:30]}
    for name, rows in tests.items():
        assert at[f"{name}/tested"] == len(rows)
        for folder, key in ((first.folder, f"{name}/before"), (found.folder, f"{name}/accuracy")):
            told = open_classifier(folder, max_length=16).classify([text for text, _ in rows])
            right = [each.label == label for each, (_, label) in zip(told, rows, strict=True)]
            assert at[key] == pytest.approx(np.mean(right))
    assert found.before == at["test/before"] != at["test/accuracy"]


def test_what_was_seen_is_not_tested_nor_what_was_tested_learnt(second):
    assert second[0].metrics["new/examples"] == 50
    notes = "\n".join(second[0].notes)
    assert "new data: 4 of 54 new train examples are left out: in old validation or test" in notes
    assert "new data: 4 of 34 new test examples are left out: in old train" in notes


def test_its_ledger_says_where_it_comes_from(finished_run, first, second, places):
    found, folder, _ = second
    rows = Ledger(folder / "ledger.jsonl").rows()
    assert [row.row for row in rows] == ["teacher", "as it is", "update(files:two)"]
    assert [row.hash for row in rows[1:]] == [first.folder.name, found.folder.name]
    assert [step["data"] for step in rows[2].config["steps"]] == list(places)
    assert found.notes[-1] == (
        f"{finished_run.name} was brought up to date with {places[0]} before"
    )
    assert "new/unknown" in found.metrics and found.metrics["old/examples"] > 60


def test_of_the_whole_past_nobody_is_asked_again(second):
    """Of either time some are rehearsed, with what the teacher said then."""
    found, _, asked = second
    assert sorted(asked) == list(range(50))
    moments = found.run.moments
    sizes = [len(moment.splits.everything) for moment in moments]
    rows = found.update.rows(found.run, new_data(found.update, found.run))
    assert len(rows) == 25 and (rows < sizes[0]).any() and (rows >= sizes[0]).any()
    old = found.run.splits.everything
    assert len(old) == sum(sizes) and old.ids[-1].startswith("update 1/")
    lengths = np.concatenate([moment.splits.everything.lengths_N for moment in moments])
    np.testing.assert_array_equal(old.lengths_N, lengths)


def test_the_student_starts_from_the_updated_weights(first, places, tmp_path, monkeypatch):
    started, call = [], CompiledStep.__call__

    def seen(self, state, *rest):
        if not started:
            started.append(np.asarray(state.params["student"]["classifier"]["kernel"]))
        return call(self, state, *rest)

    monkeypatch.setattr(CompiledStep, "__call__", seen)
    brought_up(first.folder, places[1], tmp_path, steps=1)
    own = load_model(first.folder / "model").params["classifier"]["kernel"]
    np.testing.assert_array_equal(np.squeeze(started[0]), np.asarray(own))
