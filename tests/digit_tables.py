"""A table of classifiers of digits, trained in a second: for tests of how a table is run."""

from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Sweep, axis
from distill_jax.tables.columns import ACCURACY
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
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
