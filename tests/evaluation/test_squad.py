"""SQuAD's scores against the functions of its official script."""

import collections
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.evaluation.squad import exact_match, normalised, word_f1

WORDS = ("a", "The", "cat", "Cat.", "sat", "an", "on", "U.S.", "it's", "--", "thesis")


def official_normalize(s):
    """``normalize_answer`` of evaluate-v2.0.py."""

    def remove_articles(text):
        regex = re.compile(r"\b(a|an|the)\b", re.UNICODE)
        return re.sub(regex, " ", text)

    def remove_punc(text):
        exclude = set(string.punctuation)
        return "".join(ch for ch in text if ch not in exclude)

    return " ".join(remove_articles(remove_punc(s.lower())).split())


def official_f1(a_gold, a_pred):
    """``compute_f1`` of evaluate-v2.0.py."""
    gold_toks = official_normalize(a_gold).split() if a_gold else []
    pred_toks = official_normalize(a_pred).split() if a_pred else []
    common = collections.Counter(gold_toks) & collections.Counter(pred_toks)
    num_same = sum(common.values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(pred_toks)
    recall = 1.0 * num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


texts = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)


@given(texts, st.lists(texts, max_size=3))
def test_scores_are_those_of_the_script(said, due):
    gold = [text for text in due if official_normalize(text)] or [""]
    assert normalised(said) == official_normalize(said)
    assert word_f1(said, due) == pytest.approx(max(official_f1(each, said) for each in gold))
    same = max(int(official_normalize(each) == official_normalize(said)) for each in gold)
    assert exact_match(said, due) == same


def test_an_unanswerable_question_wants_no_answer():
    assert (exact_match("", ()), word_f1("", ())) == (1.0, 1.0)
    assert (exact_match("Paris", ()), word_f1("Paris", ())) == (0.0, 0.0)


def test_the_best_of_several_answers_counts():
    assert word_f1("the red cat", ["dog", "red cat", "cat"]) == 1.0
    assert word_f1("red dog", ["red cat", "a dog"]) == pytest.approx(2 / 3)
