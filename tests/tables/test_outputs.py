"""All outputs from description and ledger: complete, whole, the same twice."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from samples import sample_runs, sample_spec, sample_teacher

from distill_jax.core.errors import UserError
from distill_jax.tables.build import table_of
from distill_jax.tables.columns import ACCURACY
from distill_jax.tables.csv import to_csv
from distill_jax.tables.latex import to_latex
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.outputs import (
    describe_ledger,
    load_results,
    show,
    write_outputs,
)
from distill_jax.tables.spec import TableSpec
from distill_jax.tables.trends import ordering

RESULTS = Path(__file__).resolve().parents[2] / "experiments/results"
RISES = ordering("It rises.", [("kl", "l2"), ("ce", "l2")])
FILES = {
    *("table.json", "table.md", "table.tex", "table.csv", "trends.md", "figure.png"),
    *("figure.svg", "curves.png", "curves.svg", "report.html"),
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def make(folder, layout="metrics", **changes):
    runs = [sample_teacher(), *sample_runs()]
    spec = sample_spec(runs[1:], runs[:1], layout=layout, trends=(RISES,), **changes)
    return spec, runs, write_outputs(table_of(spec, runs), folder)


@pytest.mark.parametrize("layout", ["metrics", "grid"])
def test_every_output_is_written_and_the_same_twice(tmp_path, layout):
    spec, runs, paths = make(tmp_path / "a", layout)
    assert {path.name for path in paths} == FILES == set(contents(tmp_path / "a"))
    assert TableSpec.from_json((tmp_path / "a/table.json").read_text()) == spec
    write_outputs(table_of(spec, runs[::-1]), tmp_path / "a")  # in another order of the ledger
    again = write_outputs(table_of(spec, runs), tmp_path / "elsewhere")
    assert [path.name for path in again] == [path.name for path in paths]
    assert contents(tmp_path / "a") == contents(tmp_path / "elsewhere")
    assert not any(str(tmp_path).encode() in data for data in contents(tmp_path / "a").values())


def test_times_change_only_the_columns_of_times(tmp_path):
    spec, runs, _ = make(tmp_path / "a")
    later = [
        dataclasses.replace(run, seconds={"total": 1e4}, finished_at="2027-01-01T00:00:00+00:00")
        for run in runs
    ]
    write_outputs(table_of(spec, later), tmp_path / "b")
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert {name for name in FILES if first[name] != second[name]} == {
        *("table.md", "table.tex", "table.csv", "report.html")
    }
    timeless = dataclasses.replace(spec, columns=(ACCURACY,))
    one, other = table_of(timeless, runs), table_of(timeless, later)
    assert to_markdown(one) == to_markdown(other) and to_latex(one) == to_latex(other)
    assert to_csv(one) == to_csv(other)


def test_what_is_no_longer_true_is_taken_away(tmp_path):
    spec, runs, _ = make(tmp_path)
    forgetful = [dataclasses.replace(run, history=[]) for run in runs]
    paths = write_outputs(table_of(dataclasses.replace(spec, trends=()), forgetful), tmp_path)
    gone = {"trends.md", "curves.png", "curves.svg"}
    assert set(contents(tmp_path)) == {path.name for path in paths} == FILES - gone


def test_a_table_that_is_hardly_begun(tmp_path):
    runs = sample_runs()
    spec = sample_spec(runs, [sample_teacher()], trends=(RISES,))
    for finished in ([sample_teacher()], runs[:1]):
        write_outputs(table_of(spec, finished), tmp_path)
        assert "of 19 runs are not finished" in (tmp_path / "table.md").read_text()
        assert "no test" in (tmp_path / "trends.md").read_text()


def test_results_come_back_from_a_folder(tmp_path):
    spec, runs, _ = make(tmp_path)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for run in runs:
        ledger.append(run)
    assert load_results(tmp_path) == (spec, runs)
    (tmp_path / "table.json").write_text("{}")
    with pytest.raises(UserError, match=r"table.json: this is not the description"):
        load_results(tmp_path)
    with pytest.raises(UserError, match="no ledger at"):
        load_results(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["compare_losses", "compare_losses-full"])
def test_a_ledger_without_description_describes_itself(tmp_path, name):
    shutil.copy(RESULTS / name / "ledger.jsonl", tmp_path)
    spec, rows = load_results(tmp_path)
    assert (spec.layout, spec.baseline) == ("metrics", "ce")
    assert spec.title == "review_snippets/movie, 10% of the labels"
    places = (*spec.places, *spec.teachers, *spec.yardsticks)
    assert {place.hash for place in places} == {row.hash for row in rows}
    write_outputs(table_of(spec, rows), tmp_path)
    kept = (RESULTS / name / "table.md").read_text().splitlines()
    made = (tmp_path / "table.md").read_text().splitlines()

    def numbers(line):
        return [cell.strip() for cell in line.split("|")[1:6]]

    for old, new in zip(kept[2:], made[2:], strict=False):
        if not old:
            break
        assert numbers(old) == numbers(new)
    assert load_results(tmp_path) == (spec, rows)  # now from its description


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("compare_losses-full", "student"),
        ("label_fraction", "label_fraction, more_texts, transfer"),
        ("kim2021_label_noise", "label_noise"),
        ("patience", "epochs"),
        ("kim2021_kl_vs_mse", "group"),  # of weights, which stand in the objectives
        ("recommendation", "student"),
    ],
)
def test_a_ledger_heads_its_groups_with_what_they_are(name, title):
    rows = Ledger(RESULTS / name / "ledger.jsonl").rows()
    spec = describe_ledger(rows, name)
    assert spec.group_title == title
    assert to_csv(table_of(spec, rows))


def test_a_ledger_without_ce_and_an_empty_one():
    runs = sample_runs(rows=("kl", "mse"))
    spec = describe_ledger(runs, "name")
    assert spec.baseline == "kl" and [column.key for column in spec.columns] == [
        "test/accuracy",
        "seconds/total",
    ]
    untitled = [dataclasses.replace(run, config={}) for run in runs]
    assert describe_ledger(untitled, "name").title == "name"
    with pytest.raises(UserError, match="no finished run"):
        describe_ledger([], "name")


def test_table_and_trends_are_shown(capsys):
    runs = sample_runs()
    spec = sample_spec(runs, trends=(dataclasses.replace(RISES, statement="[bold]It rises.[/]"),))
    show(table_of(spec, runs), Console(width=120))
    text = capsys.readouterr().out
    assert "held: [bold]It rises.[/]" in text and "p examples" in text


def test_neither_jax_nor_matplotlib_is_imported_to_tabulate():
    code = (
        "import sys, distill_jax.tables.outputs\n"
        "sys.exit(bool({'jax', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
