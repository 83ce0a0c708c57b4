"""Stages after the making: part of a cell, its hash and its settings, where there are any."""

import dataclasses

import pytest
from killed import sweep_of

from distill_jax.compression.distil import Distil
from distill_jax.compression.grammar import parse_steps
from distill_jax.compression.prune import Prune
from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Cell, Train, changed
from distill_jax.tasks.classification.cells import ClassifierSetup, TrainingConfig
from distill_jax.tasks.recommendation.cells import RecommenderSetup
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.recommender import FitConfig


def cell(*steps, **options):
    making = (Train("hidden_mse", TrainingConfig()), Train("kl", TrainingConfig(epochs=3)))
    return Cell(
        ClassifierSetup(), (*making, *steps), data_digest="d", teacher_digest="t", **options
    )


def test_steps_come_after_the_making_and_count():
    plain, longer = cell(), cell(Prune(0.5), Distil(steps=4))
    assert plain.making == longer.making and longer.steps == (Prune(0.5), Distil(steps=4))
    assert (longer.objective, longer.training.epochs) == ("kl", 3)
    assert "steps" not in plain.config
    assert [step["kind"] for step in longer.config["steps"]] == ["prune", "distil"]
    assert longer.config["intermediate"] == plain.config["intermediate"]
    hashes = {
        each.hash
        for each in (plain, longer, cell(Prune(0.5)), cell(Prune(0.6)), cell(Distil(steps=4)))
    }
    assert len(hashes) == 5
    assert cell(*parse_steps("prune(share=0.5) -> distil(steps=4)")).hash == longer.hash


def test_changes_of_the_making_leave_the_steps():
    longer = cell(Prune(0.5))
    for path, value in (("objective", "ce"), ("intermediate", None), ("training.epochs", 1.0)):
        other = changed(longer, [(path, value)])
        assert other.steps == longer.steps and other.hash != longer.hash


def test_objectives_of_steps_are_among_the_cells():
    assert cell(Distil(objective="ce")).objectives == ("hidden_mse", "kl", "ce")


def test_cells_that_begin_with_a_step_or_are_no_classifiers_are_refused():
    with pytest.raises(UserError, match="the first one trains"):
        Cell(ClassifierSetup(), (Prune(0.5),))
    with pytest.raises(UserError, match="a stage's training must be a TrainingConfig"):
        Cell(ClassifierSetup(), (Train("kl", FitConfig(optimizer=OptimizerConfig())),))
    with pytest.raises(UserError, match="prune is for classifiers"):
        training = FitConfig(optimizer=OptimizerConfig())
        Cell(RecommenderSetup(), (Train("full_softmax", training), Prune(0.5)))


def test_a_table_does_not_leave_steps_out_in_silence(tmp_path):
    sweep = sweep_of("single", tmp_path, tmp_path)
    stages = (*sweep.base.stages, Prune(0.5))
    base = dataclasses.replace(sweep.base, stages=stages)
    with pytest.raises(UserError, match="for distill-jax compress"):
        dataclasses.replace(sweep, base=base).entries()
