"""Three sentences: what they say is what the table's joint test says, and no more."""

import dataclasses

import numpy as np
import pytest
from samples import sample_run, sample_runs, sample_spec, sample_teacher, sample_yardstick

from distill_jax.tables.build import table_of
from distill_jax.tables.conclusion import best_student, conclusion, run_to_take

KEY = "test/accuracy"


def table(runs, teachers=(), **changes):
    return table_of(sample_spec(runs, list(teachers), **changes), [*teachers, *runs])


def beside(yardsticks, teachers=(), runs=None, **changes):
    runs = sample_runs(groups=("tiny",)) if runs is None else runs
    spec = sample_spec(runs, list(teachers), yardsticks, **changes)
    return table_of(spec, [*teachers, *yardsticks, *runs])


def test_a_yardstick_that_is_not_beaten_is_named():
    yardsticks = [sample_yardstick(accuracy=0.8), sample_yardstick("majority", 0.3)]
    sentences = conclusion(beside(yardsticks, [sample_teacher()]), KEY)
    assert len(sentences) == 4 and sentences[1] == (
        "Beside the yardsticks: the best student does not beat `tfidf+logreg` (80.0); the teacher "
        "does not beat `tfidf+logreg` (80.0)."  # which has just as much
    )
    several = [sample_teacher("one"), sample_teacher("two")]
    said = conclusion(beside([sample_yardstick(accuracy=0.9)], several), KEY)[1]
    assert "`teacher` (one) does not beat `tfidf+logreg` (90.0); `teacher` (two)" in said


def test_of_yardsticks_that_are_beaten_nothing_is_said():
    low = [sample_yardstick(accuracy=0.2), sample_yardstick("majority", 0.1)]
    for yardsticks in (low, []):
        assert len(conclusion(beside(yardsticks, [sample_teacher()]), KEY)) == 3


def costed(run, parameters, latency):
    metrics = {**run.metrics, "parameters": parameters, "latency/p50_ms": latency}
    return dataclasses.replace(run, metrics=metrics)


def test_best_student_cost_and_a_difference_that_the_joint_test_holds():
    runs = [costed(run, 1e6, 0.5) for run in sample_runs()]
    made = table(runs, [costed(sample_teacher(), 4e6, 5.0)])
    best, cost, significance = conclusion(made, KEY)
    row = best_student(made, KEY)
    assert row.row == "0.9*kl(T=4) + 0.1*ce" and row.group == "l2"
    assert best.startswith("Best student: `0.9*kl(T=4) + 0.1*ce` (l2), accuracy % ")
    assert best.endswith("; the teacher has 80.0.")
    assert "1.00 M against the teacher's 4.00 M (4.0 to 1)" in cost
    assert "0.50 ms against the teacher's 5.00 ms (10.0 to 1)" in cost
    tests = row.entries[KEY].tests
    assert tests.different and "is significant at 5%" in significance
    assert f"{100 * tests.joint.difference:+.1f} points" in significance


def test_a_difference_that_no_test_holds_is_not_claimed():
    rng = np.random.default_rng(3)
    noise = [(r, s, rng.random(600) < 0.6) for r in ("ce", "kl") for s in range(3)]
    runs = [sample_run(r, "tiny", s, correct=right) for r, s, right in noise]
    sentences = conclusion(table(runs), KEY)
    said = " ".join(sentences)
    assert len(sentences) == 3 and "What it costs was not measured." in said
    assert "is significant" not in said and "teacher" not in sentences[0]
    assert "none significantly worse at 5%" in said


def test_without_a_joint_test_nothing_is_known():
    *_, one_seed = conclusion(table(sample_runs(seeds=1)), KEY)
    assert one_seed.startswith("Whether it differs from `ce` is not known")
    *_, no_examples = conclusion(table(sample_runs(correct=False)), KEY)
    assert no_examples.startswith("Whether it differs from `ce` is not known")


def test_a_baseline_that_stands_best_names_who_is_worse():
    made = table(sample_runs(groups=("tiny",)), baseline="0.9*kl(T=4) + 0.1*ce")
    *_, said = conclusion(made, KEY)
    worse = [r.row for r in made.rows if r.role == "compared" and r.entries[KEY].tests.different]
    assert said.startswith("It is the baseline itself; of 2 other rows") and worse
    assert said.endswith(f"significantly worse at 5%: {', '.join(f'`{row}`' for row in worse)}.")


def test_among_all_pairs_those_that_cannot_be_told_apart_are_named():
    made = table(sample_runs(groups=("tiny",)), against="best")
    *_, said = conclusion(made, KEY)
    best = best_student(made, KEY)
    level = [r.row for r in made.students if r is not best and "a" in r.entries[KEY].letters]
    assert said.startswith(f"Of 2 other rows of its group, {len(level) or 'none'} cannot be told")


def test_the_run_to_take_is_the_best_on_validation_whatever_the_test_split_says():
    runs = sample_runs(groups=("tiny",))
    flipped = [
        dataclasses.replace(run, metrics={**run.metrics, "validation/accuracy": 0.5 - run.seed / 9})
        for run in runs
    ]
    assert run_to_take(best_student(table(flipped), KEY)).seed == 0


@pytest.mark.parametrize("value", [float("nan")])
def test_a_table_without_a_finite_score_has_nothing_to_say(value):
    runs = [sample_run("ce", "tiny", seed, value) for seed in range(3)]
    assert conclusion(table(runs), KEY) == ()
