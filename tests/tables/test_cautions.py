"""Footnotes that warn: rows that nothing tells apart, rows that do not beat a yardstick, constant
answers."""

import dataclasses
import math
from pathlib import Path

import pytest
from samples import (
    place,
    sample_correct,
    sample_run,
    sample_runs,
    sample_spec,
    sample_teacher,
    sample_yardstick,
)

from distill_jax.tables.build import table_of
from distill_jax.tables.cautions import identical_rows, notes_of_yardsticks
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tables.ledger import Ledger
from distill_jax.tables.notes import notes_of
from distill_jax.tables.spec import TableSpec

RESULTS = Path(__file__).resolve().parents[2] / "experiments/results"


def tabulate(runs, teachers=(), yardsticks=(), **changes):
    spec = sample_spec(runs, teachers, yardsticks, **changes)
    return table_of(spec, [*runs, *teachers, *yardsticks])


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
    table = table_of(spec, Ledger(folder / "ledger.jsonl").rows())
    assert names(table) == expected
    told = [note for note in table.notes if "the same test examples right" in note]
    assert len(told) == len(expected)


def test_rows_at_or_below_a_yardstick_are_named_and_no_others():
    runs = [
        sample_run(row, "tiny", seed, accuracy)
        for row, accuracy in (("ce", 0.5), ("kl", 0.75), ("dkd", 0.76), ("js", math.nan))
        for seed in range(2)
    ]
    table = tabulate(
        runs, [sample_teacher()], [sample_yardstick(accuracy=0.75), sample_yardstick("majority")]
    )
    assert notes_of_yardsticks(table) == [
        "Not above the yardstick `tfidf+logreg` (75.0) in mean test accuracy: `ce` (tiny), "
        "`kl` (tiny).",
        "Not above the yardstick `majority` (60.0) in mean test accuracy: `ce` (tiny).",
    ]
    assert set(notes_of_yardsticks(table)) <= set(table.notes)
    weak = tabulate(runs[2:], [sample_teacher()], [sample_yardstick(accuracy=0.8)], baseline="kl")
    assert "`teacher` (minilm), `kl` (tiny), `dkd` (tiny)" in notes_of_yardsticks(weak)[0]


def constant(row, group, seed, classes, **changes):
    metrics = {"test/accuracy": 0.95, "test/classes_predicted": classes}
    return sample_run(row, group, seed, metrics=metrics, **changes)


def test_a_constant_answer_is_called_so_also_where_there_are_no_yardsticks():
    runs = [constant("kl", "tiny", seed, 1) for seed in range(3)]
    runs += [constant("ce", "tiny", seed, 1 + (seed > 0)) for seed in range(3)]
    runs += [constant("dkd", "tiny", 0, 2), constant("js", "tiny", 0, math.nan)]
    teacher = constant("teacher", "minilm", 0, 1)
    measured = [
        sample_yardstick(row, 0.1, **{"test/classes_predicted": 1})
        for row in ("majority", "tfidf+logreg")
    ]
    said = "predicts one class for every test example in"
    expected = [
        f"`teacher` (minilm): {said} 1 of 1 run.",
        f"`kl` (tiny): {said} 3 of 3 runs.",
        f"`ce` (tiny): {said} 1 of 3 runs.",
    ]
    assert notes_of_yardsticks(tabulate(runs, [teacher])) == expected
    with_yardsticks = notes_of_yardsticks(tabulate(runs, [teacher], measured))
    regression = f"`tfidf+logreg` (yardstick): {said} 1 of 1 run."
    assert with_yardsticks == [expected[0], regression, *expected[1:]]


def test_a_yardstick_of_a_part_of_the_labels_says_so():
    metrics = {"train/examples": 100, "train/labelled": 2000}
    table = tabulate(sample_runs(), (), [sample_yardstick(accuracy=0.1, **metrics)])
    assert notes_of_yardsticks(table) == [
        "`tfidf+logreg` was fitted to 100 of 2,000 labelled examples."
    ]
    whole = {"train/examples": 100, "train/labelled": 100}
    assert not notes_of_yardsticks(
        tabulate(sample_runs(), (), [sample_yardstick(accuracy=0.1, **whole)])
    )


@pytest.mark.parametrize("against", ["baseline", "best"])
def test_yardsticks_take_no_part_in_tests(against):
    """The best row by far is a yardstick; every test stays as it was without it."""
    runs, yardsticks = sample_runs(), [sample_yardstick(accuracy=0.99, seed=s) for s in range(3)]
    plain, beside = (tabulate(runs, (), ys, against=against) for ys in ((), yardsticks))
    tests = [[row.entries["test/accuracy"].tests for row in t.students] for t in (plain, beside)]
    assert tests[0] == tests[1]
    [row] = beside.yardsticks
    assert row.entries["test/accuracy"].tests is None and not row.entries["test/accuracy"].letters
    assert list(plain.notes) == [n for n in beside.notes if not n.startswith("Not above")]
    assert notes_of(plain) == plain.notes
