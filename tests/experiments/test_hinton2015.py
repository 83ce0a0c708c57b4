"""experiments/hinton2015_mnist.py: three tables in small, and the published numbers beside them."""

import dataclasses
import functools

import jax
import pytest
from scripts import ROOT, module_at

from distill_jax.cli.experiment import Flags
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.tables.outputs import load_results
from distill_jax.tables.published import load_published

SCRIPT = module_at(ROOT / "experiments/hinton2015_mnist.py")


def few_steps(flags):
    """Its tables, with students of a few steps."""
    return [
        dataclasses.replace(
            sweep,
            base=sweep.base.but(**{"training": dataclasses.replace(sweep.base.training, steps=6)}),
        )
        for sweep in SCRIPT.declare(flags)
    ]


@pytest.fixture
def tables(tmp_path, monkeypatch, capsys):
    """What the smoke preset writes: name -> (its Markdown, its runs)."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(
        run_module, "Engine", functools.partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    )
    from distill_jax.cli import experiment

    experiment._main(
        few_steps,
        ["--preset", "smoke", "--strategy", "vmap", "--output-dir", str(tmp_path)],
    )
    return {
        name: ((tmp_path / f"{name}-smoke/table.md").read_text(), *load_results(
            tmp_path / f"{name}-smoke"
        ))
        for name in ("hinton2015_mnist", "hinton2015_temperature", "hinton2015_without_3")
    }  # fmt: skip


def test_the_smoke_preset_makes_three_tables(tables):
    text, spec, rows = tables["hinton2015_mnist"]
    row = next(line for line in text.splitlines() if line.startswith("| mlp-16-16 | hard targets"))
    assert "| 146.0 |" in row.replace("  ", " ") and "errors" in text
    assert len({row.hash for row in rows if row.row != "teacher"}) == 9
    text, spec, rows = tables["hinton2015_temperature"]
    assert {group for _, group in ((p.row, p.group) for p in spec.places)} == {
        "8 units", "16 units",
    }  # fmt: skip
    assert len(spec.trends) == 3
    text, spec, rows = tables["hinton2015_without_3"]
    by_hash = {row.hash: row for row in rows}
    for place in spec.places:
        at = by_hash[place.hash].metrics
        assert ("left_out/bias" in at) == (place.row != "all digits")
    assert "| 206.0 | 109.0 |" in " ".join(text.split())
    teachers = {row.hash for _, _, rows in tables.values() for row in rows if row.row == "teacher"}
    assert len(teachers) == 1


def test_every_published_number_says_where_it_was_read():
    published = load_published("hinton2015")
    assert published.rows["hard targets"] == {"errors": 146}
    assert published.rows["soft targets, T=20"] == {"errors": 74}
    assert published.rows["without 3"]["errors with the right bias"] == 109
    full = SCRIPT.declare(Flags())
    assert [len(sweep.entries()) for sweep in full] == [15, 60, 15]
    labels = {point.label for sweep in full for point in sweep.rows}
    assert set(published.rows) - {"teacher"} <= labels


def test_it_reads_the_shared_digits(shared_data):
    """Real data; skipped where it is absent."""
    from distill_jax.data.load_images import load_images

    path = shared_data("mnist10k") / "mnist10k.npz"
    assert SCRIPT.DATA.endswith("shared/data/mnist10k/mnist10k.npz")
    assert load_images(f"images:{path}").label_names == tuple("0123456789")
