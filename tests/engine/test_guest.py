"""A guest: a new task, a new family of students and a new loss, in this file and no other.

They are trained one by one and as a population, stopped and killed and gone on from, tested and
written to a table, through the engine that knows none of them.
"""

import dataclasses
import io
import os
import signal
import subprocess
import sys
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from rich.console import Console

from distill_jax.core.mesh import make_mesh
from distill_jax.core.types import Batch, ModelOutput, ModelShape
from distill_jax.engine import run as run_module
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.first_step import check_first_steps
from distill_jax.engine.interface import Run
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.rows import ledger_row, training_facts
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import Sweep, axis
from distill_jax.engine.work import Work
from distill_jax.losses.numeric import constant_pair
from distill_jax.objectives.plugin_api import LogitFeed, register
from distill_jax.objectives.registry import forget
from distill_jax.objectives.resolve import resolve
from distill_jax.tables.build import table_of
from distill_jax.tables.columns import Column
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.outputs import write_outputs
from distill_jax.training.checkpoint import Identity
from distill_jax.training.interrupt import Interrupted
from distill_jax.training.loop import LoopConfig
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.step import CompiledStep

CLASSES, FEATURES, STEPS = 3, 5, 40
OPTIMIZER = OptimizerConfig(learning_rate=5e-2, weight_decay=0.0)


def absolute_gap(student, teacher, *, where=None):
    """The new loss: mean absolute difference of the logits."""
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    return jnp.where(mask, jnp.mean(jnp.abs(student - teacher), axis=-1), 0)


class Maxout(nn.Module):
    """The new family of students: classes as maxima of linear pieces (Goodfellow et al. 2013)."""

    pieces: int
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train=False):
        features_BF = batch.pixels_BHWC.reshape(batch.pixels_BHWC.shape[0], -1)
        pieces_BPC = nn.Dense(self.pieces * CLASSES, dtype=self.dtype)(features_BF)
        return ModelOutput(jnp.max(pieces_BPC.reshape(-1, self.pieces, CLASSES), axis=1))


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """The new task's data: points and the third of the plane that they lie in, a training table."""

    name: str
    count: int

    @cached_property
    def features_NF(self):
        seed = sum(map(ord, self.name))
        return np.random.default_rng(seed).normal(size=(self.count, FEATURES)).astype(np.float32)

    @cached_property
    def labels_N(self):
        return np.argmax(self.features_NF[:, :CLASSES], axis=1).astype(np.int32)

    @property
    def ids(self):
        return tuple(f"{self.name}-{n}" for n in range(self.count))

    @property
    def lengths_N(self):
        return np.ones(self.count, np.int64)

    def __len__(self):
        return self.count

    def batch(self, rows, length, batch_size):
        def padded(values, fill=0):
            out = np.full((batch_size, *values.shape[1:]), fill, values.dtype)
            out[: len(rows)] = values
            return out

        ones = np.ones((batch_size, 1), np.int32)
        return Batch(
            padded(rows.astype(np.int32), -1),
            ones,
            ones,
            ones.astype(bool),
            padded(self.labels_N[rows]),
            padded(np.ones(len(rows), bool)),
            padded(self.features_NF[rows][:, None, None, :]),
        )


TRAIN, VALIDATION, TEST = Points("train", 64), Points("validation", 40), Points("test", 60)


def teacher(batch):
    """It knows the answer."""
    return ModelOutput(4 * np.asarray(batch.pixels_BHWC)[:, 0, 0, :CLASSES])


def right_N(model, params, points):
    whole = points.batch(np.arange(len(points)), 1, len(points))
    output = model.apply({"params": jax.device_get(params)}, whole)
    return np.asarray(jnp.argmax(output.logits_BC, axis=-1)) == points.labels_N


@dataclasses.dataclass(frozen=True)
class Guest:
    """What a cell of the new task is, see ``engine.cell.Setup``."""

    Training = int  # steps

    pieces: int = 2

    def settled(self, cell):
        return cell.but(data_digest="points")

    def identity(self, cell):
        return {"guest": cell.counted()}


class GuestRun(Run):
    """See ``engine.interface.Run``."""

    @property
    def model(self):
        return Maxout(self.cell.setup.pieces)

    @property
    def works(self):
        cell, shape = self.cell, ModelShape(0, 0, 0, CLASSES)
        objective = resolve(cell.objective, shape, shape)

        def evaluate(params, mesh, on_batch):
            return {"accuracy": float(right_N(self.model, params, VALIDATION).mean())}

        work = Work(
            identity=Identity(self.hash, self.config),
            seed=cell.seed,
            config=f"maxout-{cell.setup.pieces}",
            build=lambda dtype, remat: Maxout(cell.setup.pieces, dtype),
            objective=objective,
            optimizer=OPTIMIZER,
            loop=LoopConfig(cell.training, 10),
            batch_size=16,
            lengths=(1,),
            table=TRAIN,
            data="points",
            loss_params=lambda: objective.init_params(jax.random.key(cell.seed)),
            evaluate=evaluate,
        )
        return (work,)

    def start(self):
        rng = jax.random.key(self.cell.seed)
        return self.model.init(rng, TRAIN.batch(np.arange(2), 1, 2))["params"]

    def outputs(self):
        return teacher

    def finish(self, engine, result, seconds):
        right = right_N(self.model, result.params, TEST)
        return ledger_row(
            hash=self.hash,
            experiment="guest",
            row=self.entry.row,
            group=self.entry.group,
            seed=self.cell.seed,
            config=self.config,
            metrics={
                "test/accuracy": float(right.mean()),
                "norm": float(sum(np.abs(x).sum() for x in jax.tree.leaves(result.params))),
            },
            fingerprints={"data": "points"},
            training=training_facts(result, seconds),
            history=result.progress.history,
            test_scores={"accuracy": pack_numbers(right.astype(np.float32))},
        )

    def told(self, row):
        return f"accuracy {row.metrics['test/accuracy']:.2f}"


class GuestTask:
    """See ``engine.interface.Task``."""

    sweep = Sweep(
        name="guest",
        title="Points of the plane",
        base=Cell(Guest(), (Train("ce", STEPS),)),
        rows=axis("objective", ["ce", "0.5*ce + 0.5*kl(T=2)", "0.5*ce + absolute_gap"]),
        groups=axis("pieces", {"maxout-2": 2}),
        seeds=(0, 1, 2),
        columns=(Column("test/accuracy", "accuracy %", 100, 1, higher_is_better=True),),
    )

    def prepare(self, engine, entries):
        self.engine = engine

    def known(self, cell):
        return cell.config, ()

    def raise_teachers(self, ledger):
        """Its teacher is a formula."""

    def run(self, entry):
        return GuestRun(entry)

    def described(self, spec):
        return spec

    def self_check(self, runs):
        check_first_steps(self.engine, runs)


@pytest.fixture(autouse=True)
def loss():
    register(absolute_gap, feed=LogitFeed())
    yield
    forget(["absolute_gap"])


def run(folder, **how):
    out = io.StringIO()
    spec, rows = run_table(
        GuestTask(), folder, Reporter(Console(file=out, width=200)), track="none", **how
    )
    return spec, {row.hash: row for row in rows}, out.getvalue()


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    monkeypatch.setattr(run_module, "Engine", partial(Engine, mesh=make_mesh(jax.devices()[:1])))


def results(rows):
    return {key: (row.metrics, row.history, row.selected_step) for key, row in rows.items()}


@pytest.fixture
def whole(tmp_path):
    return run(tmp_path / "whole", strategy="sequential")


def test_it_is_swept_tested_and_written_to_a_table(whole, tmp_path):
    spec, rows, said = whole
    assert len(rows) == 9 and "self-checks" in said
    assert min(row.metrics["test/accuracy"] for row in rows.values()) > 0.5  # of three classes
    table = table_of(spec, list(rows.values()))
    entry = {row.row: row.entries["test/accuracy"] for row in table.rows}["0.5*ce + absolute_gap"]
    assert entry.summary.n == 3 and entry.tests.examples.n == len(TEST)
    write_outputs(table_of(spec, list(rows.values())), tmp_path / "whole")
    assert "absolute_gap" in (tmp_path / "whole/table.md").read_text()


def test_a_population_gives_the_same_table(whole, tmp_path):
    _, together, _ = run(tmp_path / "together", strategy="vmap")
    _, alone, _ = whole
    assert together.keys() == alone.keys()
    for key, row in alone.items():
        assert together[key].metrics["norm"] == pytest.approx(row.metrics["norm"], rel=1e-4)


@pytest.mark.parametrize("strategy", ["sequential", "vmap"])
def test_stopped_it_goes_on_to_the_same_table(strategy, tmp_path, monkeypatch):
    _, expected, _ = run(tmp_path / "undisturbed", strategy=strategy)
    call, calls = CompiledStep.__call__, iter(range(1000))
    engines = []

    def noted(*args, **kwargs):
        engines.append(Engine(*args, mesh=make_mesh(jax.devices()[:1]), **kwargs))
        return engines[-1]

    def stops(step, *arguments):
        if next(calls) == 3 + 7:  # amid the second half of the first run or population
            engines[-1].stop.requested = True
        return call(step, *arguments)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(run_module, "Engine", noted)
        patched.setattr(CompiledStep, "__call__", stops)
        run(tmp_path / "stopped", strategy=strategy, options=RunOptions(checkpoint_seconds=0))
    _, found, said = run(tmp_path / "stopped", strategy=strategy)
    assert "goes on from step" in said
    assert results(found) == results(expected)


@pytest.mark.long
def test_killed_it_goes_on_to_the_same_table(whole, tmp_path):
    _, expected, _ = whole
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, __file__, str(tmp_path / "killed")], env=env)
    assert killed.returncode == -signal.SIGKILL
    _, found, said = run(tmp_path / "killed", strategy="sequential")
    assert "goes on from step" in said
    assert results(found) == results(expected)
    assert len(Ledger(tmp_path / "killed/ledger.jsonl").history()) == 9


def die_amid(folder):
    """Run the table and be killed in the middle of its second run."""
    call, calls = CompiledStep.__call__, iter(range(1000))

    def killed(step, *arguments):
        result = call(step, *arguments)
        if next(calls) == 3 + STEPS + 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    register(absolute_gap, feed=LogitFeed())
    CompiledStep.__call__ = killed
    run_module.Engine = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    run(folder, strategy="sequential", options=RunOptions(checkpoint_seconds=0))


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    die_amid(Path(sys.argv[1]))
