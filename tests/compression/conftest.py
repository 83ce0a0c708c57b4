"""One finished run for all tests of what is done to it."""

import dataclasses

import pytest
from compressed import finished, one_device
from killed import sweep_of
from trained import knowing_head, saved

from distill_jax.tasks.classification.cells import TeacherConfig
from distill_jax.training.optimizer import OptimizerConfig


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
def run(patched, learnt, tmp_path_factory):
    """The folder of that student, finished."""
    return finished(learnt, tmp_path_factory.mktemp("table"))
