"""Rows whose runs had the same test examples right, seed for seed, are named under the table."""

import dataclasses
from pathlib import Path

import pytest
from samples import place, sample_correct, sample_run, sample_runs, sample_spec

from distill_jax.tables.evidence import pack_numbers
from distill_jax.tables.identical import identical_rows
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.outputs import build
from distill_jax.tables.spec import TableSpec, table_of

RESULTS = Path(__file__).resolve().parents[2] / "experiments/results"


def tabulate(runs):
    return table_of(sample_spec(runs), runs)


def names(table):
    return [[row.row for row in rows] for rows in identical_rows(table)]


def copies(runs, row, of, **changes):
    """The runs of a row with what another row's said."""
    theirs = {(run.group, run.seed): run for run in runs if run.row == of}
    said = [dataclasses.replace(theirs[run.group, run.seed], row=row, hash=run.hash, **changes)
            if run.row == row else run for run in runs]  # fmt: skip
    return said


def test_rows_that_say_the_same_are_named():
    runs = copies(sample_runs(groups=("tiny", "l2")), "kl", "ce")
    table = tabulate(runs)
    assert names(table) == [["ce", "kl"]] * 2
    notes = [note for note in table.notes if "the same test examples right" in note]
    assert notes[0].startswith("`ce` and `kl` of tiny have the same test examples right in all 3")
    assert len(notes) == 2


def test_one_seed_that_differs_is_enough():
    runs = copies(sample_runs(groups=("tiny",)), "kl", "ce")
    changed = [
        sample_run("kl", "tiny", 1, correct=sample_correct(0.9, 7), hash=run.hash)
        if (run.row, run.seed) == ("kl", 1)
        else run
        for run in runs
    ]
    assert names(tabulate(changed)) == []
    fewer = [run for run in runs if (run.row, run.seed) != ("kl", 2)]
    assert names(tabulate(fewer)) == []


def test_scores_of_recommenders_count_and_silence_is_no_evidence():
    runs = copies(sample_runs(groups=("tiny",), correct=False), "kl", "ce")
    assert names(tabulate(runs)) == []
    ranked = [
        dataclasses.replace(run, test_scores={"rank": pack_numbers([run.seed, 3])}) for run in runs
    ]
    assert names(tabulate(ranked)) == [["ce", "kl", "0.9*kl(T=4) + 0.1*ce"]]


def test_one_run_under_two_names_is_no_finding():
    runs = [run for run in sample_runs(groups=("tiny",)) if run.row != "kl"]
    again = [dataclasses.replace(place(run), row="kl") for run in runs if run.row == "ce"]
    spec = sample_spec(runs, places=(*map(place, runs), *again))
    assert names(table_of(spec, runs)) == []


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [("glue_published", [["KL, from the lowest layers", "pkd-3"]]), ("compare_losses", [])],
)
def test_the_committed_tables(experiment, expected):
    """In glue_published the term of PKD changed no prediction of 872, in no seed."""
    folder = RESULTS / experiment
    spec = TableSpec.from_json((folder / "table.json").read_text())
    table = build(spec, Ledger(folder / "ledger.jsonl").rows())
    assert names(table) == expected
    told = [note for note in table.notes if "the same test examples right" in note]
    assert len(told) == len(expected)
