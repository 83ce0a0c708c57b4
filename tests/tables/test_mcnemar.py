"""McNemar's exact test: known tables, and its size under the null hypothesis."""

import math

import numpy as np
import pytest

from distill_jax.tables.mcnemar import Changed, mcnemar


def answers(both, lost, won, neither):
    before = [True] * (both + lost) + [False] * (won + neither)
    after = [True] * both + [False] * lost + [True] * won + [False] * neither
    return before, after


def test_it_counts_what_changed():
    found = mcnemar(*answers(50, 8, 2, 5))
    assert (found.examples, found.lost, found.won) == (65, 8, 2)
    tail = sum(math.comb(10, k) for k in (0, 1, 2)) / 2**10
    assert found.p == pytest.approx(2 * tail)


def test_no_change_is_no_evidence():
    assert mcnemar(*answers(3, 0, 0, 2)) == Changed(5, 0, 0, 1.0)
    assert mcnemar(*answers(3, 4, 4, 2)).p == 1.0


def test_it_rejects_no_more_often_than_it_says():
    rng = np.random.default_rng(0)
    rejected = [mcnemar(rng.random(80) < 0.7, rng.random(80) < 0.7).p < 0.05 for _ in range(400)]
    assert 0 < np.mean(rejected) < 0.07


def test_answers_of_other_examples_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        mcnemar([True], [True, False])
