"""A table of classifiers in small, for tests that run one."""

import dataclasses
from functools import partial

import jax
import pytest

from distill_jax.cli.compare import CompareLosses
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine


@pytest.fixture
def small_table(toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """(changes) -> arguments of a small table in an empty home, on one device."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device = partial(Engine, mesh=make_mesh(jax.devices()[:1]))  # compiles faster than eight
    monkeypatch.setattr(run_module, "Engine", one_device)
    return partial(
        dataclasses.replace,
        CompareLosses(
            data=f"files:{toy_reviews}",
            teacher=str(toy_teacher),
            label_fraction=0.5,
            students=("1x8x2",),
            objectives=("ce", "kl"),
            seeds=(0, 1),
            steps=6,
            evaluations=2,
            batch_size=16,
            teacher_batch_size=16,
            teacher_epochs=1,
            teacher_learning_rate=1e-4,
            max_shapes=1,
            max_length=16,
            yardsticks=False,
            track="none",
        ),
    )
