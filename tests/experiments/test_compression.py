"""experiments/compression.py: the whole path in small; what is committed of it."""

import numpy as np
import pytest
from compressed import one_device
from scripts import ROOT, module_at

from distill_jax.compression.grammar import parse_steps
from distill_jax.export.runtime import open_any
from distill_jax.tables.pareto import from_json, pareto_markdown

SCRIPT = module_at(ROOT / "experiments/compression.py")
VARIANTS = ["as is", "int8", "pruned", "pruned, int8", "vocabulary", "all three"]


@pytest.mark.long
@pytest.mark.slow
def test_the_smoke_preset_trains_compresses_exports_and_draws(
    toy_teacher, toy_reviews, tmp_path, monkeypatch, capsys
):
    """Slow: two trainings, nine exports, and a process for each."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    one_device(monkeypatch)
    flags = SCRIPT.Compression(
        preset="smoke", students=("1x8x2",), data=f"files:{toy_reviews}",
        teacher=str(toy_teacher), max_length=16, output_dir=tmp_path,
    )  # fmt: skip
    SCRIPT.main(flags)
    folder = tmp_path / "compression-smoke"
    table = (folder / "compression.md").read_text()
    assert table in capsys.readouterr().out
    points, facts = from_json((folder / "points.json").read_text())
    assert [(each.model, each.variant) for each in points] == [
        ("teacher", "as is"), ("teacher", "int8"), *(("1x8x2", name) for name in VARIANTS),
    ]  # fmt: skip
    assert facts["plan"]["repeats"] == 2 and points[0].agreement == 1
    sizes = {each.variant: each for each in points[2:]}
    assert sizes["pruned"].parameters < sizes["as is"].parameters
    assert sizes["vocabulary"].parameters < sizes["as is"].parameters
    assert (folder / "figure.png").stat().st_size > 10_000
    with open(toy_reviews / "test.csv", encoding="utf-8") as file:
        lines = [line.rstrip().split(",") for line in file][1:]
    for each in points:
        export = open_any(folder / "exports" / f"{each.model}, {each.variant}")
        said = [answer.label for answer in export.classify([text for _, text, _ in lines])]
        assert each.score == np.mean(
            [a == label for a, (*_, label) in zip(said, lines, strict=True)]
        )
    assert list(SCRIPT.students_in(folder / "students")) == ["teacher", "1x8x2"]


def test_every_kind_of_student_is_there_and_has_its_steps():
    [sweep] = SCRIPT.declare(SCRIPT.Compression())
    entries = {entry.group: entry.cell for entry in sweep.entries()}
    assert list(entries) == ["static", "bilstm", "tiny", "l2", "l3", "l6"]
    trained = {name: cell.training.optimizer.learning_rate for name, cell in entries.items()}
    assert trained["static"] == SCRIPT.SETTINGS["static"]["training.optimizer.learning_rate"]
    assert trained["l2"] == trained["l6"] == 3e-4 and trained["tiny"] == 1e-3
    for steps in (SCRIPT.CUT, SCRIPT.ZEROS):
        kinds = [step.kind for step in parse_steps(f"{steps} -> vocabulary")]
        assert kinds[1:] == ["distil", "vocabulary"]


@pytest.mark.parametrize("folder", sorted((ROOT / "experiments/results").glob("compression*")))
def test_what_is_committed_comes_from_its_points(folder):
    points, facts = from_json((folder / "points.json").read_text(encoding="utf-8"))
    assert pareto_markdown(points, facts["about"]) == (folder / "compression.md").read_text("utf-8")
    for point in points:
        assert point.low <= point.score <= point.high
