"""A table of classifiers of digits, trained in a second: for tests of how a table is run."""

import io

import jax
from rich.console import Console

from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import RunOptions
from distill_jax.engine.progress import Reporter
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
from distill_jax.training.optimizer import OptimizerConfig


def digit_sweep(objectives, groups, *, steps, seeds, **changes):
    """A sweep over objectives and groups of a small CNN under a CNN.

    Args:
      objectives: of the rows; the first is the baseline.
      groups: as ``axis`` makes them.
      steps: of the teacher and of every student.
    """
    training = TrainingConfig(
        steps=steps, evaluations=2, batch_size=32, optimizer=OptimizerConfig(5e-3)
    )
    setup = ClassifierSetup(
        data=DataConfig("digits", label_fraction=1.0),
        teacher=TeacherConfig("cnn-4-8", training=training),
        student="cnn-2-4",
    )
    return Sweep(
        name="toy",
        title="toy",
        base=Cell(setup, (Train(objectives[0], training),)),
        rows=axis("objective", objectives),
        groups=groups,
        seeds=seeds,
        baseline=objectives[0],
        columns=(ACCURACY,),
        **changes,
    )


class Runner:
    """Runs sweeps in folders under one root; keeps the last one's engine, declaration and rows.

    Attributes:
      said: what the last one said.
    """

    def __init__(self, root, monkeypatch):
        self._root, self._monkeypatch = root, monkeypatch

    def __call__(self, sweep, folder, strategy="sequential", *, make=Engine, devices=1, part="1/1"):
        """Rows by place.

        Args:
          make: the engine, or a subclass of it.
          devices: fewer compile faster.
        """

        def watched(*args):
            self.engine = make(*args, mesh=make_mesh(jax.devices()[:devices]))
            return self.engine

        self._monkeypatch.setattr(run_module, "Engine", watched)
        out = io.StringIO()
        self.spec, self.rows = run_table(
            Classification(sweep),
            self._root / folder,
            Reporter(Console(file=out, width=200)),
            track="none",
            strategy=strategy,
            options=RunOptions(part=part),
        )
        self.said = out.getvalue()
        by_hash = {row.hash: row for row in self.rows}
        places = [place for place in self.spec.places if place.hash in by_hash]
        return {(p.row, p.group, p.seed): by_hash[p.hash] for p in places}
