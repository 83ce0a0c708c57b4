"""A finished run in small, to be made smaller still, and a process that is killed while it is.

    python tests/compressed.py RUN STEPS FOLDER STEP

carries out a pipeline until its STEP-th training step has been called; then comes SIGKILL.
"""

import dataclasses
import functools
import io
import sys
from pathlib import Path

import jax
import pytest
from killed import kill_at, sweep_of
from rich.console import Console
from trained import knowing_head, saved

from distill_jax.compression import pipeline
from distill_jax.compression.grammar import parse_steps
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tasks.classification.cells import TeacherConfig
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.optimizer import OptimizerConfig


def one_device(monkeypatch):
    """Engines on one device: less to compile than for eight."""
    engine = functools.partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(run_module, "Engine", engine)
    monkeypatch.setattr(pipeline, "Engine", engine)


def finished(sweep, folder: Path) -> Path:
    """The folder of the one run of a table."""
    reporter = Reporter(Console(file=io.StringIO()))
    spec, _ = run_table(Classification(sweep), folder, reporter, strategy="sequential")
    return folder / "runs" / spec.places[0].hash


def compressed(run: Path, steps: str, output: Path, max_drop: float = 100.0, **options):
    """The pipeline's result and what was said."""
    out = io.StringIO()
    result = pipeline.compress(
        run,
        parse_steps(steps),
        output,
        Reporter(Console(file=out, width=300)),
        max_drop=max_drop,
        options=RunOptions(**options),
    )
    return result, out.getvalue()


@pytest.fixture(scope="session")
def learnt(toy_teacher, toy_reviews, tmp_path_factory):
    """A table of one student with two layers that learns from a teacher who knows the labels."""
    head = knowing_head(toy_teacher, toy_reviews)
    teacher = saved(tmp_path_factory.mktemp("knowing") / "teacher", head, ("neg", "pos"))
    sweep = sweep_of("single", toy_teacher, toy_reviews)
    base = sweep.base.but(
        teacher=TeacherConfig(teacher, fine_tune=False),
        training=dataclasses.replace(
            sweep.base.training, steps=24, optimizer=OptimizerConfig(learning_rate=2e-2)
        ),
    )
    groups = (dataclasses.replace(sweep.groups[0], changes=(("student", "2x16x4"),)),)
    rows = (dataclasses.replace(sweep.rows[0], changes=(("objective", "kl"),)),)
    return dataclasses.replace(sweep, base=base, groups=groups, rows=rows)


@pytest.fixture(scope="session")
def patched(tmp_path_factory):
    """A home and one device for all tests of this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        one_device(patch)
        yield patch


@pytest.fixture(scope="session")
def finished_run(patched, learnt, tmp_path_factory):
    """The folder of that student, finished."""
    return finished(learnt, tmp_path_factory.mktemp("table"))


def main(run: str, steps: str, folder: str, step: str) -> None:
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    kill_at(int(step))
    pipeline.Engine = functools.partial(Engine, mesh=make_mesh(jax.devices()[:1]))  # type: ignore
    compressed(Path(run), steps, Path(folder), checkpoint_seconds=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
