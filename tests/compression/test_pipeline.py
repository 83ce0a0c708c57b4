"""Hops: each measured, each a folder that is opened, each gone on from."""

import dataclasses
import json
import subprocess
import sys

import compressed as script
import numpy as np
import pytest
from compressed import compressed
from killed import environment, stopped_at

from distill_jax.compression.report import write_report
from distill_jax.core.errors import UserError
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.models.build import load_model
from distill_jax.tables.evidence import unpack_correct
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.classification import supplies
from distill_jax.training.pruning import kernels, sparsity
from distill_jax.training.step import CompiledStep

STEPS = "prune(0.5) -> distil(steps=6) -> int8"


@pytest.fixture(scope="module")
def whole(finished_run, tmp_path_factory):
    """A pipeline that went through at once: its result and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return compressed(finished_run, STEPS, folder)[0], folder


def numbers(row):
    """What a hop must reproduce: everything but times."""
    return {key: value for key, value in row.metrics.items() if not key.startswith("latency/")}


def test_every_hop_is_measured_and_opens(finished_run, whole):
    result, folder = whole
    assert [hop.label for hop in result.hops] == [
        "as it is", "prune(0.5)", "distil(steps=6)", "int8",
    ]  # fmt: skip
    first, pruned, distilled, int8 = (hop.row.metrics for hop in result.hops)
    rows = Ledger(finished_run.parent.parent / "ledger.jsonl").rows()
    own = next(row for row in rows if row.hash == finished_run.name)
    assert first["test/accuracy"] == own.metrics["test/accuracy"] > 0.8
    assert result.hops[0].row.hash == finished_run.name and result.hops[0].folder == finished_run
    assert first["sparsity"] == 0 and pruned["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert distilled["sparsity"] == pruned["sparsity"] <= int8["sparsity"]
    assert int8["bytes"] < 0.6 * distilled["bytes"]  # of 16 columns: each has a scale
    for hop in result.hops:
        answers = open_classifier(hop.folder).classify(["the film is good", "bad"])
        assert {answer.label for answer in answers} <= {"neg", "pos"}
        at = hop.row.metrics
        assert at["validation/low"] <= at["validation/accuracy"] <= at["validation/high"]
        size = (hop.folder / "model/model.safetensors").stat().st_size
        assert size - at["bytes"] < 5000  # names and shapes
    at = Ledger(folder / "ledger.jsonl").rows()
    assert [row.row for row in at] == ["teacher", *(hop.label for hop in result.hops)]


def test_agreement_and_gain_are_those_of_the_answers(whole):
    result, folder = whole
    said = [np.load(folder / "runs" / hop.row.hash / "said.npz")["test"] for hop in result.hops]
    right = [unpack_correct(hop.row.test_correct) for hop in result.hops]
    for before, number in zip(range(3), range(1, 4), strict=True):
        at = result.hops[number].row.metrics
        same = (said[number].argmax(axis=1) == said[before].argmax(axis=1)).mean()
        assert at["test/agreement"] == pytest.approx(same)
        gain = right[number].mean() - right[0].mean()
        assert at["test/gain"] == pytest.approx(gain)
        assert at["test/gain_low"] <= gain <= at["test/gain_high"]


def test_the_report_holds_what_was_measured(whole):
    result, folder = whole
    write_report(result, folder)
    data = json.loads((folder / "report.json").read_text())
    assert [hop["kept"] for hop in data["hops"]] == [True] * 4
    for shown, hop in zip(data["hops"], result.hops, strict=True):
        assert shown["metrics"]["test/accuracy"] == hop.row.metrics["test/accuracy"]
    text = (folder / "report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [*(h.label for h in result.hops), "teacher"]
    assert f"| {100 * result.hops[3].row.metrics['test/accuracy']:.1f} [" in rows[3]


def test_what_is_finished_is_not_done_again(finished_run, whole, monkeypatch):
    result, folder = whole
    monkeypatch.setattr(CompiledStep, "__call__", lambda *_: pytest.fail("a step was taken"))
    again, _ = compressed(finished_run, STEPS, folder)
    assert [hop.row for hop in again.hops] == [hop.row for hop in result.hops]
    assert [hop.notes for hop in again.hops] == [hop.notes for hop in result.hops]
    assert again.hops[1].notes == ("50.0% of the kernels' weights are 0",)


def same(one, other):
    """Whether two pipelines came out alike, their models to the bit."""
    assert [numbers(hop.row) for hop in one.hops] == [numbers(hop.row) for hop in other.hops]
    for left, right in zip(one.hops, other.hops, strict=True):
        weights = [hop.folder / "model/model.safetensors" for hop in (left, right)]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_pipeline_that_is_stopped_goes_on_to_the_same_bits(finished_run, whole, tmp_path):
    with stopped_at(4):
        compressed(finished_run, STEPS, tmp_path)
    found, said = compressed(finished_run, STEPS, tmp_path)
    assert "distil(steps=6): goes on from step 4 of 6" in said
    same(whole[0], found)
    assert not list((tmp_path / "runs").rglob("digests.json"))


@pytest.mark.slow
def test_a_pipeline_that_is_killed_goes_on_to_the_same_bits(finished_run, tmp_path):
    """Slow: a process of its own is killed while weights go."""
    steps = "prune(0.6, by='movement', schedule='cubic') -> distil(steps=6)"
    died = subprocess.run(
        [sys.executable, script.__file__, finished_run, steps, tmp_path / "killed", "4"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert died.returncode == -9, died.stderr[-2000:]
    assert list((tmp_path / "killed/runs").rglob("digests.json")), "nothing to go on from"
    found, said = compressed(finished_run, steps, tmp_path / "killed", resume="must")
    assert "goes on from step" in said
    same(compressed(finished_run, steps, tmp_path / "whole")[0], found)
    (_, hop) = found.hops  # the two are one
    assert hop.label == steps
    assert sparsity(load_model(hop.folder / "model").params) == pytest.approx(0.6, abs=1e-3)


def test_what_is_pruned_stays_away_while_it_is_distilled(whole):
    pruned, distilled = (load_model(hop.folder / "model").params for hop in whole[0].hops[1:3])
    for path, before in kernels(pruned).items():
        after = np.asarray(kernels(distilled)[path])
        np.testing.assert_array_equal(after[np.asarray(before) == 0], 0)
        assert np.any(after != np.asarray(before))


def test_a_hop_that_loses_too_much_is_not_written_and_is_gone_on_from(finished_run, tmp_path):
    steps = "prune(0.97) -> distil(steps=8, rate=0.02)"
    result, said = compressed(finished_run, steps, tmp_path / "out", max_drop=2.0)
    pruned = result.hops[1]
    assert not pruned.kept and not (pruned.folder / "model").exists()
    assert "loses more than 2 points on validation: its model is not written" in said
    assert result.hops[2].row.metrics["sparsity"] == pruned.row.metrics["sparsity"]
    again, _ = compressed(finished_run, steps, tmp_path / "out", max_drop=100.0)  # now it may be
    assert again.hops[1].kept and (again.hops[1].folder / "model").is_dir()
    assert [hop.row.hash for hop in again.hops] == [hop.row.hash for hop in result.hops]
    _, said = compressed(finished_run, steps, tmp_path / "out", max_drop=2.0)
    assert "its model stays as an earlier call wrote it" in said


def test_runs_that_are_none_are_refused(finished_run, whole, tmp_path):
    with pytest.raises(UserError, match="no finished run at"):
        compressed(tmp_path, "prune", tmp_path / "out")
    teacher = next(
        row.hash
        for row in Ledger(finished_run.parent.parent / "ledger.jsonl").rows()
        if row.row == "teacher"
    )
    with pytest.raises(UserError, match="that was compressed; name the run that it began with"):
        compressed(whole[0].hops[1].folder, "prune", tmp_path / "out")
    with pytest.raises(UserError, match="is of a teacher, not of a student"):
        compressed(finished_run.parent / teacher, "prune", tmp_path / "out")


def test_what_was_kept_and_damaged_is_named(finished_run, tmp_path):
    result, _ = compressed(finished_run, "prune(0.5)", tmp_path)
    path = tmp_path / "runs" / result.hops[1].row.hash / "said.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"said\.npz is damaged .*; delete its folder"):
        compressed(finished_run, "prune(0.5)", tmp_path)


def test_a_run_whose_data_changed_is_refused(finished_run, tmp_path, monkeypatch):
    """As if the files that it was trained on were others now."""
    prepare = supplies.prepare_texts

    def other(config, dataset, tokenizer_file, *tools):
        train = dataset.splits["train"]
        fewer = dataclasses.replace(
            dataset, splits={**dataset.splits, "train": train.take(range(50))}
        )
        return prepare(config, fewer, tokenizer_file, *tools)

    monkeypatch.setattr(supplies, "prepare_texts", other)
    with pytest.raises(UserError, match=r"data of .* are not what they were"):
        compressed(finished_run, "prune(0.5)", tmp_path)
