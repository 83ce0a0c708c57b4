"""experiments/stanton2021_fidelity.py in small: from the teacher's own weights a student agrees."""

import io

import pytest
from compressed import one_device
from rich.console import Console
from scripts import ROOT, module_at

from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tables.outputs import load_results
from distill_jax.tasks.classification.table import Classification

SCRIPT = module_at(ROOT / "experiments/stanton2021_fidelity.py")


@pytest.mark.long
def test_the_smoke_preset_runs_both_tables(toy_teacher, toy_reviews, tmp_path, monkeypatch):
    """Long: three tables; the first is run below, in smaller."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device(monkeypatch)
    SCRIPT.main(
        SCRIPT.Fidelity(
            preset="smoke", data=f"files:{toy_reviews}", first_teacher=str(toy_teacher),
            max_length=16, output_dir=tmp_path, strategy="vmap",
        )
    )  # fmt: skip
    for name, group in (("digits", SCRIPT.CNN), ("texts", "l2")):
        folder = tmp_path / f"stanton2021_fidelity_{name}-smoke"
        spec, rows = load_results(folder)
        scores = {row.hash: row for row in rows}
        at = {(p.row, p.seed): scores[p.hash].metrics for p in spec.places if p.group == group}
        assert {row for row, _ in at} == {"0", "0.5", "1"}
        for seed in (0, 1):
            assert at["1", seed]["test/kl_to_teacher"] < at["0", seed]["test/kl_to_teacher"]
        assert (folder / "trends.md").is_file()
        assert "surprisingly large discrepancy" in (folder / "table.md").read_text()


@pytest.mark.long
def test_from_the_teacher_s_own_weights_a_student_agrees_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device(monkeypatch)
    sweep = SCRIPT.digits(SCRIPT.Fidelity(preset="smoke", seeds=(0, 1)), (0.0, 1.0))
    reporter = Reporter(Console(file=io.StringIO()))
    spec, rows = run_table(Classification(sweep), tmp_path / "out", reporter, strategy="vmap")
    metrics = {row.hash: row.metrics for row in rows}
    at = {(place.row, place.seed): metrics[place.hash] for place in spec.places}
    for seed in (0, 1):
        assert at["1", seed]["test/fidelity"] > at["0", seed]["test/fidelity"]
        assert at["1", seed]["test/kl_to_teacher"] < at["0", seed]["test/kl_to_teacher"]


def test_students_have_their_teacher_s_shape_and_data():
    sweep = SCRIPT.digits(SCRIPT.Fidelity())
    cells = [entry.cell for entry in sweep.entries()]
    assert {cell.setup.student for cell in cells} == {cells[0].setup.teacher.name}
    assert {cell.objective for cell in cells} == {"kl"}
    assert len({cell.setup.start for cell in cells}) == len(SCRIPT.SHARES) == 7
    assert all(cell.setup.data.label_fraction == 1 for cell in cells)
    texts = SCRIPT.texts(SCRIPT.Fidelity(), ROOT)
    assert not texts.base.setup.teacher.fine_tune and texts.seeds == (0, 1, 2)
