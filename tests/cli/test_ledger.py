"""``distill-jax ledger merge`` as a person meets it."""

import dataclasses

import pytest
from samples import sample_runs, sample_spec

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.tables.ledger import Ledger

RUNS = sample_runs(seeds=3)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A table in two parts, in one folder."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        for run in RUNS[number - 1 :: 2]:
            Ledger(f"results/mine/ledger-{number}-of-2.jsonl").append(run)
    (tmp_path / "results/mine/table.json").write_text(sample_spec(RUNS).to_json())
    return tmp_path


def test_parts_are_merged_and_tabulated(here, capsys):
    with pytest.raises(UserError, match=r"merge them first: distill-jax ledger merge results/mine"):
        dispatch(["table", "mine"])
    dispatch(["ledger", "merge", "results/mine", "--into", "results/mine"])
    assert capsys.readouterr().out.splitlines() == [
        "18 rows added, 0 were there already",
        "results/mine/ledger.jsonl",
    ]
    dispatch(["table", "mine"])
    assert "results/mine/report.html" in capsys.readouterr().out
    dispatch(["ledger", "merge", "results/mine", "--into", "results/mine"])
    assert "0 rows added, 18 were there already" in capsys.readouterr().out
    dispatch(["ledger", "mine", "--seed", "1"])
    assert "6 rows" in capsys.readouterr().out


def test_two_results_need_a_word(here, capsys):
    other = dataclasses.replace(RUNS[0], selected_step=1, finished_at="2027-01-01T00:00:00+00:00")
    Ledger("other/ledger.jsonl").append(other)
    merge = ["ledger", "merge", "results/mine", "other/ledger.jsonl", "--into", "all"]
    with pytest.raises(UserError, match=r"selected_step is 75 and 1, in .*--prefer newest"):
        dispatch(merge)
    assert not (here / "all").exists()
    dispatch([*merge, "--prefer", "newest"])
    steps = {row.hash: row.selected_step for row in Ledger("all/ledger.jsonl").rows()}
    assert steps[RUNS[0].hash] == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--into"),
        (["--into", "all"], "no ledgers to merge"),
        (["nowhere", "--into", "all"], "no ledger at nowhere"),
        (["results/mine", "--into", "all", "--prefer", "oldest"], "oldest"),
    ],
)
def test_mistakes(here, arguments, told):
    with pytest.raises(UserError, match=told) as error:
        dispatch(["ledger", "merge", *arguments])
    assert "\n" not in str(error.value)
