"""Flags that the experiment scripts share."""

import pytest

from distill_jax.cli import experiment
from distill_jax.cli.experiment import Flags, run_experiment
from distill_jax.engine.cell import Cell, Train
from distill_jax.engine.sweep import Sweep, axis
from distill_jax.objectives import registry
from distill_jax.tables.columns import ACCURACY
from distill_jax.tasks.classification.cells import (
    ClassifierSetup,
    DataConfig,
    TeacherConfig,
    TrainingConfig,
)
from distill_jax.tasks.classification.draws import what_was_fixed


def declare(flags: Flags) -> tuple[Sweep, ...]:
    base = Cell(
        ClassifierSetup(data=DataConfig(), teacher=TeacherConfig(), student="tiny"),
        (Train("ce", TrainingConfig()),),
    )
    fields = dict(rows=axis("objective", ["ce", "kl"]), groups=axis("student", ["tiny"]))
    return tuple(
        Sweep(name, name, base, **fields, seeds=(0, 1), baseline="ce", columns=(ACCURACY,))
        for name in ("one", "two")
    )


@pytest.fixture
def declared(monkeypatch):
    """(arguments) -> the tables that would be run."""
    sweeps = []
    monkeypatch.setattr(experiment, "_run", lambda sweep, flags, console: sweeps.append(sweep))

    def parse(*arguments):
        sweeps.clear()
        run_experiment(declare, arguments)
        return list(sweeps)

    return parse


def test_without_flags_the_tables_are_as_declared(declared):
    assert declared() == list(declare(Flags()))


def test_seeds_of_students_teachers_and_labels_reach_every_table(declared):
    given = ["--seeds", "3", "4", "5", "--teacher-seeds", "1", "2", "--label-seeds", "7"]
    sweeps = declared(*given)
    assert [sweep.name for sweep in sweeps] == ["one", "two"]
    for sweep in sweeps:
        kl = [entry.cell for entry in sweep.entries() if entry.row == "kl"]
        assert [(c.seed, c.setup.teacher.seed, c.setup.data.label_seed) for c in kl] == [
            (3, 1, 7),
            (4, 2, 7),
            (5, 1, 7),
        ]
        assert what_was_fixed([entry.cell for entry in sweep.entries()]) == (
            "Each seed has, in turn, one of 2 teachers (seeds 1, 2). One draw of the labels "
            "(seed 7) for all seeds: the intervals do not cover other labels."
        )
    (first, _) = declared("--precision", "bf16")
    assert first.base.precision == "bf16"


def test_some_of_the_tables_are_chosen_by_name(declared, capsys):
    assert [sweep.name for sweep in declared("--tables", "two")] == ["two"]
    assert [sweep.name for sweep in declared("--tables", "two", "one")] == ["one", "two"]
    with pytest.raises(SystemExit) as stopped:
        declared("--tables", "tow")
    assert stopped.value.code == 2 and "'two'" in capsys.readouterr().err


def test_a_plugin_is_loaded_before_the_script_names_its_rows(tmp_path, monkeypatch, own_registry):
    monkeypatch.setattr(experiment, "_run", lambda *given: None)
    (tmp_path / "mine.py").write_text(
        "from distill_jax import losses\n"
        "from distill_jax.objectives.plugin_api import LogitFeed, register\n"
        "register(losses.kl, feed=LogitFeed(), name='kl_of_mine')\n"
    )
    known = []

    def declare_with_it(flags):
        known.append("kl_of_mine" in registry.names())
        return declare(flags)

    run_experiment(declare_with_it, ["--plugin", str(tmp_path / "mine.py")])
    assert known == [True]
