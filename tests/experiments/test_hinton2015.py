"""experiments/hinton2015_mnist.py: three tables in small, and the published numbers beside them."""

import dataclasses
import functools

import jax
import pytest
from rich.console import Console
from scripts import ROOT, module_at

from distill_jax.cli.experiment import Flags
from distill_jax.core.mesh import make_mesh
from distill_jax.engine import run as run_module
from distill_jax.engine.engine import Engine
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tables.build import table_of
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.published import load_published
from distill_jax.tasks.classification.table import Classification

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


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """What the smoke preset makes: name -> (its Markdown, its description, its runs)."""
    folder, made = tmp_path_factory.mktemp("hinton"), {}
    engine = functools.partial(Engine, mesh=make_mesh(jax.devices()[:1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(folder / "home"))
        patch.setattr(run_module, "Engine", engine)
        for sweep in few_steps(Flags(preset="smoke")):
            spec, rows = run_table(
                Classification(sweep),
                folder / sweep.name,
                Reporter(Console(quiet=True)),
                track="none",
                strategy="vmap",
            )
            made[sweep.name] = to_markdown(table_of(spec, rows)), spec, rows
    return made


@pytest.mark.long
def test_the_smoke_preset_makes_three_tables(tables):
    text, spec, rows = tables["hinton2015_mnist"]
    lines = [" ".join(line.split()) for line in text.splitlines()]
    row = next(line for line in lines if line.startswith("| mlp-16-16 | hard targets"))
    assert "| 146 |" in row and "| errors |" in lines[0]
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
    assert "| 206 | 109 |" in " ".join(text.split())
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
