"""Tests of a table: which runs are paired, over what is corrected, what is never a comparison."""

import csv
import dataclasses
import io
import math
import re

import numpy as np
import pytest
from samples import place, sample_correct, sample_run, sample_runs, sample_spec

from distill_jax.core.errors import UserError
from distill_jax.tables.build import table_of
from distill_jax.tables.columns import ACCURACY, Column
from distill_jax.tables.csv import to_csv
from distill_jax.tables.evidence import pack_correct, unpack_correct
from distill_jax.tables.markdown import to_markdown
from distill_jax.tables.spec import Place
from distill_jax.tables.statistics import (
    crossed_tests,
    holm,
    mean_squares,
    paired_bootstrap,
    paired_test,
)

RIGHT = {seed: sample_correct(0.5, seed) for seed in range(4)}


def entries(table, key="test/accuracy"):
    return {(row.row, row.group): row.entries[key] for row in table.rows}


def tabulate(runs, **changes):
    return table_of(sample_spec(runs, **changes), runs)


def by_seed(runs, row, group):
    return {run.seed: run for run in runs if (run.row, run.group) == (row, group)}


def test_all_three_tests_by_hand():
    runs = sample_runs(groups=("tiny",))
    table = tabulate(runs)
    labels = ("kl", "0.9*kl(T=4) + 0.1*ce")
    made = [entries(table)[label, "tiny"].tests for label in labels]
    right = {
        row: np.array([unpack_correct(r.test_correct) for r in by_seed(runs, row, "tiny").values()])
        for row in ("ce", *labels)
    }
    for label, tests in zip(labels, made, strict=True):
        sides = [dict(enumerate(right[row].mean(axis=1))) for row in (label, "ce")]
        assert tests.seeds == paired_test(*sides)
        assert tests.examples == paired_bootstrap(right[label].mean(0), right["ce"].mean(0))
        assert tests.examples.n == tests.joint.examples == 600
    family = [mean_squares(right[label] * 1.0 - right["ce"]) for label in labels]
    assert [tests.joint for tests in made] == crossed_tests(family)
    for kind in ("seeds", "examples", "joint"):
        raw = [getattr(tests, kind).p for tests in made]
        assert [getattr(tests, f"p_{kind}") for tests in made] == holm(raw)


def test_only_common_seeds_enter_any_test():
    ce = [sample_run("ce", "tiny", seed, correct=RIGHT[seed]) for seed in (0, 1, 2)]
    better = {seed: sample_correct(0.6, 9 + seed) for seed in (1, 2, 0, 3)}
    kl = [sample_run("kl", "tiny", seed, correct=right) for seed, right in better.items()]
    tests = entries(tabulate([*ce, *kl]))["kl", "tiny"].tests
    means = [np.mean([side[seed] for seed in (0, 1, 2)], axis=0) for side in (better, RIGHT)]
    assert tests.seeds.n == tests.joint.n == 3
    assert tests.examples == paired_bootstrap(*means)
    assert tests.joint.difference == pytest.approx(means[0].mean() - means[1].mean())


def runs_of(row, differences, right=RIGHT):
    """Runs of one row whose accuracy differs from the baseline's by seed."""
    runs = []
    for seed, difference in enumerate(differences):
        correct_N = right[seed].copy()
        wrong = np.flatnonzero(~correct_N)[: round(difference * len(correct_N))]
        correct_N[wrong] = True
        runs.append(sample_run(row, "tiny", seed, correct=correct_N))
    return runs


def test_bold_is_the_joint_tests_word():
    ce = runs_of("ce", [0, 0, 0])
    both = runs_of("both", [0.1, 0.105, 0.11])
    few_examples = runs_of("few examples", [0.005, 0.005, 0.005 + 1 / 600])
    noisy_seeds = runs_of("noisy seeds", [0.0, 0.2, 0.02])
    made = entries(tabulate([*ce, *both, *few_examples, *noisy_seeds]))
    found = {label: made[label, "tiny"].tests for label in ("both", "few examples", "noisy seeds")}
    # Either of the other tests alone would have called one of them better.
    assert found["few examples"].seeds.p < 0.05 < found["few examples"].examples.p
    assert found["noisy seeds"].p_examples < 0.05 < found["noisy seeds"].p_seeds
    assert {label for label, tests in found.items() if tests.p_joint < 0.05} == {"both"}
    assert {label for (label, _), entry in made.items() if entry.bold(True)} == {"both"}
    assert not made["both", "tiny"].bold(False)  # better, where lower were better
    assert not made["both", "tiny"].bold(None)


def test_one_comparison_at_several_places_counts_once():
    runs = sample_runs(groups=("tiny",))
    spec = sample_spec(runs)
    again = tuple(Place(p.row, "copy", p.seed, p.hash) for p in spec.places)
    twice = table_of(dataclasses.replace(spec, places=spec.places + again), runs)
    once = table_of(spec, runs)
    assert len(twice.rows) == 2 * len(once.rows)
    for label in ("kl", "0.9*kl(T=4) + 0.1*ce"):
        for group in ("tiny", "copy"):
            assert entries(twice)[label, group] == entries(once)[label, "tiny"]
    assert "Holm-corrected over 2 comparisons" in " ".join(twice.notes)


def test_a_baseline_at_several_places_is_no_comparison_of_its_own():
    runs = sample_runs(groups=("tiny",), rows=("ce", "kl"))
    spec = sample_spec(runs)
    # The same ce stands in a second column beside another row: two comparisons, not three.
    other = [sample_run("mse", "tiny", seed, correct=RIGHT[seed]) for seed in range(3)]
    places = [*spec.places, *(Place("mse", "b", r.seed, r.hash) for r in other)]
    places += [Place("ce", "b", p.seed, p.hash) for p in spec.places if p.row == "ce"]
    places += [Place("ce too", "b", p.seed, p.hash) for p in spec.places if p.row == "ce"]
    table = table_of(dataclasses.replace(spec, places=tuple(places)), [*runs, *other])
    made = entries(table)
    assert made["ce too", "b"].tests is None  # against itself there is nothing to test
    assert [made[p].tests is None for p in (("kl", "tiny"), ("mse", "b"))] == [False, False]
    notes = " ".join(table.notes)
    assert "over 2 comparisons" in notes and "the baseline's own runs: b `ce too`" in notes


def test_the_correction_runs_over_all_tested_columns():
    loss = Column("validation/accuracy", "validation %", 100, higher_is_better=True)
    runs = sample_runs(groups=("tiny",), rows=("ce", "kl"))
    keys = ("test/accuracy", "validation/accuracy")
    both = tabulate(runs, columns=(ACCURACY, loss), tested=keys)
    alone = entries(tabulate(runs, columns=(ACCURACY,)))["kl", "tiny"].tests
    assert alone.p_seeds == alone.seeds.p
    accuracy = entries(both)["kl", "tiny"].tests
    assert accuracy.p_seeds == pytest.approx(2 * alone.p_seeds)
    # Only accuracy is a mean over examples; the other column has the test over seeds alone.
    assert entries(both, "validation/accuracy")["kl", "tiny"].tests.joint is None
    assert (accuracy.p_joint, accuracy.p_examples) == (accuracy.joint.p, accuracy.examples.p)
    assert "Never bold: validation %" in " ".join(both.notes)


def test_fewer_than_three_seeds_have_no_test():
    table = tabulate(sample_runs(seeds=2))
    assert all(e.tests is None for e in entries(table).values())
    assert "accuracy %: no test: fewer than 3 seeds." in table.notes
    assert "**" not in to_markdown(table) and "p seeds" not in to_markdown(table)


def test_a_run_that_did_not_keep_its_examples_is_named():
    runs = sample_runs(groups=("tiny",))
    forgetful = [
        dataclasses.replace(run, test_correct=None) if (run.row, run.seed) == ("kl", 1) else run
        for run in runs
    ]
    table = tabulate(forgetful)
    tests = entries(table)["kl", "tiny"].tests
    assert tests.seeds and tests.examples is None and tests.joint is None
    assert entries(table)["0.9*kl(T=4) + 0.1*ce", "tiny"].tests.joint is not None
    assert "Never bold: tiny `kl`, for want of" in " ".join(table.notes)


def test_a_diverged_run_is_in_no_test():
    runs = [r for r in sample_runs(groups=("tiny",)) if (r.row, r.seed) != ("kl", 1)]
    runs.append(sample_run("kl", "tiny", 1, math.nan, test_correct=pack_correct(RIGHT[0])))
    assert entries(tabulate(runs))["kl", "tiny"].tests is None


def test_against_the_best_all_pairs_are_tested_and_letters_say_which_differ():
    ce = runs_of("ce", [0, 0, 0])
    good = runs_of("good", [0.1, 0.105, 0.11])
    also = runs_of("also", [0.098, 0.103, 0.106])
    middle = runs_of("middle", [0.05, 0.052, 0.055])
    runs = [*ce, *good, *also, *middle]
    made = entries(tabulate(runs, against="best"))
    letters = {label: entry.letters for (label, _), entry in made.items()}
    assert letters == {"good": "a", "also": "a", "middle": "b", "ce": "c"}
    assert {label for (label, _), entry in made.items() if entry.bold(True)} == {"good", "also"}
    assert made["good", "tiny"].tests is None  # the best has nothing above it
    down = made["ce", "tiny"].tests
    up = entries(tabulate(runs))["good", "tiny"].tests
    assert down.joint.difference == pytest.approx(-up.joint.difference)
    assert (down.joint.low, down.joint.high) == pytest.approx((-up.joint.high, -up.joint.low))
    assert down.joint.p == pytest.approx(up.joint.p)
    table = tabulate(runs, against="best")
    assert len(table.comparisons) == 6 and "over 6 comparisons" in " ".join(table.notes)
    assert "| differ |" in to_markdown(table)
    assert "Bold: not worse than the best" in " ".join(table.notes)
    assert {line["letters"] for line in csv.DictReader(io.StringIO(to_csv(table)))} >= {"a", "b"}
    grid = to_markdown(tabulate(runs, against="best", layout="grid"))
    assert all(re.search(rf"± \d\.\d {letter}\b", grid) for letter in "abc")


def test_groups_are_compared_inside_only_and_the_best_is_of_the_right_direction():
    runs = sample_runs()
    table = tabulate(runs, against="best")
    assert len(table.comparisons) == 2 * 3
    for c in table.comparisons:
        assert table.rows[c.line].group == table.rows[c.other].group
    errors = dataclasses.replace(ACCURACY, higher_is_better=False)
    low = entries(tabulate(runs, against="best", columns=(errors,)))
    assert low["ce", "tiny"].letters == "a" and low["ce", "tiny"].tests is None
    undirected = dataclasses.replace(ACCURACY, higher_is_better=None)
    none = entries(tabulate(runs, against="best", columns=(undirected,)))
    assert not any(entry.letters or entry.tests for entry in none.values())


def test_different_test_sets_are_refused():
    runs = sample_runs(groups=("tiny",), rows=("ce",))
    short = [sample_run("kl", "tiny", s, correct=sample_correct(0.6, s, 599)) for s in range(3)]
    with pytest.raises(UserError, match=r"'kl' and 'ce' of 'tiny' .* on 599 and 600 examples"):
        tabulate([*runs, *short])


def test_the_ledgers_order_changes_nothing():
    runs = sample_runs()
    spec = sample_spec(runs)
    assert table_of(spec, runs) == table_of(spec, runs[::-1])
    assert [place(run) for run in runs] == list(spec.places)
