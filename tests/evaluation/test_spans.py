"""Spans out of logits."""

import itertools

import numpy as np
import pytest

from distill_jax.data.windows import Window
from distill_jax.evaluation.spans import (
    Found,
    answer_scores,
    best_spans,
    best_threshold,
    found_answers,
    position_kl,
    position_nll,
)

CONTEXT = "red cat sat on mats"
PLACES = [(-1, -1), (0, 3), (4, 7), (8, 11), (12, 14), (15, 19), (-1, -1)]


def window(question, due=("cat",), places=PLACES):
    return Window(question, CONTEXT, np.array(places, np.int32), due)


@pytest.mark.parametrize("most", [1, 2, 9])
def test_the_best_span_is_the_best_of_all_that_are_allowed(most):
    said = np.random.default_rng(0).normal(size=(6, 7, 2)).astype(np.float32)
    inside = np.zeros((6, 7), bool)
    inside[:, 1:6] = True
    inside[0] = False
    score, first, last = best_spans(said, inside, most)
    assert score[0] == -np.inf
    for row in range(1, 6):
        allowed = [
            (float(said[row, i, 0]) + float(said[row, j, 1]), i, j)
            for i, j in itertools.product(range(1, 6), repeat=2)
            if 0 <= j - i < most
        ]
        assert (score[row], first[row], last[row]) == max(allowed)


def peaked(start, end, height=5.0, null=0.0):
    said = np.zeros((7, 2), np.float32)
    said[start, 0] = said[end, 1] = height
    said[0] = null
    return said


def test_the_best_window_of_a_question_answers_and_the_lowest_null_counts():
    said = np.stack([peaked(2, 2, 3.0, null=4.0), peaked(3, 4, 5.0, null=1.0), peaked(1, 1)])
    found = found_answers(said, [window("q"), window("q"), window("r", due=None)])
    assert [(each.question, each.text, each.start) for each in found] == [
        ("q", "sat on", 8),
        ("r", "red", 0),
    ]
    assert (found[0].score, found[0].null) == (10.0, 2.0)
    assert found[0].answer(None) == found[0].answer(0.0) == "sat on"
    assert found[0].answer(-9.0) == ""
    assert found[1].due is None


def test_a_window_without_context_has_no_answer():
    (found,) = found_answers(np.zeros((1, 2, 2)), [window("q", places=[(-1, -1), (-1, -1)])])
    assert (found.text, found.start, found.score) == ("", -1, -np.inf)


def known(margin, text, due):
    return Found("q", text, 0, 0.0, margin, due)


def test_the_threshold_is_the_best_of_all():
    rng = np.random.default_rng(1)
    dues = [("cat",) if rng.random() < 0.6 else () for _ in range(40)]
    found = [known(float(rng.normal()), rng.choice(["cat", "dog"]), due) for due in dues]
    chosen = best_threshold(found)
    reached = answer_scores(found, chosen)[1].mean()
    places = [each.null + step for each in found for step in (-1e-9, 1e-9)]
    every = [answer_scores(found, place)[1].mean() for place in places]
    assert reached == pytest.approx(max(every))
    assert reached > answer_scores(found, None)[1].mean()


def test_equal_margins_are_not_told_apart():
    found = [known(1.0, "cat", ("cat",)), known(1.0, "cat", ())]
    assert best_threshold(found) != 1.0
    assert answer_scores(found, best_threshold(found))[1].mean() == 0.5


def test_likelihoods_leave_out_what_is_not_asked():
    targets = np.array([[0, -1, 1, 2, -1]], np.int32)
    said = np.zeros((1, 5, 2), np.float32)
    said[:, [1, 4]] = 99.0
    assert position_nll(said, targets) == pytest.approx(np.log(3))
    assert position_kl(said, said, targets) == 0.0
    other = said.copy()
    other[0, 2, 0] = 1.0
    assert position_kl(other, said, targets) > 0.01
