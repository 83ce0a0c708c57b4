"""The tables of recipes and of Tang et al. in small: all rows are checked, some are trained."""

import dataclasses
import io
from functools import partial
from pathlib import Path

import jax
import pytest
from rich.console import Console
from scripts import module_at

from distill_jax.cli.experiment import Flags
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.engine.sweep import Point
from distill_jax.tables.build import table_of
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.names import TRAINED
from distill_jax.tasks.classification.table import Classification
from distill_jax.training.interrupt import StopRequest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def small(toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """(script, which of its tables, rows to train, student) -> the table and what was run.

    All rows are checked as they are before training, but for those in ``beyond``, which ask for
    more than the toy teacher has.
    """
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(run_module, "Engine", one_device)

    def run(script, number, names, *, beyond=(), **changes):
        flags = Flags(preset="smoke", data=f"files:{toy_reviews}")
        sweep = module_at(EXPERIMENTS / f"{script}.py").declare(flags)[number]
        base = sweep.base.but(
            **{
                "teacher.name": str(toy_teacher),
                "data.max_length": 16,
                "data.label_fraction": 0.5,
                "training.max_shapes": 1,
                "training.batch_size": 16,
                **changes,
            }
        )
        groups = tuple(Point(point.label) for point in sweep.groups)
        small = dataclasses.replace(sweep, base=base, groups=groups, seeds=(0,))

        def of(wanted):
            rows = tuple(point for point in sweep.rows if wanted(point.label))
            return dataclasses.replace(small, rows=rows)

        reporter = Reporter(Console(file=io.StringIO(), width=200))
        every = of(lambda name: name not in beyond)
        engine = one_device(tmp_path / "checked", reporter, StopRequest())
        Classification(every).prepare(engine, every.entries())
        spec, found = run_table(
            Classification(of(lambda name: name in names)),
            tmp_path / sweep.name,
            reporter,
            strategy="sequential",
        )
        return table_of(spec, found), {row.row: row for row in found}

    return run


@pytest.mark.long
def test_recipes_in_small(small):
    names = ("kl", "kl by the teacher's certainty", "hidden states, then kl", "neighbours")
    beyond = ("Tang's (mask, n-grams)", "layer by layer, then kl")
    table, rows = small("recipes", 0, names, beyond=beyond, student="1x8x2")
    assert {row.row for row in table.students} == set(names)
    assert len({rows[name].metrics["test/nll"] for name in names}) == len(names)
    assert " recipe " in to_markdown(table)


@pytest.mark.long
def test_few_parameters_are_trained_where_that_is_said(small):
    table, rows = small("recipes", 1, ("kl", "BitFit", "LoRA, all kernels"))
    trained = {name: row.metrics[TRAINED] for name, row in rows.items() if name != "teacher"}
    assert trained["BitFit"] < trained["kl"] == rows["kl"].metrics["parameters"]
    assert trained["LoRA, all kernels"] > trained["BitFit"]
    assert "trained (M)" in to_markdown(table)


@pytest.mark.long
def test_tang_in_small(small):
    names = ("BiLSTM, labels only", "BiLSTM, MSE on logits")
    beyond = ("the same, augmented",)
    table, rows = small("tang2019_bilstm", 0, names, beyond=beyond, student="bilstm-4")
    assert set(rows) == {"teacher", *names}
    assert "part of speech" in to_markdown(table)


def test_the_full_forms_are_declared():
    for script in ("recipes", "tang2019_bilstm"):
        for sweep in module_at(EXPERIMENTS / f"{script}.py").declare(Flags()):
            runs = [max(1, len(row.candidates)) for row in sweep.rows]
            assert len(sweep.entries()) == sum(runs) * 5
            assert sweep.trends
    tang = module_at(EXPERIMENTS / "tang2019_bilstm.py").declare(Flags(data="files:SST2"))[0]
    augmented = [e.cell for e in tang.entries() if e.cell.setup.data.augment]
    assert augmented[0].setup.data.augment == "mask(0.1) + ngram(0.25, copies=10)"
    assert tang.published == "tang2019"
