"""Answers to questions, scored as SQuAD's official script does (evaluate-v2.0.py).

Rajpurkar et al. 2016, "SQuAD", section 6.1: exact match and F1 of words after normalisation, the
best over the answers that people gave. An unanswerable question has the one answer "".
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and extra white space, in the script's order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(said: str, due: Sequence[str]) -> float:
    """1 where the answer is one of those due after normalisation, else 0."""
    return float(any(normalised(said) == normalised(each) for each in _answers(due)))


def word_f1(said: str, due: Sequence[str]) -> float:
    """The best F1 of the answer's words with those of an answer that is due.

    Where either side has no words it is 1 if neither has any, else 0.
    """
    return max(_f1(said, each) for each in _answers(due))


def _answers(due: Sequence[str]) -> Sequence[str]:
    """Those with words; the empty one where there is none."""
    return [each for each in due if normalised(each)] or [""]


def _f1(said: str, due: str) -> float:
    own, gold = normalised(said).split(), normalised(due).split()
    if not own or not gold:
        return float(own == gold)
    same = sum((Counter(own) & Counter(gold)).values())
    if not same:
        return 0.0
    precision, recall = same / len(own), same / len(gold)
    return 2 * precision * recall / (precision + recall)
