"""Small tables, one for each kind of training, and a process that kills itself amid one.

    python tests/killed.py KIND STEP TEACHER REVIEWS FOLDER

runs a table until the program of its STEP-th training step has been called; then comes SIGKILL.
Students have dropout, and losses with parameters of their own. Run with the environment of the
tests, so that programs are the same to the bit.
"""

import contextlib
import dataclasses
import itertools
import os
import signal
import sys
from functools import partial
from pathlib import Path

import jax
import pytest

from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import RunOptions
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import Sweep, axis
from distill_jax.tables.columns import ACCURACY
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.interrupt import Interrupted
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.step import CompiledStep

STEPS = 6
STRATEGIES = {
    "single": "sequential",
    "intermediate": "sequential",
    "vmap": "vmap",
    "sharded": "sharded",
}
"""Kind of training -> how its table is run."""
TEACHER_STEPS = 4
STEP_CALLS = {
    kind: TEACHER_STEPS + STEPS * (2 if kind == "intermediate" else 1) for kind in STRATEGIES
}
"""How often a training step is called in a table, the teacher's fine-tuning among them."""


def sweep_of(kind: str, teacher: Path, reviews: Path) -> Sweep:
    """A table with one student, or with three in a population."""
    training = TrainingConfig(
        steps=STEPS,
        evaluations=2,
        batch_size=16,
        max_shapes=1,
        optimizer=OptimizerConfig(learning_rate=1e-2),
    )
    base = Cell(
        ClassifierSetup(
            data=DataConfig(f"files:{reviews}", label_fraction=0.5, max_length=16),
            teacher=TeacherConfig(
                str(teacher), training=dataclasses.replace(training, steps=TEACHER_STEPS)
            ),
            student="1x8x2",
        ),
        (Train("ce", training),),
    )
    if kind == "intermediate":
        base = base.but(intermediate=Train("hidden_mse", training))
    text = "kl(T=2) + ce" if kind == "intermediate" else "hidden_mse + 0.5*kl(T=2) + ce"
    return Sweep(
        name="killed",
        title="killed",
        base=base,
        rows=axis("objective", [text]),
        groups=axis("student", ["1x8x2"]),
        seeds=(0,) if STRATEGIES[kind] == "sequential" else (0, 1, 2),
        baseline=text,
        columns=(ACCURACY,),
    )


def run(kind: str, teacher: Path, reviews: Path, folder: Path, reporter, **options):
    """The table, a checkpoint at every step."""
    devices = jax.devices()[: 2 if kind == "sharded" else 1]  # less to compile than for eight
    run_module.Engine = partial(Engine, mesh=make_mesh(devices))
    try:
        return run_table(
            Classification(sweep_of(kind, teacher, reviews)),
            folder,
            reporter,
            track="none",
            strategy=STRATEGIES[kind],
            options=RunOptions(checkpoint_seconds=0, **options),
        )
    finally:
        run_module.Engine = Engine


def environment():
    """Of a process that finds the package, and the programs that were compiled here."""
    path = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@contextlib.contextmanager
def stopped_at(step: int):
    """Ctrl-C comes before the training step of this number, and ends what is done within."""
    call, calls = CompiledStep.__call__, itertools.count(1)

    def stops(*arguments):
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return call(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(CompiledStep, "__call__", stops)
        yield


def kill_at(step: int) -> None:
    """Let SIGKILL come when the training step of this number has been called."""
    call, calls = CompiledStep.__call__, iter(range(1, step + 1))

    def killed_at_last(*arguments):
        result = call(*arguments)
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    CompiledStep.__call__ = killed_at_last  # type: ignore[method-assign]


def main(kind: str, step: str, teacher: str, reviews: str, folder: str) -> None:
    from distill_jax.engine.progress import Reporter

    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    kill_at(int(step))
    run(kind, Path(teacher), Path(reviews), Path(folder), Reporter())


if __name__ == "__main__":
    main(*sys.argv[1:])
