"""The tables of recipes and of Tang et al., in small, with a toy teacher; every row is trained."""

import dataclasses
import io
from functools import partial
from pathlib import Path

import jax
import numpy as np
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

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def small(toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """(script, which of its tables, rows to leave out) -> the table and the rows that were run."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device = partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    monkeypatch.setattr(run_module, "Engine", one_device)

    def run(script, number, without=(), student=None):
        flags = Flags(preset="smoke", data=f"files:{toy_reviews}")
        sweep = module_at(EXPERIMENTS / f"{script}.py").declare(flags)[number]
        base = sweep.base.but(
            **{
                "teacher.name": str(toy_teacher),
                "data.max_length": 16,
                "training.max_shapes": 1,
                "training.batch_size": 16,
                "data.label_fraction": 0.5,
            }
        )
        rows = tuple(point for point in sweep.rows if point.label not in without)
        if student:
            base = base.but(student=student)
        groups = tuple(Point(point.label) for point in sweep.groups)
        small = dataclasses.replace(sweep, base=base, rows=rows, groups=groups, seeds=(0,))
        out = io.StringIO()
        spec, found = run_table(
            Classification(small),
            tmp_path / sweep.name,
            Reporter(Console(file=out, width=200)),
            strategy="sequential",
        )
        return table_of(spec, found), {row.row: row for row in found}

    return run


def test_every_recipe_has_a_row(small):
    """But for masks, which the toy tokeniser does not read, and for layers the toy lacks."""
    without = ("Tang's (mask, n-grams)", "layer by layer, then kl")
    table, rows = small("recipes", 0, without=without, student="2x8x2")
    assert len(table.students) == 15 and len(rows) == 16
    assert np.isfinite([row.metrics["test/nll"] for row in rows.values()]).all()
    assert len({row.metrics["test/nll"] for row in rows.values()}) >= 14
    assert "| recipe |" in to_markdown(table)


def test_few_parameters_are_trained_where_that_is_said(small):
    table, rows = small("recipes", 1)
    trained = {name: row.metrics[TRAINED] for name, row in rows.items() if name != "teacher"}
    assert trained["kl"] == trained["layer decay 0.7"] == rows["kl"].metrics["parameters"]
    assert trained["LoRA"] < trained["LoRA, all kernels"]
    assert trained["BitFit"] < trained["embeddings frozen"] < trained["kl"]
    assert "trained (M)" in to_markdown(table)


def test_tang_in_small(small):
    without = ("the same, augmented",)
    table, rows = small("tang2019_bilstm", 0, without=without, student="bilstm-4")
    assert set(rows) == {"teacher", "BiLSTM, labels only", "BiLSTM, MSE on logits"}
    assert "part of speech" in to_markdown(table)


def test_the_full_forms_are_declared():
    for script in ("recipes", "tang2019_bilstm"):
        for sweep in module_at(EXPERIMENTS / f"{script}.py").declare(Flags()):
            assert len(sweep.entries()) == len(sweep.rows) * 5
            assert sweep.trends
    tang = module_at(EXPERIMENTS / "tang2019_bilstm.py").declare(Flags(data="files:SST2"))[0]
    augmented = [e.cell for e in tang.entries() if e.cell.setup.data.augment]
    assert augmented[0].setup.data.augment == "mask(0.1) + ngram(0.25, copies=10)"
    assert tang.published == "tang2019"
