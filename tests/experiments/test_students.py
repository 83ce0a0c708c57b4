"""experiments/students.py: the whole path in small."""

import pytest
from compressed import one_device
from scripts import ROOT, module_at

from distill_jax.models.build import student_family
from distill_jax.tables.pareto import from_json, pareto_markdown

SCRIPT = module_at(ROOT / "experiments/students.py")


@pytest.mark.long
def test_the_smoke_preset_trains_exports_and_draws(
    toy_teacher, toy_reviews, tmp_path, monkeypatch, capsys
):
    """Long: three trainings and four exports; that of test_compression is shorter."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device(monkeypatch)
    students = ("mobilebert-1", "distilbert", "textcnn-6")
    SCRIPT.main(
        SCRIPT.Students(
            preset="smoke", students=students, data=f"files:{toy_reviews}", seeds=(0, 1),
            teacher=str(toy_teacher), max_length=16, precision="f32", output_dir=tmp_path,
        )
    )  # fmt: skip
    folder = tmp_path / "students-smoke"
    table = (folder / "students.md").read_text()
    assert table in capsys.readouterr().out
    points, facts = from_json((folder / "points.json").read_text())
    assert [(each.model, each.variant) for each in points] == [
        ("teacher", "as is"),
        ("mobilebert-1", "chance"),
        ("distilbert", "its layers"),
        ("textcnn-6", "its words"),
    ]
    assert points[0].agreement == 1 and all(each.p50_ms > 0 for each in points)
    (told,) = [line for line in facts["about"] if line.startswith("Retention")]
    assert "mean of 2 seeds" in told and all(f"{name} " in told for name in students)
    assert (folder / "figure.png").stat().st_size > 10_000


def test_every_family_of_texts_is_in_the_table():
    [sweep] = SCRIPT.declare(SCRIPT.Students(preset="full"))
    groups = {entry.group: entry.cell for entry in sweep.entries()}
    assert {student_family(name).name for name in groups} == {
        *("bert", "static", "bilstm", "textcnn", "mobilebert", "bert_kin"),
    }
    assert set(SCRIPT.SETTINGS) | set(sum(SCRIPT.STARTS.values(), ())) <= set(groups)
    assert groups["mini"].training.optimizer.learning_rate == 5e-4
    assert groups["distilbert"].training.epochs == groups["l3"].training.epochs == 1
    assert {entry.cell.seed for entry in sweep.entries()} == {0, 1, 2}


@pytest.mark.parametrize("folder", sorted((ROOT / "experiments/results").glob("students*")))
def test_what_is_committed_comes_from_its_points(folder):
    points, facts = from_json((folder / "points.json").read_text(encoding="utf-8"))
    assert pareto_markdown(points, facts["about"]) == (folder / "students.md").read_text("utf-8")
