"""Every committed table comes from its ledger, and what it says of differences is what it shows."""

from pathlib import Path

import pytest

from distill_jax.tables.build import table_of
from distill_jax.tables.csv import to_csv
from distill_jax.tables.latex import to_latex
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.outputs import evaluate, load_results
from distill_jax.tables.significance import reference
from distill_jax.tables.trends_markdown import trends_markdown

RESULTS = Path(__file__).resolve().parents[2] / "experiments/results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/table.md"))


def test_there_are_some():
    assert len(FOLDERS) >= 12


@pytest.fixture(scope="module", params=FOLDERS, ids=lambda folder: folder.name)
def committed(request):
    folder = request.param
    spec, rows = load_results(folder)
    return folder, spec, table_of(spec, rows)


def test_it_is_rebuilt_byte_for_byte(committed):
    folder, spec, table = committed
    made = {
        "table.json": spec.to_json() + "\n",
        "table.md": to_markdown(table),
        "table.tex": to_latex(table, caption=spec.title, label=f"tab:{spec.name}"),
        "table.csv": to_csv(table),
    }
    if trends := evaluate(table):
        made["trends.md"] = trends_markdown(trends)
    kept = {path.name for path in folder.iterdir() if path.suffix in (".json", ".md", ".csv")}
    assert kept == set(made) - {"table.tex"}
    for name, text in made.items():
        assert (folder / name).read_text(encoding="utf-8") == text, f"distill-jax table {folder}"


def test_every_difference_is_that_of_the_printed_means(committed):
    _, _, table = committed
    for row in table.rows:
        for key in table.spec.tested:
            entry, other = row.entries[key], reference(table, row, key)
            if entry.tests is None:
                continue
            theirs = other.entries[key]
            common = [seed for seed in entry.by_seed if seed in theirs.by_seed]
            assert len(common) == len(entry.by_seed) == len(theirs.by_seed)
            shown = entry.summary.mean - theirs.summary.mean
            for kind in ("seeds", "examples", "joint"):
                test = getattr(entry.tests, kind)
                assert test is None or test.difference == pytest.approx(shown, abs=2e-7), kind


def test_what_is_bold_is_better_by_the_joint_test(committed):
    _, _, table = committed
    for row in table.rows:
        for column in table.columns:
            entry = row.entries[column.key]
            if entry.bold(column.higher_is_better):
                assert entry.tests.p_joint < 0.05
                better = entry.tests.joint.difference > 0
                assert better == column.higher_is_better
