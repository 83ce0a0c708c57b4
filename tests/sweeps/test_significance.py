"""Tests of a table: which runs are paired, over what is corrected, what is never a comparison."""

import dataclasses
import math

import numpy as np
import pytest
from samples import place, sample_correct, sample_run, sample_runs, sample_spec

from distill_jax.core.errors import UserError
from distill_jax.sweeps.columns import ACCURACY, Column
from distill_jax.sweeps.ledger import pack_correct, unpack_correct
from distill_jax.sweeps.spec import Place, table_of
from distill_jax.sweeps.statistics import holm, paired_bootstrap, paired_test

RIGHT = {seed: sample_correct(0.5, seed) for seed in range(4)}


def entries(table, key="test/accuracy"):
    return {(row.row, row.group): row.entries[key] for row in table.rows}


def tabulate(runs, **changes):
    return table_of(sample_spec(runs, **changes), runs)


def by_seed(runs, row, group):
    return {run.seed: run for run in runs if (run.row, run.group) == (row, group)}


def test_both_tests_by_hand():
    runs = sample_runs(groups=("tiny",))
    table = tabulate(runs)
    ce = by_seed(runs, "ce", "tiny")
    seeds, examples = [], []
    for label in ("kl", "0.9*kl(T=4) + 0.1*ce"):
        ours = by_seed(runs, label, "tiny")
        scores = [
            {seed: run.metrics["test/accuracy"] for seed, run in side.items()}
            for side in (ours, ce)
        ]
        seeds.append(paired_test(*scores))
        means = [
            np.mean([unpack_correct(run.test_correct) for run in side.values()], axis=0)
            for side in (ours, ce)
        ]
        examples.append(paired_bootstrap(*means))
    made = [entries(table)[label, "tiny"] for label in ("kl", "0.9*kl(T=4) + 0.1*ce")]
    assert [entry.test for entry in made] == seeds
    assert [entry.examples for entry in made] == examples
    assert [entry.p_holm for entry in made] == holm([test.p for test in seeds])
    assert [entry.p_holm_examples for entry in made] == holm([test.p for test in examples])
    assert examples[0].n == 600
    assert examples[0].difference == pytest.approx(seeds[0].difference)


def test_only_common_seeds_enter_either_test():
    ce = [sample_run("ce", "tiny", seed, correct=RIGHT[seed]) for seed in (0, 1, 2)]
    better = {seed: sample_correct(0.6, 9 + seed) for seed in (1, 2, 0, 3)}
    kl = [sample_run("kl", "tiny", seed, correct=right) for seed, right in better.items()]
    entry = entries(tabulate([*ce, *kl]))["kl", "tiny"]
    means = [np.mean([side[seed] for seed in (0, 1, 2)], axis=0) for side in (better, RIGHT)]
    assert entry.test.n == 3
    assert entry.examples == paired_bootstrap(*means)


def runs_of(row, differences, right=RIGHT):
    """Runs of one row whose accuracy differs from the baseline's by seed."""
    runs = []
    for seed, difference in enumerate(differences):
        correct_N = right[seed].copy()
        wrong = np.flatnonzero(~correct_N)[: round(difference * len(correct_N))]
        correct_N[wrong] = True
        runs.append(sample_run(row, "tiny", seed, correct=correct_N))
    return runs


def test_bold_needs_both_tests():
    ce = runs_of("ce", [0, 0, 0])
    both = runs_of("both", [0.1, 0.105, 0.11])
    few_examples = runs_of("few examples", [0.005, 0.005, 0.005 + 1 / 600])
    noisy_seeds = runs_of("noisy seeds", [0.0, 0.2, 0.02])
    made = entries(tabulate([*ce, *both, *few_examples, *noisy_seeds]))
    passed = {
        label: (made[label, "tiny"].p_holm < 0.05, made[label, "tiny"].p_holm_examples < 0.05)
        for label in ("both", "few examples", "noisy seeds")
    }
    assert passed["both"] == (True, True)
    assert passed["noisy seeds"] == (False, True)
    bold = {label for (label, _), entry in made.items() if entry.significant(True)}
    assert bold == {label for label, both in passed.items() if all(both)}
    assert not made["both", "tiny"].significant(False)  # better, where lower were better
    assert not made["both", "tiny"].significant(None)


def test_a_seed_test_alone_can_be_overruled_by_the_examples():
    entry = entries(tabulate(sample_runs()))["kl", "tiny"]
    assert entry.significant(True)
    assert not dataclasses.replace(entry, p_holm_examples=0.2).significant(True)
    assert not dataclasses.replace(entry, p_holm=0.2).significant(True)
    assert dataclasses.replace(entry, examples=None, p_holm_examples=None).significant(True)
    assert not dataclasses.replace(entry, test=None).significant(True)


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
    assert made["ce too", "b"].test is None  # against itself there is nothing to test
    assert [made[p].test is None for p in (("kl", "tiny"), ("mse", "b"))] == [False, False]
    notes = " ".join(table.notes)
    assert "over 2 comparisons" in notes and "the baseline's own runs: b `ce too`" in notes


def test_the_correction_runs_over_all_tested_columns():
    loss = Column("validation/accuracy", "validation %", 100, higher_is_better=True)
    runs = sample_runs(groups=("tiny",), rows=("ce", "kl"))
    keys = ("test/accuracy", "validation/accuracy")
    both = tabulate(runs, columns=(ACCURACY, loss), tested=keys)
    alone = tabulate(runs, columns=(ACCURACY,))
    raw = entries(alone)["kl", "tiny"].test.p
    assert entries(alone)["kl", "tiny"].p_holm == raw
    assert entries(both)["kl", "tiny"].p_holm == pytest.approx(2 * raw)
    # Only accuracy is a mean over examples; the other column has the test over seeds alone.
    assert entries(both, "validation/accuracy")["kl", "tiny"].examples is None
    examples = entries(both)["kl", "tiny"]
    assert examples.p_holm_examples == examples.examples.p
    assert "in validation % over seeds alone" in " ".join(both.notes)


def test_fewer_than_three_seeds_have_neither_test():
    table = tabulate(sample_runs(seeds=2))
    assert all(e.test is None and e.examples is None for e in entries(table).values())
    assert "accuracy %: no test: fewer than 3 seeds." in table.notes
    assert "**" not in table.to_markdown() and "p seeds" not in table.to_markdown()


def test_a_run_that_did_not_keep_its_examples_is_named():
    runs = sample_runs(groups=("tiny",))
    forgetful = [
        dataclasses.replace(run, test_correct=None) if (run.row, run.seed) == ("kl", 1) else run
        for run in runs
    ]
    table = tabulate(forgetful)
    assert entries(table)["kl", "tiny"].examples is None
    assert entries(table)["kl", "tiny"].test is not None
    assert entries(table)["0.9*kl(T=4) + 0.1*ce", "tiny"].examples is not None
    assert "of tiny `kl` over seeds alone" in " ".join(table.notes)


def test_a_diverged_run_is_in_no_test():
    runs = [r for r in sample_runs(groups=("tiny",)) if (r.row, r.seed) != ("kl", 1)]
    runs.append(sample_run("kl", "tiny", 1, math.nan, test_correct=pack_correct(RIGHT[0])))
    entry = entries(tabulate(runs))["kl", "tiny"]
    assert entry.test is None and entry.examples is None


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
