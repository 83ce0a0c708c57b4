"""What was brought up to date is brought up to date again, as often as something new comes."""

import csv
import dataclasses
import io
import shutil

import jax
import numpy as np
import pytest
from compressed import compressed, finished
from digit_tables import digit_sweep
from image_files import quarters, written
from killed import stopped_at
from newer import brought_up, make_newer
from rich.console import Console

from distill_jax.compression.going_on import went_on
from distill_jax.compression.pipeline import begun
from distill_jax.compression.update import (
    Update,
    _Words,
    columns_of,
    new_data,
    objective_of,
    training_of,
)
from distill_jax.core.errors import UserError
from distill_jax.data.load import load_dataset
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import DEFAULTS
from distill_jax.engine.progress import Reporter
from distill_jax.engine.sweep import axis
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.models.build import build_model, load_model
from distill_jax.objectives.resolve import resolve
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.classification.finished import row_of
from distill_jax.tasks.classification.new_data import mixed
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.interrupt import StopRequest
from distill_jax.training.step import CompiledStep

SIZES = {"train": 60, "dev": 16, "test": 40}
WORDS = {"verdicts": ("good", "bad")}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The new data of two weeks; of the second some are of the first."""
    folder = tmp_path_factory.mktemp("weeks")
    data = make_newer(folder / "one", SIZES, seed=2)
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
            started.append(jax.device_get(state.params))
        return call(self, state, *rest)

    monkeypatch.setattr(CompiledStep, "__call__", seen)
    brought_up(first.folder, places[1], tmp_path, steps=1)
    own = load_model(first.folder / "model").params
    jax.tree.map(np.testing.assert_array_equal, started[0], jax.device_get(own))


def test_settings_named_last_serve_the_next_update(first, second):
    """They are not said again: the objective, and how long and fast it trains."""
    run = second[0].run
    assert objective_of(run.cell) == "kl + ce" != run.cell.objective
    training = training_of(run.cell)
    assert (training.steps, training.optimizer.learning_rate) == (30, 0.02)
    assert training != run.cell.training
    step = dataclasses.replace(run.cell.steps[0], text="words", label="verdict")
    cell = dataclasses.replace(run.cell, stages=(*run.cell.making, step))
    assert columns_of(cell, label="l") == {"text": "words", "text_b": None, "label": "l"}


def test_done_in_one_folder_it_is_not_done_again(first, second, places, tmp_path, monkeypatch):
    """All updates may go to one ledger: of a run that went on there what it said then stays."""
    folder = tmp_path / "one"
    shutil.copytree(first.folder.parents[1], folder)
    run = folder / "runs" / first.folder.name
    said = (run / "said.npz").read_bytes()
    shutil.copytree(second[0].folder, folder / "runs" / second[0].folder.name)
    with (folder / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
        ledger.write((second[1] / "ledger.jsonl").read_text().splitlines()[-1] + "\n")
    monkeypatch.setattr(CompiledStep, "__call__", lambda *_: pytest.fail("a step was taken"))
    found = brought_up(run, places[1], folder, objective="")
    assert found.metrics == second[0].metrics and found.folder.parent == folder / "runs"
    assert (run / "said.npz").read_bytes() == said


def test_what_is_missing_of_the_past_is_named(finished_run, first, second, places, tmp_path):
    hash = second[0].folder.name
    row = row_of(second[0].folder)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    engine = Engine(tmp_path, Reporter(Console(quiet=True)), StopRequest(print), "none", DEFAULTS)

    def went(number, **changes):
        steps = [dict(step) for step in row.config["steps"]]
        steps[number] |= changes
        config = {**row.config, "steps": steps}
        return went_on(engine, dataclasses.replace(row, config=config), ledger)

    gone = f"files:{tmp_path}/gone"
    changed = f"the new data of {first.folder.name}, {gone}, are not what they were: .*gone"
    with pytest.raises(UserError, match=changed):
        went(0, data=gone)
    with pytest.raises(UserError, match=f"the new data of {hash}, .* are not what they were$"):
        went(1, data=places[0])
    with pytest.raises(UserError, match="was not made as a classifier by this version"):
        went(1, content="0")
    with pytest.raises(UserError, match="was not made as a classifier by this version"):
        went(0, kind="nothing")
    other = dataclasses.replace(row, fingerprints={**row.fingerprints, "teachers": "0"})
    with pytest.raises(UserError, match=f"the teacher of {hash} is not what it was"):
        went_on(engine, other, ledger)
    found = went(0)
    assert found.hash == hash and len(found.moments) == 3


def test_what_was_compressed_does_not_go_on(finished_run, first, places, tmp_path):
    smaller, _ = compressed(finished_run, "prune(0.5)", tmp_path / "smaller")
    match = "was compressed; name the run that it began with$"
    with pytest.raises(UserError, match=match):
        brought_up(smaller.hops[1].folder, places[0], tmp_path / "out")
    with pytest.raises(UserError, match="was brought up to date, which is not compressed"):
        compressed(first.folder, "prune(0.5)", tmp_path / "out")


@pytest.mark.long
def test_texts_without_labels_come_in_between(first, places, tmp_path):
    bare = make_newer(tmp_path / "bare", {"train": 20}, labels=False, **WORDS)
    with pytest.raises(UserError, match="has no labels, and 'ce' listens to no teacher"):
        brought_up(first.folder, bare, tmp_path / "ce")
    found = brought_up(first.folder, bare, tmp_path / "out", objective="kl", steps=2)
    assert "new/accuracy" not in found.metrics and found.metrics["test/tested"] == 70
    again = brought_up(found.folder, places[1], tmp_path / "again", objective="", steps=2)
    run = again.run
    assert again.metrics["test/tested"] == 70 and again.metrics["new/tested"] == 30
    bare_before, bare_now = (
        len(each.splits.everything) - len(each.splits.labelled) for each in (found.run, run)
    )
    assert bare_now - bare_before == 20
    assert objective_of(run.cell) == "kl" and len(run.moments) == 3


@pytest.mark.long
def test_one_that_is_stopped_goes_on_to_the_same_bits(first, second, places, tmp_path):
    with stopped_at(9):
        brought_up(first.folder, places[1], tmp_path, objective="")
    said = io.StringIO()
    found = brought_up(first.folder, places[1], tmp_path, objective="", said=said)
    assert "goes on from step 9 of 30" in said.getvalue()
    weights = [
        (each.folder / "model/model.safetensors").read_bytes() for each in (second[0], found)
    ]
    assert weights[0] == weights[1]


@pytest.mark.long
def test_images_go_on_again(patched, tmp_path):
    sweep = digit_sweep(["kl"], axis("student", ["cnn-2-4"]), steps=4, seeds=(0,))
    folder, tested = finished(sweep, tmp_path / "table"), 539
    for number in range(2):
        images, labels = quarters(120, classes=4, seed=number)
        path = written(tmp_path / f"new{number}.npz", images, labels=labels)
        found = brought_up(folder, f"images:{path}", tmp_path / f"out{number}", steps=4)
        assert found.metrics["test/tested"] == tested
        folder, tested = found.folder, tested + found.metrics["new/tested"]
    assert len(found.run.moments) == 2


@pytest.mark.long
def test_the_teacher_goes_on_too_and_what_it_said_stays(finished_run, places, tmp_path):
    settings = {"objective": "kl + ce", "steps": 4, "teacher_too": True}
    first = brought_up(finished_run, places[0], tmp_path / "one", **settings)
    again = brought_up(first.folder, places[1], tmp_path / "two", **settings)
    at, run = again.metrics, again.run
    then, taught = (moment.teachers[0] for moment in run.moments)
    assert then.digest != taught.digest == run.teacher.digest
    assert at["teacher/test/before"] != at["teacher/test/after"]
    with begun(
        again.folder, tmp_path / "three", Reporter(Console(quiet=True)), "update", 100.0, DEFAULTS,
        updates=True,
    ) as line:  # fmt: skip
        found = line.run
        digests = [moment.teachers[0].digest for moment in found.moments]
        assert len(set(digests)) == 3 and digests[:2] == [then.digest, taught.digest]
        bare = make_newer(tmp_path / "bare", {"train": 8}, labels=False)
        new = new_data(Update(data=bare), found)
        everything = found.splits.everything
        rows = np.arange(len(everything))
        objective = resolve("kl(T=2)", found.model.shape, found.teacher.config.shape)
        both = mixed(found.splits, rows, new)
        words = _Words(line.engine, found, rows, new, found.teachers)(objective, both)
        ends = np.cumsum([len(moment.splits.everything) for moment in found.moments])
        longest = int(everything.lengths_N.max())
        for moment, first_row in zip(found.moments, (0, *ends[:2]), strict=True):
            batch = everything.batch(np.array([first_row, first_row + 3]), longest, 4)
            teacher = moment.teachers[0]
            speak = LiveTeacher(
                build_model(teacher.config), teacher.params, objective.teacher_capture
            )
            said, due = words(batch).logits_BC, speak(batch).logits_BC
            np.testing.assert_allclose(said[:2], np.asarray(due)[:2], atol=1e-4)
