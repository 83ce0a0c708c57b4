"""The student that never saw a class: what the right bias of that class would make of it.

Hinton et al. 2015, section 3: of a student whose transfer set had no 3, "most of the errors are
caused by the fact that the learned bias for the 3 class is much too low". There the bias is the
one that is best on the test set; here validation chooses it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distill_jax.tables.evidence import pack_numbers
from distill_jax.tasks.classification.splits import Splits, left_out

BIAS = "left_out/bias"
ERRORS_LEFT_OUT, ERRORS_BIASED = "test/errors_left_out", "test/errors_left_out_biased"
ALL_BIASED, GAIN = "test/errors_biased", "test/gain_by_bias"


def best_bias(logits_NC: np.ndarray, labels_N: np.ndarray, out_C: np.ndarray) -> float:
    """What is added to the logits of some classes so that most examples are right; of equals the
    one nearest to 0.

    An example is given one of those classes where the bias is above its margin, the largest of
    the other logits minus the largest of theirs; so there is one candidate between each two
    margins that follow one another.

    Args:
      logits_NC: finite.
      labels_N: class numbers.
      out_C: bool, those classes, some of all.
    """
    theirs_N, given_N = _largest(logits_NC, out_C)
    others_N, instead_N = _largest(logits_NC, ~out_C)
    margins_N = others_N - theirs_N
    order_N = np.argsort(margins_N, kind="stable")
    sorted_N = margins_N[order_N].astype(np.float64)
    # right_K[k]: the k examples of least margin are given those classes, the rest the others.
    gained = np.append(0, np.cumsum((given_N == labels_N)[order_N]))
    kept = np.append(0, np.cumsum((instead_N == labels_N)[order_N][::-1]))[::-1]
    ends = np.concatenate([sorted_N[:1] - 1, sorted_N, sorted_N[-1:] + 1])
    candidates = np.append((ends[:-1] + ends[1:]) / 2, 0.0)
    counts = np.searchsorted(sorted_N, candidates, side="left")
    right = (gained + kept)[counts]
    best = np.flatnonzero(right == right.max())
    return float(candidates[best[np.abs(candidates[best]).argmin()]])


def with_bias(logits_NC: np.ndarray, out_C: np.ndarray, bias: float) -> np.ndarray:
    """The logits with the bias added to those of some classes."""
    return logits_NC + np.where(out_C, np.float32(bias), np.float32(0))


def scores_of_left_out(
    splits: Splits, validation_NC: np.ndarray, test_NC: np.ndarray
) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics of a student that was not shown some classes, and evidence by test example.

    Returns:
      Errors on the test examples of those classes, the bias, all errors and those with it, and
      the gain in accuracy; ({}, {}) where no class was left out, or logits are not finite.
    """
    out_C = left_out(splits.config, splits.label_names)
    if not out_C.any() or not (np.isfinite(validation_NC).all() and np.isfinite(test_NC).all()):
        return {}, {}
    labels_N = splits.test.labels_N
    bias = best_bias(validation_NC, splits.validation.labels_N, out_C)
    wrong_N = test_NC.argmax(axis=1) != labels_N
    biased_N = with_bias(test_NC, out_C, bias).argmax(axis=1) != labels_N
    theirs_N = out_C[labels_N]
    gain_N = wrong_N.astype(np.float32) - biased_N.astype(np.float32)
    metrics: dict[str, Any] = {
        BIAS: bias,
        ERRORS_LEFT_OUT: int(wrong_N[theirs_N].sum()),
        ERRORS_BIASED: int(biased_N[theirs_N].sum()),
        ALL_BIASED: int(biased_N.sum()),
        GAIN: float(gain_N.mean()),
    }
    return metrics, {GAIN.removeprefix("test/"): pack_numbers(gain_N)}


def _largest(logits_NC: np.ndarray, chosen_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest logit of some classes, and which class that is."""
    masked_NC = np.where(chosen_C, logits_NC, -np.inf)
    return masked_NC.max(axis=1), masked_NC.argmax(axis=1)
