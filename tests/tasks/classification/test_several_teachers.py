"""Several teachers of one table: each alone, a mean of their losses, one word of them all."""

import io
import json
import shutil

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from distill_jax.cli.compare import sweep_of
from distill_jax.cli.compare_flags import CompareLosses, parse_arguments
from distill_jax.core.errors import UserError
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.losses.teachers import mean_probabilities
from distill_jax.tasks.classification.table import Classification

ONE_WORD = "kl(teachers='mean_probabilities')"
ROWS = ("ce", "kl", "kl(teacher=1)", ONE_WORD, "hidden_mse + kl(teachers='mean_logits')")


@pytest.fixture
def second(toy_teacher, tmp_path):
    """A teacher with other weights and the same tokeniser."""
    folder = shutil.copytree(toy_teacher, tmp_path / "second")
    rng = np.random.default_rng(1)
    weights = load_file(folder / "model.safetensors")
    noisy = {k: v + rng.normal(0, 0.05, v.shape).astype(v.dtype) for k, v in weights.items()}
    save_file(noisy, folder / "model.safetensors")
    return folder


def run(args, folder, **how):
    out = io.StringIO()
    task = Classification(sweep_of(args))
    ran = run_table(task, folder, Reporter(Console(file=out, width=300)), **how)
    return *ran, out.getvalue()


@pytest.mark.long
@pytest.mark.parametrize("outputs", ["cache", "live"])
def test_every_row_hears_those_it_names(small_table, toy_teacher, second, tmp_path, outputs):
    both = (str(toy_teacher), str(second))
    args = small_table(teacher=both, objectives=ROWS, seeds=(0,), teacher_outputs=outputs)
    spec, rows, said = run(args, tmp_path / "both", strategy="sequential")
    by_row = {row.row: row for row in rows if row.row != "teacher"}
    assert "self-checks" in said and f"0: {both[0]}, 1: {both[1]}." in spec.protocol[-2]
    assert [(place.row, place.group) for place in spec.teachers] == [
        ("teacher", "model"),
        ("teacher", "second"),
    ]
    logits = {}
    for place in (*spec.teachers, *spec.places):
        with np.load(tmp_path / "both/runs" / place.hash / "test_logits.npz") as kept:
            logits[place.group if place in spec.teachers else place.row] = kept["logits_NC"]
    heard_NC = np.asarray(mean_probabilities(np.stack([logits["model"], logits["second"]])))
    agree_N = logits["kl"].argmax(axis=-1) == heard_NC.argmax(axis=-1)
    assert by_row["kl"].metrics["test/fidelity"] == pytest.approx(agree_N.mean())

    alone = small_table(teacher=(both[1],), objectives=("ce", "kl"), seeds=(0,))
    spec, rows, _ = run(alone, tmp_path / "alone", strategy="sequential")
    (kl,) = [row for row in rows if row.row == "kl"]
    with np.load(tmp_path / "alone/runs" / kl.hash / "test_logits.npz") as kept:
        np.testing.assert_allclose(logits["kl(teacher=1)"], kept["logits_NC"], atol=1e-6)
    # The mean of KLs and the KL of the mean of probabilities have one gradient.
    np.testing.assert_allclose(logits["kl"], logits[ONE_WORD], atol=1e-5)
    assert np.abs(logits["kl"] - logits["kl(teacher=1)"]).min() > 5e-5


def test_a_population_hears_the_same(small_table, toy_teacher, second, tmp_path):
    args = small_table(teacher=(str(toy_teacher), str(second)), objectives=("ce", "kl"))
    tables = [run(args, tmp_path / way, strategy=way)[1] for way in ("sequential", "vmap")]
    by_hash = [{row.hash: row.metrics["test/nll"] for row in table} for table in tables]
    assert by_hash[0] == pytest.approx(by_hash[1], rel=1e-3)


def test_weights_of_teachers_stand_in_every_term_that_hears_all():
    flags = ["--teacher", "a", "b", "--teacher-weights", "0.7", "0.3", "--objectives", "ce"]
    args = parse_arguments([*flags, "kl + kl(teacher=1)", "kl(teacher_weights=[1, 1])"], "t")
    objectives = [entry.cell.objective for entry in sweep_of(args).entries()[::3]]
    assert objectives == [
        "ce",
        "kl(teacher_weights=[0.7, 0.3]) + kl(teacher=1)",
        "kl(teacher_weights=[1, 1])",
    ]
    (first, *_) = sweep_of(args).entries()
    assert [teacher.name for teacher in first.cell.setup.teachers] == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": ("a", "a")}, "each once"),
        ({"teacher_weights": (1.0,)}, "no meaning with one teacher"),
        ({"teacher": ("a", "b"), "teacher_weights": (1.0,)}, "a number for each of 2 teachers"),
    ],
)
def test_flags_that_do_not_fit_each_other(changes, message):
    with pytest.raises(UserError, match=message):
        CompareLosses(**changes)


def test_what_several_teachers_cannot_do_is_said(small_table, toy_teacher, second, tmp_path):
    both = (str(toy_teacher), str(second))
    with pytest.raises(UserError, match="no teacher 2: they are numbered 0 to 1"):
        run(small_table(teacher=both, objectives=("kl(teacher=2)",)), tmp_path / "out")
    with pytest.raises(UserError, match="--controls are for one teacher"):
        sweep_of(small_table(teacher=both, controls=True))
    with pytest.raises(UserError, match="--label-map is for one teacher"):
        sweep_of(small_table(teacher=both, label_map="a=b", fine_tune=False))
    path = second / "tokenizer.json"
    tokeniser = json.loads(path.read_text())
    vocabulary = tokeniser["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.get)
    vocabulary[words[-1]], vocabulary[words[-2]] = vocabulary[words[-2]], vocabulary[words[-1]]
    path.write_text(json.dumps(tokeniser))
    with pytest.raises(UserError, match=r"do not read the same tokens; .*one tokeniser"):
        run(small_table(teacher=both), tmp_path / "out")
    assert not (tmp_path / "home/teachers").exists()
