"""A number a text, the whole way in small."""

import csv
import dataclasses
import json
import re
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from compressed import compressed
from kind_tables import exported, numbers, run
from scipy import stats

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.evaluation.open_classifier import open_classifier
from distill_jax.export.runtime import open_any
from distill_jax.models.huggingface import load_pretrained
from distill_jax.tables.build import table_of
from distill_jax.tables.evidence import scores_by_example
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.outputs import write_outputs
from distill_jax.tables.significance import compare_rows
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.models import load_checkpoint
from distill_jax.tasks.classification.splits import prepare_texts
from distill_jax.training.interrupt import Interrupted

FLAGS = ("--task", "number", "--label", "rating")


def right_answers(folder):
    with open(Path(folder) / "test.csv", encoding="utf-8") as file:
        return np.array([float(row["rating"]) for row in csv.DictReader(file)])


def test_the_whole_way(small, toy_tasks, tmp_path, capsys):
    assert small(*FLAGS).objectives == ("labels", "mse_regression", "hidden_mse + mse_regression")
    rows_of_two = ("labels", "mse_regression")
    args = small(*FLAGS, objectives=rows_of_two, seeds=(0, 1, 2), yardsticks=True)
    spec, rows, said = run(args, tmp_path / "out")
    assert "30 labelled and 30 unlabelled training examples" in said
    assert "number rating" in said and "self-checks: teacher deterministic" in said
    assert "mse on validation" in said  # of the teacher, beside that of one answer to all
    by_row = {(row.row, row.seed): row for row in rows}
    teacher, student = by_row["teacher", 0], by_row["labels", 1]
    assert {"constant", "tfidf+ridge"} <= {row.row for row in rows}

    right_N = right_answers(toy_tasks)
    folder = tmp_path / "out/runs" / student.hash
    task = json.loads((folder / "model/task.json").read_text())
    assert task["task"] == "number" and set(task["saved"]) == {"mean", "deviation"}
    out = tmp_path / "answers.csv"
    dispatch(["predict", str(folder), "--input", str(toy_tasks / "test.csv"), "--output", str(out)])
    with open(out, encoding="utf-8") as file:
        said_N = np.array([float(row["predicted"]) for row in csv.DictReader(file)])
    own_N = np.load(folder / "test_logits.npz")["logits_NC"][:, 0].astype(np.float64)
    units_N = own_N * task["saved"]["deviation"] + task["saved"]["mean"]
    assert said_N == pytest.approx(units_N, abs=1e-3)
    expected = stats.pearsonr(units_N, right_N).statistic
    assert student.metrics["test/pearson"] == pytest.approx(expected, abs=1e-6)
    mse = np.mean((units_N - right_N) ** 2)  # in the labels' units
    assert student.metrics["test/mse"] == pytest.approx(mse, rel=1e-6)
    assert 30 < said_N.mean() < 70
    for metric in ("mse", "pearson", "spearman"):
        kept_N = scores_by_example(student, f"test/{metric}")
        assert kept_N.mean() == pytest.approx(student.metrics[f"test/{metric}"], rel=1e-4)

    answer = np.load(tmp_path / "out/runs" / teacher.hash / "test_logits.npz")["logits_NC"]
    with_teacher = stats.pearsonr(own_N, answer[:, 0]).statistic
    assert student.metrics["test/pearson_to_teacher"] == pytest.approx(with_teacher, abs=1e-5)

    capsys.readouterr()
    dispatch(["predict", str(folder), "good film", " "])
    line, blank = capsys.readouterr().out.splitlines()
    assert float(line.split("\t")[0]) > 0 and line.endswith("\tgood film") and blank[0] == "\t"
    dispatch(["predict", str(folder), "good film", "--format", "jsonl"])
    assert json.loads(capsys.readouterr().out)["predicted"] == float(line.split("\t")[0])

    said = exported(folder, capsys, ["good film"], "onnx,onnx-int8")
    before, after = map(float, re.search(r"validation pearson (.+)% -> (.+)%; test", said).groups())
    assert before == pytest.approx(100 * student.metrics["validation/pearson"], abs=0.06)
    assert after == pytest.approx(before, abs=2)

    table = table_of(spec, rows)
    assert "Pearson r" in to_markdown(table) and "MSE" in to_markdown(table)
    tests = {found.key: found.tests for found in compare_rows(table)}
    assert set(tests) == {"test/pearson", "test/mse"}
    for key, found in tests.items():  # what a column shows is what its test tests
        means = [
            np.mean([by_row[row, seed].metrics[key] for seed in range(3)])
            for row in ("mse_regression", "labels")
        ]
        assert found.joint.difference == pytest.approx(means[0] - means[1], rel=1e-4, abs=1e-5)
    write_outputs(table_of(spec, rows), tmp_path / "out")


def test_members_are_trained_as_alone(small, tmp_path):
    args = small(*FLAGS, objectives=("mse_regression",), seeds=(0, 1))
    run(args, tmp_path / "one")
    run(args, tmp_path / "many", "vmap")
    one, many = numbers(tmp_path / "one"), numbers(tmp_path / "many")
    assert one.keys() == many.keys() and len(one) == 3
    for key, (metrics, *_) in one.items():
        for name in ("test/mse", "test/pearson", "validation/pearson"):
            expected = pytest.approx(metrics[name], rel=1e-3, abs=1e-3, nan_ok=True)
            assert many[key][0].get(name, np.nan) == expected, (key, name)


@pytest.mark.long
def test_it_goes_on_to_the_same_bits(small, tmp_path, monkeypatch):
    args = small(*FLAGS, objectives=("hidden_mse + mse_regression",), seeds=(0,))
    run(args, tmp_path / "whole")

    class Impatient(Engine):
        runs = 0

        def train(self, *given, **options):
            Impatient.runs += 1
            if Impatient.runs == 2:  # the teacher is the first
                self.stop.requested = True
            return super().train(*given, **options)

    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "another_home"))
    with monkeypatch.context() as patched:
        mesh = make_mesh(jax.devices()[:1])
        patched.setattr(run_module, "Engine", partial(Impatient, mesh=mesh))
        with pytest.raises(Interrupted):
            run(args, tmp_path / "stopped")
    run(args, tmp_path / "stopped")
    assert numbers(tmp_path / "stopped") == numbers(tmp_path / "whole")


def test_other_labels_are_another_scale_and_other_data(
    toy_tasks, toy_teacher, tmp_path, monkeypatch
):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    config = DataConfig(f"files:{toy_tasks}", label="rating", max_length=16, task="number")
    texts, tokenizer = config.kind.load(config), toy_teacher / "tokenizer.json"
    half, whole = (
        prepare_texts(dataclasses.replace(config, label_fraction=share), texts, tokenizer)
        for share in (0.5, 1.0)
    )
    assert half.fitted != whole.fitted and half.digest != whole.digest
    used_N1 = half.everything.targets[half.everything.labels_N >= 0]
    assert used_N1.mean() == pytest.approx(0, abs=1e-6) and used_N1.std() == pytest.approx(1)
    assert not half.everything.targets[half.everything.labels_N < 0].any()
    assert whole.test.targets.std() != pytest.approx(1, abs=1e-3)  # scaled by train alone


def test_what_is_not_for_numbers_is_refused_by_name(small, toy_teacher, tmp_path):
    for flag, given in (
        ("--class-weights", {"class_weights": "balanced"}),
        ("--controls", {"controls": True}),
        ("--label-map", {"label_map": "a=b"}),
    ):
        with pytest.raises(UserError, match=f"{flag} is for --task classes, not for --task number"):
            run(small(*FLAGS, **given), tmp_path / "out")
    with pytest.raises(UserError, match="leave out --no-fine-tune"):
        run(small(*FLAGS, fine_tune=False, teacher_learning_rate=None), tmp_path / "out")
    with pytest.raises(UserError, match="ce: this loss has no meaning for a number"):
        run(small(*FLAGS, objectives=("labels", "ce")), tmp_path / "out")
    with pytest.raises(UserError, match="metric to select by 'accuracy'"):
        run(small(*FLAGS, select="accuracy"), tmp_path / "out")


def test_other_commands_refuse_its_model_by_name(small, tmp_path):
    _, rows, _ = run(small(*FLAGS, objectives=("labels",), seeds=(0,)), tmp_path / "out")
    folder = tmp_path / "out/runs" / rows[-1].hash
    with pytest.raises(UserError, match=r"model of task number; .*distill-jax predict"):
        open_classifier(folder)
    with pytest.raises(UserError, match="ce: this loss has no meaning for a number"):
        compressed(folder, "distil(objective='ce')", tmp_path / "small")
    with pytest.raises(UserError, match="a temperature is for classes"):
        open_any(folder, temperature=2.0)
    with pytest.raises(UserError, match="teaching classes as it came is for task classes"):
        load_checkpoint(str(folder / "model"), num_labels=None, fresh=False)
    raw = json.loads((folder / "model/config.json").read_text())
    assert raw["problem_type"] == "regression"
    (folder / "model/task.json").write_text('{"task": "number", "saved": {"mean": 1}}')
    with pytest.raises(UserError, match=r"what is kept of task number .*deviation"):
        open_any(folder)
    (folder / "model/task.json").write_text("[]")
    with pytest.raises(UserError, match=r"task.json is damaged"):
        open_any(folder)
    (folder / "model/task.json").unlink()
    with pytest.raises(UserError, match="has a head for 'regression'"):
        load_pretrained(folder / "model")
