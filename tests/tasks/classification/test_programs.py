"""How many programs a table compiles and how often it calls a training step; times are not held."""

import dataclasses
import functools
from collections import Counter

import pytest
from benches import bench_module
from rich.console import Console

from distill_jax.cli.compare import sweep_of
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.objectives import registry
from distill_jax.tasks.classification.table import Classification

STEPS = 6
EACH_RUN = 1
"""Programs that every further run compiles: the start of its optimiser, see ``Layout.new_state``.
"""


@pytest.fixture
def table(small_table, tmp_path, monkeypatch, nothing_compiled):
    """(changes) -> a small table as it was made in an empty home: task, counts."""

    def made(*, anew=True, **changes) -> tuple[Classification, Counter]:
        if anew:
            nothing_compiled()
        folder = tmp_path / str(sorted(changes.items()))
        monkeypatch.setenv("DISTILL_JAX_HOME", str(folder / "home"))
        task = Classification(sweep_of(small_table(steps=STEPS, max_shapes=2, **changes)))
        with bench_module("phases").counting() as counts:
            run_table(task, folder / "out", Reporter(Console(quiet=True)), strategy="sequential")
        return task, counts

    return made


def shapes_of(task):
    """Batch lengths of students, and of the teacher's fine-tuning and evaluations."""
    cell = task.entries[0].cell
    splits, _ = task.supplies.of(cell)
    return len(splits.training_lengths(cell.training)), len(splits.few_lengths)


@pytest.mark.slow
def test_further_runs_of_an_objective_compile_no_step(table):
    """Slow: three tables."""
    table(objectives=("kl",), seeds=(9,))  # compiles what a process compiles once
    _, few = table(objectives=("kl",), seeds=(0,))
    task, many = table(objectives=("kl", "2*kl(T=4)"), seeds=(0, 1))
    student, teacher = shapes_of(task)
    assert task.supplies.engine.compilations <= student + teacher
    assert many["compiled"] - few["compiled"] <= EACH_RUN * 3

    splits, _ = task.supplies.of(task.entries[0].cell)
    fine_tuning = task.entries[0].cell.setup.teacher.training.total_steps(len(splits.labelled))
    assert few["steps"] <= STEPS + fine_tuning
    assert many["steps"] <= 4 * STEPS + fine_tuning


def test_an_objective_of_another_structure_compiles_a_step_a_shape(table):
    task, counts = table(objectives=("kl", "mse_logits"), seeds=(0,))
    student, teacher = shapes_of(task)
    assert student == 2, "the table has too few lengths to say anything"
    assert 0 < task.supplies.engine.compilations <= 2 * student + teacher
    assert counts["compiled"] >= task.supplies.engine.compilations


def test_what_one_table_compiled_another_does_not(table, own_registry):
    task, _ = table(objectives=("kl",), seeds=(0,))
    assert task.supplies.engine.compilations > 0
    task, _ = table(objectives=("kl",), seeds=(1,), anew=False)
    assert task.supplies.engine.compilations == 0
    own = registry.lookup("kl")
    own = dataclasses.replace(own, function=functools.partial(own.function))  # written anew
    registry._SPECS["kl"] = own
    task, _ = table(objectives=("kl",), seeds=(2,), anew=False)
    student, _ = shapes_of(task)
    assert task.supplies.engine.compilations == student
