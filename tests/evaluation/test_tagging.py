"""Entities against ``conlleval``'s own rules, word by word."""

import itertools
import random

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.evaluation.tagging import (
    count_entities,
    entities,
    entity_mistakes,
    precision_recall_f1,
)

TAGS = ("O", "B-a", "I-a", "B-b", "I-b")


def test_entities_begin_and_end_as_in_the_script():
    assert entities(["B-a", "I-a", "O", "B-b"]) == [("a", 0, 2), ("b", 3, 4)]
    assert entities(["B-a", "B-a"]) == [("a", 0, 1), ("a", 1, 2)]
    assert entities(["O", "I-a", "I-a"]) == [("a", 1, 3)]
    assert entities(["B-a", "I-b", "I-b"]) == [("a", 0, 1), ("b", 1, 3)]
    assert entities(["O", "O"]) == []


def test_types_may_hold_hyphens():
    assert entities(["B-creative-work", "I-creative-work"]) == [("creative-work", 0, 2)]


def conlleval(said, due):
    """The main loop of conlleval.pl (Tjong Kim Sang, 2004), in its order, for B, I and O.

    Returns correct chunks, found guessed, found correct.
    """

    def ends(before, tag):
        (prefix, kind), (now, own) = before, tag
        broken = (prefix, now) in {("B", "B"), ("B", "O"), ("I", "B"), ("I", "O")}
        return broken or (prefix != "O" and kind != own)

    def starts(before, tag):
        (prefix, kind), (now, own) = before, tag
        begun = (prefix, now) in {("B", "B"), ("I", "B"), ("O", "B"), ("O", "I")}
        return begun or (now != "O" and kind != own)

    def parts(tag):
        prefix, _, kind = tag.partition("-")
        return prefix, kind

    right = guessed = correct = 0
    inside = False
    last_said = last_due = ("O", "")
    ended = (zip([*s, "O"], [*d, "O"], strict=True) for s, d in zip(said, due, strict=True))
    for pair in itertools.chain.from_iterable(ended):
        own, gold = map(parts, pair)
        if inside:
            over_due, over_said = ends(last_due, gold), ends(last_said, own)
            if over_due and over_said and last_said[1] == last_due[1]:
                inside = False
                right += 1
            elif over_due != over_said or own[1] != gold[1]:
                inside = False
        if starts(last_due, gold) and starts(last_said, own) and own[1] == gold[1]:
            inside = True
        correct += starts(last_due, gold)
        guessed += starts(last_said, own)
        last_said, last_due = own, gold
    return right + inside, guessed, correct


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_the_script(seed):
    rng = random.Random(seed)
    due = [rng.choices(TAGS, weights=(4, 2, 2, 1, 1), k=rng.randrange(1, 9)) for _ in range(60)]
    said = [[rng.choice(TAGS) if rng.random() < 0.3 else tag for tag in own] for own in due]
    counts = count_entities(said, due)
    totals = tuple(int(x.sum()) for x in (counts.right_N, counts.said_N, counts.due_N))
    assert totals == conlleval(said, due)
    assert totals[0] > 0
    assert tuple(map(sum, zip(*counts.by_type.values(), strict=True))) == totals
    right, found, there = totals
    assert counts.scores["f1"] == pytest.approx(2 * right / (found + there))


def test_nothing_said_is_a_score_of_0():
    counts = count_entities([["O", "O"]], [["B-a", "O"]])
    assert counts.scores == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert counts.by_type == {"a": (0, 0, 1)}
    assert precision_recall_f1(1, 2, 4) == (0.5, 0.25, pytest.approx(1 / 3))


def test_as_many_tags_as_words():
    with pytest.raises(UserError, match="sentence 1: 1 tags for 2 words"):
        count_entities([["O"], ["O"]], [["O"], ["O", "O"]])
    with pytest.raises(UserError, match="no sentence"):
        count_entities([], [])


def test_mistakes_are_told_by_type_and_by_sentence():
    said = [["B-a", "O"], ["B-b", "I-b"], ["O"]]
    due = [["B-a", "O"], ["B-a", "O"], ["B-b"]]
    texts = {"x": ("red cat",), "y": ("New York",), "z": ("Emma",)}
    found = entity_mistakes(said, due, np.array([0.0, 0.6, 0.9]), ("x", "y", "z"), texts)
    by_name = {each["name"]: each for each in found["classes"]}
    assert by_name["a"] == {
        "name": "a", "examples": 2, "predicted": 1, "precision": 1.0, "recall": 0.5, "f1": 2 / 3,
    }  # fmt: skip
    assert [each["id"] for each in found["worst"]] == ["z", "y"]
    assert found["worst"][1]["label"] == "a: New" and found["worst"][1]["given"] == "b: New York"
