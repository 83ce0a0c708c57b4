"""Where a classifier is wrong: class by class, which for which, and its surest errors."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

WORST = 20
"""Errors that are kept with their texts."""


@dataclass(frozen=True)
class ClassScores:
    """One class on a split.

    Attributes:
      name: of the class.
      examples: that have this label.
      predicted: that are given this class.
      precision: share of those that are right; NaN where none is given it.
      recall: share of its examples that are found; NaN where it has none.
      f1: ``2 * right / (examples + predicted)``; NaN where there is neither.
    """

    name: str
    examples: int
    predicted: int
    precision: float
    recall: float
    f1: float


def confusion_matrix(logits_NC: ArrayLike, labels_N: ArrayLike) -> np.ndarray:
    """Counts [C, C] of labelled examples: row is the label, column the class that was given."""
    logits, labels = np.asarray(logits_NC), np.asarray(labels_N)
    known = labels >= 0
    classes = logits.shape[1]
    pairs = labels[known] * classes + logits[known].argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_scores(confusion_CC: np.ndarray, names: Sequence[str]) -> list[ClassScores]:
    """Precision, recall and F1 of each class."""
    return _class_scores(np.diag(confusion_CC), confusion_CC.sum(1), confusion_CC.sum(0), names)


def _class_scores(
    right_C: np.ndarray, labelled_C: np.ndarray, given_C: np.ndarray, names: Sequence[str]
) -> list[ClassScores]:
    with np.errstate(invalid="ignore"):  # 0 of 0
        shares = right_C / given_C, right_C / labelled_C, 2 * right_C / (labelled_C + given_C)
    counts = labelled_C.tolist(), given_C.tolist()
    columns = (*counts, *(share_C.tolist() for share_C in shares))
    return [ClassScores(*row) for row in zip(names, *columns, strict=True)]


def mistakes(
    logits_NC: ArrayLike,
    labels_N: ArrayLike,
    names: Sequence[str],
    ids: Sequence[str],
    texts: Mapping[str, Sequence[str]],
    temperature: float = 1.0,
) -> dict[str, Any]:
    """What a report shows of a model's errors, as plain JSON.

    Args:
      ids: of the examples.
      texts: id -> one text, or two of a pair; empty for images.
      temperature: by which logits are divided before probabilities are taken.

    Returns:
      ``classes`` (as ``ClassScores``, NaN as None), ``confusion`` (C lists of C counts), and
      ``worst``: of the examples that are wrong, those of which the model was surest.
    """
    logits, labels = np.asarray(logits_NC, np.float64), np.asarray(labels_N)
    confusion_CC = confusion_matrix(logits, labels)
    probs_NC = special.softmax(logits / temperature, axis=1)
    given_N = logits.argmax(axis=1)
    wrong: list[int] = np.flatnonzero((labels >= 0) & (given_N != labels)).tolist()
    surest = sorted(wrong, key=lambda n: (-probs_NC[n, given_N[n]], ids[n]))[:WORST]
    worst = [
        {
            "id": ids[n],
            "texts": list(texts.get(ids[n], ())),
            "label": names[labels[n]],
            "given": names[given_N[n]],
            "probability": float(probs_NC[n, given_N[n]]),
        }
        for n in surest
    ]
    classes = [_plain(each) for each in class_scores(confusion_CC, names)]
    return {"classes": classes, "confusion": confusion_CC.tolist(), "worst": worst}


def _plain(scores: ClassScores) -> dict[str, Any]:
    """With None for NaN."""
    return {key: None if value != value else value for key, value in asdict(scores).items()}


def label_mistakes(
    probs_NC: np.ndarray,
    labels_NC: np.ndarray,
    threshold: float,
    names: Sequence[str],
    ids: Sequence[str],
    texts: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """``mistakes`` of a model that gives several labels: one class against another there is none.

    Args:
      probs_NC: of each label.
      labels_NC: 1 where an example has the label, else 0.
      threshold: from which on a label is given.

    Returns:
      ``classes``, a label each, and ``worst``: of the examples with a wrong decision those of the
      surest one, with its probability.
    """
    labels, given = np.asarray(labels_NC) > 0.5, probs_NC >= threshold
    right_C = (labels & given).sum(axis=0)
    labelled_C, given_C = labels.sum(axis=0), given.sum(axis=0)
    sure_N = np.where(labels != given, np.where(given, probs_NC, 1 - probs_NC), 0).max(axis=1)
    wrong: list[int] = np.flatnonzero((labels != given).any(axis=1)).tolist()
    surest = sorted(wrong, key=lambda n: (-sure_N[n], ids[n]))[:WORST]

    def words(row_C: np.ndarray) -> str:
        return ", ".join(name for name, there in zip(names, row_C, strict=True) if there)

    worst = [
        {
            "id": ids[n],
            "texts": list(texts.get(ids[n], ())),
            "label": words(labels[n]),
            "given": words(given[n]),
            "probability": float(sure_N[n]),
        }
        for n in surest
    ]
    scores = _class_scores(right_C, labelled_C, given_C, names)
    return {"classes": [_plain(each) for each in scores], "worst": worst}
