"""Students who learn one from another, and finished students as teachers."""

import dataclasses
import io
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console

from distill_jax.cli.compare import sweep_of
from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tables.build import table_of
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.outputs import write_outputs
from distill_jax.tasks.classification.finished import cell_of
from distill_jax.tasks.classification.finished_models import located
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.interrupt import Interrupted


def run(args, folder, strategy="sequential"):
    out = io.StringIO()
    reporter = Reporter(Console(file=out, width=400))
    spec, rows = run_table(
        Classification(sweep_of(args)), folder, reporter, strategy=strategy, options=args.options
    )
    return spec, rows, out.getvalue()


def kept(folder, row):
    with np.load(folder / "runs" / row.hash / "test_logits.npz") as file:
        return file["logits_NC"]


def scores(folder):
    rows = Ledger(folder / "ledger.jsonl").rows()
    timeless = ("latency/",)
    return {
        row.hash: {k: v for k, v in row.metrics.items() if not k.startswith(timeless)}
        for row in rows
    }


@pytest.fixture
def chain(small_table):
    return partial(small_table, assistants=("2x8x2", "1x8x2: 0.5*kl + 0.5*ce"), seeds=(0,))


@pytest.mark.long
def test_the_last_assistant_teaches_and_every_one_is_the_student_it_would_be_alone(
    chain, small_table, tmp_path
):
    spec, rows, said = run(chain(), tmp_path / "chain")
    write_outputs(table_of(spec, rows), tmp_path / "chain")
    assert said.index("assistant 2x8x2 learns by kl") < said.index("assistant 1x8x2 learns by 0.5")
    (place,) = spec.teachers
    assert place.group == "model > 2x8x2 > 1x8x2"
    by_hash = {row.hash: row for row in rows}
    teacher = by_hash[place.hash]
    assert teacher.config["student"] == "1x8x2" and teacher.config["assists"]
    (kl,) = [row for row in rows if row.row == "kl"]
    assert kl.fingerprints["teacher"] == teacher.fingerprints["teacher"]
    found = cell_of(kl)  # as compress finds it
    assert found.setup.teacher.assistants[1].student == "1x8x2" and found.hash == kl.hash

    # By hand: the first assistant's table, then that run as a teacher, and so on.
    first = small_table(students=("2x8x2",), objectives=("kl",), seeds=(0,))
    _, rows, _ = run(first, tmp_path / "first")
    one = tmp_path / "first/runs" / rows[-1].hash
    second = small_table(teacher=(f"run:{one}",), objectives=("0.5*kl + 0.5*ce",), seeds=(0,))
    _, rows, _ = run(second, tmp_path / "second")
    np.testing.assert_allclose(
        kept(tmp_path / "second", rows[-1]), kept(tmp_path / "chain", teacher), atol=1e-4
    )


@pytest.mark.long
def test_a_chain_that_was_stopped_goes_on_and_comes_out_the_same(chain, tmp_path, monkeypatch):
    run(chain(), tmp_path / "undisturbed")

    class Impatient(Engine):
        runs = 0

        def train(self, *args, **kwargs):
            Impatient.runs += 1
            if Impatient.runs == 3:  # the second assistant
                self.stop.requested = True
            return super().train(*args, **kwargs)

    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "another_home"))
    with monkeypatch.context() as patched:
        mesh = make_mesh(jax.devices()[:1])
        patched.setattr(run_module, "Engine", partial(Impatient, mesh=mesh))
        with pytest.raises(Interrupted):
            run(chain(), tmp_path / "disturbed")
    _, _, said = run(chain(), tmp_path / "disturbed")
    assert "assistant 2x8x2 learns" not in said  # it was kept
    assert scores(tmp_path / "disturbed") == scores(tmp_path / "undisturbed")


@pytest.mark.long
def test_born_again_without_a_teacher_to_begin_with(small_table, toy_teacher, tmp_path):
    args = small_table(
        teacher=("none",),
        tokenizer=str(toy_teacher),
        assistants=("1x8x2: ce", "1x8x2: kl + ce"),
        objectives=("ce", "kl + ce"),
        teacher_seeds=(0, 1),
    )
    spec, rows, _ = run(args, tmp_path / "out", "vmap")
    assert {place.group for place in spec.teachers} == {"none > 1x8x2 > 1x8x2"}
    assert len(spec.teachers) == 2 and "one of 2 teachers (seeds 0, 1)" in spec.protocol[-1]
    assert len({row.fingerprints["teacher"] for row in rows if row.row == "kl + ce"}) == 2
    with pytest.raises(UserError, match="'kl' listens to a teacher, and --teacher none"):
        run(dataclasses.replace(args, assistants=("1x8x2",)), tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"assistants": ("1x8x",)}, "unknown student"),
        ({"assistants": ("1x8x2: kll",)}, "unknown loss"),
        ({"assistants": ("1x8x2: hidden_mse(layers={3: 1}) + ce",)}, "layer"),
        ({"teacher": ("a", "b")}, "learn one from another"),
    ],
)
def test_assistants_that_cannot_be(chain, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        run(chain(**changes), tmp_path / "out")


@pytest.mark.parametrize(
    "student",
    [pytest.param("l1", marks=pytest.mark.long), "bilstm-random-4", "static-random-8"],
)
def test_a_finished_student_of_every_family_teaches(small_table, tmp_path, monkeypatch, student):
    monkeypatch.chdir(tmp_path)
    first = small_table(students=(student,), objectives=("ce",), seeds=(0,))
    _, rows, _ = run(first, tmp_path / "results/first")
    hash_ = rows[-1].hash
    assert located(f"run:{hash_[:6]}").resolve() == tmp_path / f"results/first/runs/{hash_}/model"
    pupil = student if student != "l1" else "1x8x2"
    args = small_table(
        teacher=(f"run:{hash_[:8]}",), students=(pupil,), objectives=("ce", "kl"), seeds=(0,)
    )
    _, rows, said = run(args, tmp_path / "results/second")
    teacher, *_ = rows
    np.testing.assert_allclose(
        kept(tmp_path / "results/second", teacher),
        np.load(tmp_path / f"results/first/runs/{hash_}/test_logits.npz")["logits_NC"],
        atol=1e-5,
    )
    assert "label orders agree" in said
    assert np.isfinite([row.metrics["test/fidelity"] for row in rows[1:]]).all()


def test_a_run_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/runs/abcdef12", "b/runs/abcdef34"):
        (tmp_path / "results" / name / "model").mkdir(parents=True)
    with pytest.raises(UserError, match="several runs begin so: results/a/runs/abcdef12, results"):
        located("run:abcdef")
    assert located("run:abcdef1") is not None
    with pytest.raises(UserError, match="no finished run with a model at 0123456789"):
        located("run:0123456789")
    assert located("sentence-transformers/all-MiniLM-L6-v2") is None
