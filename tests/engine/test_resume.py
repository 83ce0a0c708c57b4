"""A table goes on from what it left, refuses what has changed, and stops wherever it is asked."""

import io
import json
from dataclasses import replace

import jax
import pytest
from digit_tables import digit_sweep
from rich.console import Console

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import axis
from distill_jax.tasks.classification import runs as runs_module
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.interrupt import Interrupted
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.step import CompiledStep

SWEEP = digit_sweep(["ce", "kl"], axis("student", ["cnn-2-4"]), steps=6, seeds=(0,))
TRAINING = SWEEP.base.training


def changed(**fields):
    """The sweep with other settings of its cells' training."""
    return replace(SWEEP, base=SWEEP.base.but(training=replace(TRAINING, **fields)))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """(sweep, options) -> rows by place; counts steps, which may ask for a stop."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    call = CompiledStep.__call__

    def counted(*arguments):
        go.steps += 1
        go.engine.stop.requested |= go.steps == go.stop_after
        return call(*arguments)

    monkeypatch.setattr(CompiledStep, "__call__", counted)

    def go(sweep=SWEEP, *, folder="out", strategy="sequential", stop_after=None, **options):
        def watched(*args):
            go.engine = Engine(*args, mesh=make_mesh(jax.devices()[:1]))
            return go.engine

        monkeypatch.setattr(run_module, "Engine", watched)
        go.steps, go.stop_after, go.said = 0, stop_after, io.StringIO()
        spec, rows = run_table(
            Classification(sweep),
            tmp_path / folder,
            Reporter(Console(file=go.said, width=300)),
            track="none",
            strategy=strategy,
            options=RunOptions(**options),
        )
        by_hash = {row.hash: row for row in rows}
        return {(p.row, p.seed): by_hash[p.hash] for p in spec.places}

    return go


def numbers(rows):
    return {
        place: {k: v for k, v in row.metrics.items() if not k.startswith("latency/")}
        for place, row in rows.items()
    }


def test_must_wants_something_to_go_on_from(run, tmp_path):
    with pytest.raises(UserError, match=r"--resume must: .* holds no finished run and no check"):
        run(resume="must")
    assert run.steps == 0
    with pytest.raises(Interrupted):
        run(stop_after=15)  # the teacher's six, the first student's six, three of the second
    assert "goes on" not in run.said.getvalue()
    resumed = run(resume="must")
    assert run.steps == 3
    assert "cnn-2-4  kl  seed 0: goes on from step 3 of 6" in run.said.getvalue()
    assert numbers(resumed) == numbers(run(folder="other", resume="never"))
    run(resume="must")
    assert run.steps == 0


def test_must_refuses_damage_before_step_1(run, tmp_path):
    with pytest.raises(Interrupted):
        run(stop_after=15)
    [digests] = (tmp_path / "out/runs").rglob("digests.json")
    files = [path for path in digests.parent.rglob("*") if path.is_file()]
    damaged = max(files, key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"damaged.*--resume must refuses"):
        run(resume="must")
    assert run.steps == 0
    with pytest.raises(UserError, match=r"damaged: step 3.*there is no other.*--resume never"):
        run()
    run(resume="never")
    assert run.steps == 6
    assert "the checkpoint of step 3 is deleted" in run.said.getvalue()


def test_never_starts_unfinished_runs_afresh_and_keeps_the_finished(run):
    with pytest.raises(Interrupted):
        run(stop_after=15)
    run(resume="never")
    assert run.steps == 6
    assert "the checkpoint of step 3 is deleted" in run.said.getvalue()


@pytest.mark.parametrize("strategy", ["sequential", "vmap"])
def test_a_stop_amid_measurements_trains_nothing_again(run, tmp_path, monkeypatch, strategy):
    """After training come the test split and latencies: what was trained is kept meanwhile."""
    expected = numbers(run(folder="undisturbed", strategy=strategy))
    measured = []

    def stopping(*args, on_call, **kwargs):
        measured.append(1)
        run.engine.stop.requested |= len(measured) == 2  # the teacher is the first
        on_call()
        return cpu_latency(*args, on_call=on_call, **kwargs)

    cpu_latency = runs_module.cpu_latency
    with monkeypatch.context() as patch:
        patch.setattr(runs_module, "cpu_latency", stopping)
        with pytest.raises(Interrupted):
            run(strategy=strategy)
    trained = run.steps
    kept = {"sequential": "end.safetensors", "vmap": "stage-0.safetensors"}[strategy]
    [end] = (tmp_path / "out/runs").rglob(kept)
    resumed = run(strategy=strategy)
    assert trained + run.steps == 6 * 2
    assert numbers(resumed) == expected
    assert not end.exists()


def test_a_damaged_end_of_training_is_not_used(run, tmp_path, monkeypatch):
    def stopping(*args, on_call, **kwargs):
        run.engine.stop.requested |= run.steps > 0
        on_call()
        return cpu_latency(*args, on_call=on_call, **kwargs)

    run(folder="teacher", sweep=replace(SWEEP, rows=SWEEP.rows[:1]))
    cpu_latency = runs_module.cpu_latency
    with monkeypatch.context() as patch:
        patch.setattr(runs_module, "cpu_latency", stopping)
        with pytest.raises(Interrupted):
            run()
    [end] = (tmp_path / "out/runs").rglob("end.safetensors")
    data = bytearray(end.read_bytes())
    data[-3] ^= 1
    end.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"end of a stage.*damaged: not as it was written"):
        run(resume="must")
    run()
    assert "damaged: not as it was written" in run.said.getvalue()
    assert run.steps == 12


def test_a_stop_is_heeded_within_an_evaluation(run, monkeypatch):
    expected = numbers(run(folder="undisturbed"))
    check_stop = Engine.check_stop

    def ask(engine):
        engine.stop.requested |= run.steps == 9  # at the first evaluation of the second student
        check_stop(engine)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "check_stop", ask)
        with pytest.raises(Interrupted):
            run()
    assert run.steps == 9  # the teacher was there
    assert numbers(run()) == expected
    assert run.steps == 3


def test_a_stop_is_heeded_while_strategies_are_timed(run):
    two = replace(SWEEP, rows=SWEEP.rows[:1], seeds=(0, 1))
    run(replace(two, seeds=(0,)), folder="teacher")
    with pytest.raises(Interrupted):
        run(two, strategy="auto", stop_after=2)
    assert run.steps <= 4


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (changed(steps=8), r"training.steps: 6 -> 8"),
        (changed(optimizer=OptimizerConfig(1e-3)), r"training.optimizer.learning_rate: 0.005 ->"),
        (
            replace(
                SWEEP,
                base=SWEEP.base.but(
                    teacher=replace(SWEEP.base.setup.teacher, training=replace(TRAINING, steps=4))
                ),
            ),
            r"teacher.training.steps: 6 -> 4",
        ),
        (
            replace(SWEEP, base=SWEEP.base.but(data=DataConfig("digits", label_fraction=0.5))),
            r"data.label_fraction: 1.0 -> 0.5.*data_digest",
        ),
    ],
    ids=["steps", "learning rate", "teacher", "data"],
)
def test_a_changed_configuration_is_refused_with_a_difference(run, tmp_path, sweep, message):
    run()
    before = (tmp_path / "out/ledger.jsonl").read_bytes()
    with pytest.raises(UserError, match=message) as told:
        run(sweep)
    assert run.steps == 0, "refused before the teacher is trained"
    assert "\n" not in str(told.value)
    assert (tmp_path / "out/ledger.jsonl").read_bytes() == before
    keys = str(told.value).split("--allow-change ")[1].split()
    run(sweep, allow_change=tuple(key for key in keys if not key.endswith("_digest")))
    assert run.steps > 0


def test_a_run_that_never_finished_is_compared_too(run):
    with pytest.raises(Interrupted):
        run(stop_after=15)
    with pytest.raises(UserError, match=r"toy|kl.*training.steps: 6 -> 8"):
        run(replace(changed(steps=8), rows=SWEEP.rows[1:], baseline="kl"))


def test_more_rows_groups_and_seeds_are_no_change(run):
    run()
    more = replace(
        SWEEP,
        rows=axis("objective", ["mse_logits", "ce", "kl"]),
        groups=axis("student", ["cnn-2-4", "cnn-2-2"]),
        seeds=(0, 1),
    )
    assert len(run(more)) == 3 * 2


def test_settings_of_all_runs_are_kept(run, tmp_path):
    run()
    kept = json.loads((tmp_path / "out/runs/cells.json").read_text())
    assert {cell["objective"] for cell in kept.values()} == {"ce", "kl"}
