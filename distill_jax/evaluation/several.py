"""Metrics of several labels an example on the host, in float64.

Shapes: N examples, C labels. A label is given where its probability ``sigmoid(logit)`` is at least
the threshold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special
from sklearn import metrics as sklearn_metrics

from distill_jax.evaluation.shares import of_ratio

Floats = NDArray[np.float64]
USUAL = 0.5
"""The threshold where validation says nothing of one."""


@dataclass(frozen=True, eq=False)
class Counts:
    """Decisions on a split, float64 [N, C] of 0 and 1.

    Attributes:
      right: given, and a label.
      wrong: given, and none.
      missed: a label, and not given.
    """

    right: Floats
    wrong: Floats
    missed: Floats

    @property
    def above(self) -> Floats:
        """Of F1: ``2 tp``."""
        return 2 * self.right

    @property
    def below(self) -> Floats:
        """Of F1: ``2 tp + fp + fn``."""
        return self.above + self.wrong + self.missed


def counted(logits_NC: ArrayLike, labels_NC: ArrayLike, threshold: float) -> Counts:
    """What is given at a threshold, against the labels."""
    given = special.expit(np.asarray(logits_NC, np.float64)) >= threshold
    labels = np.asarray(labels_NC) > 0.5
    return Counts(
        (given & labels).astype(np.float64),
        (given & ~labels).astype(np.float64),
        (~given & labels).astype(np.float64),
    )


def best_threshold(logits_NC: ArrayLike, labels_NC: ArrayLike) -> float:
    """The threshold, one for all labels, at which micro-F1 is highest; of equals the highest.

    All thresholds are tried: F1 of the k likeliest decisions, for every k that no equal
    probabilities straddle. ``USUAL`` where no example has a label, or logits are not finite.
    """
    logits, labels = np.asarray(logits_NC, np.float64).ravel(), np.asarray(labels_NC).ravel() > 0.5
    if not labels.any() or not np.isfinite(logits).all():
        return USUAL
    order = np.argsort(-logits, kind="stable")
    probs, right = special.expit(logits[order]), np.cumsum(labels[order])
    f1 = 2 * right / (np.arange(1, len(order) + 1) + labels.sum())
    f1[:-1][probs[:-1] == probs[1:]] = -1  # no threshold lies between equals
    best = int(np.argmax(f1))
    below = probs[best + 1] if best + 1 < len(probs) else 0.0
    return float((probs[best] + below) / 2)


def micro_f1(counts: Counts) -> Floats:
    """Numbers [N] whose mean is the F1 of all decisions together."""
    return of_ratio(counts.above.sum(axis=1), counts.below.sum(axis=1))


def macro_f1(counts: Counts) -> Floats:
    """Numbers [N] whose mean is the mean F1 of the labels; 0 of a label that neither is there nor
    is given."""
    columns = zip(counts.above.T, counts.below.T, strict=True)
    return np.mean([of_ratio(above_N, below_N) for above_N, below_N in columns], axis=0)


def mean_average_precision(logits_NC: ArrayLike, labels_NC: ArrayLike) -> float:
    """Mean over the labels that occur of the area under precision over recall (scikit-learn's
    ``average_precision_score``); NaN where none occurs."""
    logits, labels = np.asarray(logits_NC, np.float64), np.asarray(labels_NC) > 0.5
    there = labels.any(axis=0)
    if not there.any() or not np.isfinite(logits).all():
        return float("nan")
    own = [
        sklearn_metrics.average_precision_score(labels[:, c], logits[:, c])
        for c in np.flatnonzero(there)
    ]
    return float(np.mean(own))


def mean_bce(logits_NC: ArrayLike, labels_NC: ArrayLike) -> float:
    """Mean over examples of the binary cross-entropy summed over labels, in nats."""
    logits, labels = np.asarray(logits_NC, np.float64), np.asarray(labels_NC, np.float64)
    values = np.logaddexp(0.0, logits) - labels * logits
    return float(values.sum(axis=1).mean())


def label_metrics(logits_NC: ArrayLike, labels_NC: ArrayLike, threshold: float) -> dict[str, float]:
    """``micro_f1``, ``macro_f1``, ``map``, ``exact`` (share of examples with all labels right) and
    ``bce``; NaN for logits that are not finite."""
    names = ("micro_f1", "macro_f1", "map", "exact", "bce")
    if not np.isfinite(np.asarray(logits_NC)).all():
        return dict.fromkeys(names, float("nan"))
    counts = counted(logits_NC, labels_NC, threshold)
    values = (
        float(micro_f1(counts).mean()),
        float(macro_f1(counts).mean()),
        mean_average_precision(logits_NC, labels_NC),
        float(exact(counts).mean()),
        mean_bce(logits_NC, labels_NC),
    )
    return dict(zip(names, values, strict=True))


def exact(counts: Counts) -> Floats:
    """1 for an example [N] whose labels are all given, and no other."""
    return ((counts.wrong + counts.missed).sum(axis=1) == 0).astype(np.float64)
