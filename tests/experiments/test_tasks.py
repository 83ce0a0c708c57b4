"""experiments/tasks.py: a table a kind, small; what is not there is left out with a line."""

import dataclasses

import pytest
from digit_tables import Runner
from scripts import ROOT, module_at

from distill_jax.cli.experiment import Flags
from distill_jax.tables.build import table_of
from distill_jax.tables.outputs import write_outputs

SCRIPT = ROOT / "experiments/tasks.py"
SMALL = {
    "classes": ("sentence,label\ngood film,a\nbad plot,b\nmusic,c\nvery good,a\nvery bad,b\n", {}),
    "number": ("sentence,label\ngood film,5\nbad plot,1\nmusic,2.5\nvery good,4\nvery bad,2\n", {}),
    "labels": ('sentence,label\ngood,"a,b"\nbad,a\nmusic,b\nvery good,"a,b"\nvery bad,a\n', {}),
}
"""Kind -> a file of it, and the columns of its data."""


@pytest.fixture
def script():
    return module_at(SCRIPT)


def test_data_that_are_not_there_are_left_out_with_a_line(script, tmp_path, capsys):
    sweeps = script.declare(Flags(preset="smoke", data=str(tmp_path)))
    there = [sweep.base.setup.data.name for sweep in sweeps]
    assert there and all("/" in name and not name.startswith("files:") for name in there)
    told = capsys.readouterr().out
    assert all(f"{t.name}: left out" in told for t in script.TASKS if "/" not in t.data)


def test_every_table_is_one_that_can_be_declared(script, tmp_path):
    for table in script.TASKS:
        if "/" not in table.data:
            (tmp_path / table.data).mkdir(exist_ok=True)
    sweeps = script.declare(Flags(data=str(tmp_path)))
    assert len(sweeps) == len(script.TASKS) == len({sweep.name for sweep in sweeps})
    for sweep in sweeps:
        entries = sweep.entries()
        assert sweep.baseline in {entry.row for entry in entries} and len(sweep.seeds) == 3


def test_the_files_at_hand_have_the_columns_that_are_named(script, shared_data):
    """Skips, saying so, where the data may not be had."""
    for table in script.TASKS:
        if "/" not in table.data:
            folder = shared_data(table.data)
            spec = script.spec_of(table, folder.parent)
            data = script.sweep_of(table, spec, smoke=True).base.setup.data
            assert data.kind.load(data).splits.keys() == {"train", "validation", "test"}


@pytest.mark.long
@pytest.mark.parametrize("task", SMALL)
def test_a_small_table_of_each_kind(task, script, toy_teacher, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    text, columns = SMALL[task]
    (tmp_path / "data").mkdir()
    for split, word in (("train", "film"), ("dev", "cast"), ("test", "plot")):
        lines = text.splitlines()
        rows = [line.replace(",", f" {word},", 1) for line in lines[1:]]
        (tmp_path / f"data/{split}.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    table = script.TaskTable("toy", "Toy", task, "data", {"label_fraction": 1.0, **columns})
    data = script.spec_of(table, tmp_path)
    sweep = script.sweep_of(table, data, smoke=True, teacher=str(toy_teacher), student="1x8x2")
    sweep = dataclasses.replace(sweep, references=())
    runner = Runner(tmp_path, monkeypatch)
    rows = runner(sweep, "out")
    kind = sweep.base.setup.kind
    assert {row for row, *_ in rows} == set(kind.rows[:2])
    assert {row.row for row in runner.rows} == {"teacher", *kind.rows[:2]}
    assert all(row.metrics["parameters"] > 0 for row in runner.rows)
    write_outputs(table_of(runner.spec, runner.rows), tmp_path / "out")
    assert kind.columns[0].title in (tmp_path / "out/table.md").read_text()
