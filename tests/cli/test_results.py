"""Finding, listing and rebuilding experiments by name."""

import shutil
from pathlib import Path

import pytest
from samples import sample_runs, sample_spec

from distill_jax.cli.main import dispatch
from distill_jax.cli.results import ledger_file, results_folder
from distill_jax.core.errors import UserError
from distill_jax.tables.build import table_of
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.outputs import write_outputs

RESULTS = Path(__file__).resolve().parents[2] / "experiments/results"
COMMITTED = RESULTS / "compare_losses-full/ledger.jsonl"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A place with two experiments: one run here, one that came with the code."""
    monkeypatch.chdir(tmp_path)
    runs = sample_runs(seeds=3)
    for folder in ("results/mine", "experiments/results/mine", "experiments/results/theirs"):
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        for run in runs:
            ledger.append(run)
    return tmp_path


def test_a_name_is_looked_up_here_first(here):
    assert results_folder("mine") == Path("results/mine")
    assert results_folder("theirs") == Path("experiments/results/theirs")
    assert results_folder("experiments/results/mine") == Path("experiments/results/mine")
    assert ledger_file("mine") == Path("results/mine/ledger.jsonl")
    assert ledger_file("results/mine/ledger.jsonl") == Path("results/mine/ledger.jsonl")
    with pytest.raises(
        UserError, match=r"no ledger at thiers.*Did you mean 'theirs'.*mine, theirs"
    ):
        results_folder("thiers")


def listed(capsys, *arguments):
    dispatch(["ledger", *arguments])
    *lines, count = capsys.readouterr().out.splitlines()
    assert count == f"{len(lines)} rows"
    return lines


def test_the_ledger_is_filtered_by_labels_and_settings(here, capsys):
    assert len(listed(capsys, "mine")) == 18
    assert len(listed(capsys, "mine", "--student", "tiny", "--objective", "kl")) == 3
    assert len(listed(capsys, "mine", "--seed", "2", "--experiment", "sample")) == 6
    assert len(listed(capsys, "mine", "--where", "student=tiny", "seed=1")) == 3
    assert len(listed(capsys, "mine", "--where", "data.label_fraction=0.10")) == 18
    assert len(listed(capsys, "mine", "--where", "row=0.9*kl(T=4) + 0.1*ce", "group=l2")) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--student", "tinny"], "unknown value of group 'tinny'.*Did you mean 'tiny'"),
        (["--seed", "7"], r"unknown value of seed '7'.*Allowed: 0, 1, 2"),
        (["--where", "data.lable_fraction=1"], "Did you mean 'data.label_fraction'"),
        (["--where", "data.label_fraction=0.2"], "unknown value of data.label_fraction '0.2'"),
        (["--where", "student"], "SETTING=VALUE"),
        (["--show", "no such hash"], "0 rows"),
    ],
)
def test_a_filter_that_meets_nothing_is_told(here, arguments, told):
    with pytest.raises(UserError, match=told):
        dispatch(["ledger", "mine", *arguments])


def test_a_table_is_rebuilt_from_the_ledger_alone(here, capsys):
    runs = sample_runs(seeds=3)
    spec = sample_spec(runs, layout="grid")
    folder = Path("results/mine")
    paths = write_outputs(table_of(spec, runs), folder)
    kept = {path: path.read_bytes() for path in paths}
    for path in paths:
        if path.name != "table.json":
            path.unlink()
    dispatch(["table", "mine"])
    printed = capsys.readouterr().out
    assert {path: path.read_bytes() for path in paths} == kept
    assert "0.9*kl(T=4) + 0.1*ce" in printed and "results/mine/report.html" in printed

    dispatch(["table", "mine", "--output-dir", "elsewhere"])
    for path in paths:
        assert (Path("elsewhere") / path.name).read_bytes() == kept[path]


def test_a_ledger_of_an_earlier_version_is_tabulated(tmp_path, capsys):
    shutil.copy(COMMITTED, tmp_path)
    dispatch(["table", str(tmp_path)])
    assert "p seeds" in capsys.readouterr().out
    assert (tmp_path / "table.json").is_file() and not (tmp_path / "curves.svg").exists()


def test_mistakes(here):
    with pytest.raises(UserError, match="Did you mean 'mine'"):
        dispatch(["table", "mime"])
    Path("file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        dispatch(["table", "mine", "--output-dir", "file"])
