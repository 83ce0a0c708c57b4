"""Updates: a finished student goes on with new data; what it says is counted as it is."""

import csv
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from compressed import finished
from digit_tables import digit_sweep
from image_files import quarters, written
from killed import stopped_at
from newer import brought_up, make_newer

from distill_jax.compression.update import Update, _Words, new_data
from distill_jax.compression.update_report import write_report
from distill_jax.core.errors import UserError
from distill_jax.data.load import load_dataset
from distill_jax.engine.sweep import axis
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.evaluation.open_images import open_images
from distill_jax.objectives.resolve import resolve
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.mcnemar import mcnemar
from distill_jax.tasks.classification.cells import TeacherConfig
from distill_jax.tasks.classification.new_data import mixed, rehearsed
from distill_jax.tasks.kinds import kind as kind_module
from distill_jax.teachers.live import LiveTeacher
from distill_jax.training.step import CompiledStep

SIZES = {"train": 60, "dev": 16, "test": 40}


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    return make_newer(tmp_path_factory.mktemp("newer") / "reviews", SIZES)


@pytest.fixture(scope="module")
def whole(finished_run, newer, tmp_path_factory):
    """An update that went through at once: what came of it, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return brought_up(finished_run, newer, folder), folder


def texts_of(data, split="test"):
    with open(f"{data.removeprefix('files:')}/{split}.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["sentence"] for row in rows], [row["label"] for row in rows]


def right(folder, texts, labels):
    answers = open_classifier(folder, max_length=16).classify(texts)
    return np.array([a.label == label for a, label in zip(answers, labels, strict=True)])


def test_scores_and_what_was_forgotten_are_those_of_the_models(
    finished_run, whole, newer, toy_reviews
):
    found, _ = whole
    at = found.metrics
    old = load_dataset(f"files:{toy_reviews}").splits["test"]
    tests = {
        "test": (list(old.texts), [("neg", "pos")[label] for label in old.labels_N]),
        "new": texts_of(newer),
    }
    for name, (texts, labels) in tests.items():
        before, after = (right(each, texts, labels) for each in (finished_run, found.folder))
        counts = mcnemar(before, after)
        assert at[f"{name}/tested"] == len(texts)
        assert at[f"{name}/accuracy"] == pytest.approx(after.mean())
        assert (at[f"{name}/forgotten"], at[f"{name}/learnt"]) == (counts.lost, counts.won)
        assert at[f"{name}/forgotten_p"] == pytest.approx(counts.p)
        assert at[f"{name}/gain"] == pytest.approx(after.mean() - before.mean())
        assert at[f"{name}/gain_low"] <= at[f"{name}/gain"] <= at[f"{name}/gain_high"]
        told = found.forgotten["old" if name == "test" else "new"]
        lost = {text for text, b, a in zip(texts, before, after, strict=True) if b and not a}
        assert {each.texts[0] for each in told} <= lost and len(told) == min(10, len(lost))
    assert at["new/before"] < 0.75 < at["new/accuracy"]  # it learnt what is new


def test_the_distances_are_those_of_the_inputs(whole, newer):
    found, _ = whole
    at, texts = found.metrics, texts_of(newer, "train")[0]
    words = [word for text in texts for word in text.split()]
    unknown = [word for word in words if word in ("superb", "awful") or word.startswith("n")]
    unknown = [word for word in unknown if word != "not"]
    assert at["new/unknown"] == pytest.approx(len(unknown) / len(words))
    assert at["new/tokens"] == pytest.approx(len(words) / len(texts) + 2)
    assert (at["new/examples"], at["new/labelled"], at["old/rehearsed"]) == (60, 60, 30)
    means = {side: [at[f"{side}/mean of {c}"] for c in ("neg", "pos")] for side in ("old", "new")}
    assert sum(means["old"]) == pytest.approx(1) and sum(means["new"]) == pytest.approx(1)
    gap = abs(means["old"][0] - means["new"][0])
    assert at["drift"] == pytest.approx(gap, abs=1e-6) and gap > 0


def test_it_stands_in_a_ledger_beside_the_run_and_in_a_report(finished_run, whole, newer):
    found, folder = whole
    rows = Ledger(folder / "ledger.jsonl").rows()
    assert [row.row for row in rows] == ["teacher", "as it is", "update(files:reviews)"]
    assert rows[1].hash == finished_run.name and rows[2].experiment == "update"
    assert rows[2].metrics["new/accuracy"] == found.metrics["new/accuracy"]
    assert rows[2].config["steps"][0]["data"] == newer
    paths = write_report(found, folder)
    data = json.loads(paths[1].read_text())
    assert data["metrics"]["drift"] == found.metrics["drift"] and data["run"] == finished_run.name
    text = paths[0].read_text()
    for name, title in (("test", "old"), ("new", "new")):
        gain = 100 * found.metrics[f"{name}/gain"]
        row = next(line for line in text.splitlines() if line.startswith(f"| {title} | "))
        assert f"| {100 * found.metrics[f'{name}/accuracy']:.1f} | {gain:+.1f} [" in row
    assert f"`{found.folder / 'model'}`" in text and "30 old ones rehearsed" in text
    assert text.count("teacher's mean probability of ") == 3


def same(one, other):
    """Whether two updates came out alike, their models to the bit."""
    for each in (one, other):
        assert (each.folder / "model/model.safetensors").is_file()
    weights = [(each.folder / "model/model.safetensors").read_bytes() for each in (one, other)]
    assert weights[0] == weights[1]
    timeless = [
        {k: v for k, v in each.metrics.items() if not k.startswith("latency/")}
        for each in (one, other)
    ]
    assert timeless[0] == timeless[1]


def test_one_that_is_stopped_goes_on_to_the_same_bits(finished_run, whole, newer, tmp_path):
    with stopped_at(9):
        brought_up(finished_run, newer, tmp_path)
    said = io.StringIO()
    found = brought_up(finished_run, newer, tmp_path, said=said)
    assert "goes on from step 9 of 30" in said.getvalue()
    same(whole[0], found)


def test_what_is_done_is_not_done_again_wherever_the_data_lie(
    finished_run, whole, newer, tmp_path, monkeypatch
):
    """What counts of new data is their content."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(newer.removeprefix("files:"), elsewhere)
    monkeypatch.setattr(CompiledStep, "__call__", lambda *_: pytest.fail("a step was taken"))
    again = brought_up(finished_run, f"files:{elsewhere}", whole[1])
    same(whole[0], again)
    assert again.folder == whole[0].folder


@pytest.mark.parametrize(
    "change", [{"rehearse": 0.0}, {"steps": 29}, {"objective": "kl"}, {"teacher_too": True}]
)
def test_settings_and_content_make_another_run(change):
    one = Update(data="files:a", content="x", steps=30, rehearse=0.5, objective="ce")
    assert hash_of(one) != hash_of(dataclasses.replace(one, **change))
    assert hash_of(one) != hash_of(dataclasses.replace(one, content="y"))
    assert hash_of(one) == hash_of(dataclasses.replace(one, data="files:b", label="verdict"))


def hash_of(update):
    from distill_jax.engine.cell import Cell, Train
    from distill_jax.tasks.classification.cells import ClassifierSetup, TrainingConfig

    stages = (Train("ce", TrainingConfig()), update)
    return Cell(ClassifierSetup(), stages, data_digest="d", teacher_digest="t").hash


@pytest.fixture(scope="module")
def line(finished_run, tmp_path_factory):
    """The finished run, found again."""
    from rich.console import Console

    from distill_jax.compression.pipeline import begun
    from distill_jax.engine.options import RunOptions
    from distill_jax.engine.progress import Reporter

    output = tmp_path_factory.mktemp("line")
    with begun(
        finished_run, output, Reporter(Console(quiet=True)), "update", 100.0, RunOptions()
    ) as line:
        yield line


def test_old_examples_come_again_with_the_words_of_the_first_time(line, newer, monkeypatch):
    """The teacher is asked about the new ones alone: its words about the old lie in the cache."""
    run = line.run
    new = new_data(Update(data=newer), run)
    rows = rehearsed(run.splits, 0.5, len(new.train), 0)
    both = mixed(run.splits, rows, new)
    assert (
        len(both.everything) == 30 + 60 and len(both.validation) == len(run.splits.validation) + 16
    )
    np.testing.assert_array_equal(
        both.everything.labels_N[:30], run.splits.everything.labels_N[rows]
    )
    objective = resolve("kl(T=2)", run.model.shape, run.teacher.config.shape)
    asked = []
    speak = LiveTeacher.__call__

    def counted(self, batch):
        asked.extend(np.asarray(batch.example_ids_B)[np.asarray(batch.where_B)].tolist())
        return speak(self, batch)

    monkeypatch.setattr(LiveTeacher, "__call__", counted)
    words = _Words(line.engine, run, rows, new, list(run.teachers))(objective, both)
    assert sorted(asked) == list(range(60))
    some = np.array([0, 29, 30, 89])
    longest = int(both.everything.lengths_N.max())
    said = words(both.everything.batch(some, longest, 4)).logits_BC
    fresh = LiveTeacher.__call__(
        LiveTeacher(_model(run), run.teacher.params, objective.teacher_capture),
        both.everything.batch(some, longest, 4),
    )
    np.testing.assert_allclose(said, fresh.logits_BC, atol=1e-4)


def _model(run):
    from distill_jax.models.build import build_model

    return build_model(run.teacher.config)


def test_a_file_says_nothing_of_what_is_new_whatever_its_ids(
    learnt, patched, toy_teacher, toy_reviews, tmp_path
):
    """Ids often begin anew; they are others' then."""
    ids = []
    for split in ("train", "dev", "test"):
        with open(toy_reviews / f"{split}.csv", encoding="utf-8") as file:
            ids += [row["id"] for row in csv.DictReader(file)]
    said, new = tmp_path / "said.csv", tmp_path / "new"
    said.write_text("id,neg,pos\n" + "".join(f"{each},0.9,0.1\n" for each in ids))
    teacher = TeacherConfig(f"file:{said}", fine_tune=False, tokenizer=str(toy_teacher))
    training = dataclasses.replace(learnt.base.training, steps=1)
    base = learnt.base.but(teacher=teacher, training=training)
    run = finished(dataclasses.replace(learnt, base=base), tmp_path / "table")
    new.mkdir()
    rows = [f"{each},the music is good {n}" for n, each in enumerate(ids[:20])]
    (new / "train.csv").write_text("\n".join(["id,sentence", *rows]))
    with pytest.raises(UserError, match="a teacher of the run is no model: it says nothing of new"):
        brought_up(run, f"files:{new}", tmp_path / "out", objective="kl", steps=1)


def test_who_is_rehearsed_is_drawn_once_and_nested(line):
    splits = line.run.splits
    half, all_ = rehearsed(splits, 0.5, 60, 0), rehearsed(splits, 9.0, 60, 0)
    assert len(half) == 30 and len(all_) == len(splits.everything)
    assert set(half) <= set(rehearsed(splits, 0.6, 60, 0)) and len(rehearsed(splits, 0, 60, 0)) == 0
    assert set(half) != set(rehearsed(splits, 0.5, 60, 1))


def test_unlabelled_texts_are_learnt_from_the_teacher_alone(finished_run, tmp_path):
    bare = make_newer(tmp_path / "bare", {"train": 40}, labels=False)
    found = brought_up(finished_run, bare, tmp_path / "out", objective="kl", steps=4)
    assert (found.metrics["new/labelled"], found.metrics["new/examples"]) == (0, 40)
    assert "new/accuracy" not in found.metrics and set(found.forgotten) == {"old"}
    assert "| new | " not in (write_report(found, tmp_path)[0]).read_text()
    with pytest.raises(UserError, match="has no labels, and 'ce' listens to no teacher"):
        brought_up(finished_run, bare, tmp_path / "ce")
    with pytest.raises(UserError, match="nothing for the teacher to learn"):
        brought_up(finished_run, bare, tmp_path / "too", objective="kl", teacher_too=True)


def test_what_cannot_be_learnt_is_named(finished_run, newer, tmp_path, monkeypatch):
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "train.csv").write_text("sentence,label\nthe film,mixed\n")
    with pytest.raises(UserError, match=r"unknown label 'mixed' in .* which the run does not have"):
        brought_up(finished_run, f"files:{odd}", tmp_path / "a")
    (odd / "train.csv").write_text("sentence,other,label\nthe film,x,pos\n")
    with pytest.raises(UserError, match="one is images, the other texts"):
        brought_up(finished_run, "digits", tmp_path / "b")
    with pytest.raises(UserError, match="share to rehearse must be from 0"):
        brought_up(finished_run, newer, tmp_path / "c", rehearse=-1.0)
    with pytest.raises(UserError, match="an update needs new data"):
        Update()
    load = kind_module.new_texts
    calls = []

    def changing(*arguments, **options):
        calls.append(arguments)
        tables, notes = load(*arguments, **options)
        if len(calls) > 1:
            tables = {**tables, "train": tables["train"].take(range(50))}
        return tables, notes

    monkeypatch.setattr(kind_module, "new_texts", changing)
    with pytest.raises(UserError, match="has changed since the update began"):
        brought_up(finished_run, newer, tmp_path / "d", steps=1)


def test_images_are_brought_up_to_date_too(patched, tmp_path):
    sweep = digit_sweep(["kl"], axis("student", ["cnn-2-4"]), steps=30, seeds=(0,))
    run = finished(sweep, tmp_path / "table")
    images, labels = quarters(120, classes=4)
    data = f"images:{written(tmp_path / 'new.npz', images, labels=labels)}"
    found = brought_up(run, data, tmp_path / "out", steps=60)
    at = found.metrics
    assert at["new/accuracy"] > at["new/before"] and at["test/tested"] == 539
    assert "old/tokens" not in at and at["drift"] > 0
    assert open_images(found.folder).label_names == tuple("0123456789")
    wrong = f"images:{written(tmp_path / 'wide.npz', np.zeros((20, 9, 9), np.uint8))}"
    with pytest.raises(UserError, match=r"new images of \(9, 9, 1\), the run's are \(8, 8, 1\)"):
        brought_up(run, wrong, tmp_path / "wide", objective="kl")
