"""From logits of starts and ends to answers, as the released code of BERT decodes them.

Devlin et al. 2019, section 4.2 and 4.3: the span with the highest sum of both logits, no longer
than ``MOST``, its start not after its end, over all windows of a question; "no answer" scores the
sum of both logits at [CLS], in the window where that is lowest, and is the answer where it exceeds
the best span by more than a threshold.

Shapes: N windows, T tokens, Q questions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import special

from distill_jax.core.spans import ENDS, STARTS
from distill_jax.data.windows import Window
from distill_jax.evaluation.squad import exact_match, word_f1

MOST = 30
"""Tokens of an answer."""


@dataclasses.dataclass(frozen=True)
class Found:
    """What a model says of one question.

    Attributes:
      question: its id.
      text: of the best span; "" where its context has no token.
      start: of the text, the number of its first character in the context; -1 where there is none.
      score: sum of the logits of the best span.
      null: of no answer.
      due: texts of the answers that are right; None where nobody says.
    """

    question: str
    text: str
    start: int
    score: float
    null: float
    due: tuple[str, ...] | None

    def answer(self, threshold: float | None) -> str:
        """The text, or "" for no answer; None allows none."""
        if threshold is not None and self.null - self.score > threshold:
            return ""
        return self.text


def best_spans(
    said_NT2: np.ndarray, inside_NT: np.ndarray, most: int = MOST
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best span of every window: its score (float64, -inf where there is none), its first and
    its last token; of equal ones the shortest, then the first.

    Args:
      inside_NT: bool, the tokens that answers are made of, one after another.
      most: tokens of a span.
    """
    starts, ends = (np.where(inside_NT, said_NT2[..., k], -np.inf) for k in (0, 1))
    starts, ends = starts.astype(np.float64), ends.astype(np.float64)
    count, length = starts.shape
    best_N = np.full(count, -np.inf)
    first_N, last_N = np.zeros(count, np.int64), np.zeros(count, np.int64)
    rows = np.arange(count)
    for more in range(min(most, length)):
        sums = starts[:, : length - more] + ends[:, more:]
        token_N = sums.argmax(axis=1)
        score_N = sums[rows, token_N]
        better = score_N > best_N
        best_N[better] = score_N[better]
        first_N[better], last_N[better] = token_N[better], token_N[better] + more
    return best_N, first_N, last_N


def found_answers(said_NT2: np.ndarray, windows: Sequence[Window], most: int = MOST) -> list[Found]:
    """What is said of every question, in the order of its first window.

    Args:
      said_NT2: logits of starts and of ends; behind a window's last token anything.
      windows: of the same rows.
    """
    inside_NT = np.zeros(said_NT2.shape[:2], bool)
    for row, window in enumerate(windows):
        inside_NT[row, : len(window.places_T2)] = window.places_T2[:, 0] >= 0
    score_N, first_N, last_N = best_spans(said_NT2, inside_NT, most)
    null_N = said_NT2[:, 0].sum(axis=-1, dtype=np.float64)
    found: dict[str, Found] = {}
    for row, window in enumerate(windows):
        before = found.get(window.question)
        null = min(float(null_N[row]), before.null if before else np.inf)
        if before and before.score >= score_N[row]:
            found[window.question] = dataclasses.replace(before, null=null)
            continue
        start, text = -1, ""
        if score_N[row] > -np.inf:
            start, stop = window.places_T2[first_N[row], 0], window.places_T2[last_N[row], 1]
            text = window.context[start:stop]
        found[window.question] = Found(
            window.question, text, int(start), float(score_N[row]), null, window.due
        )
    return list(found.values())


def answer_scores(found: Sequence[Found], threshold: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Exact match and F1 of every question, float64 [Q] each."""
    pairs = [(each.answer(threshold), each.due or ()) for each in found]
    exact = [exact_match(said, due) for said, due in pairs]
    return np.array(exact), np.array([word_f1(said, due) for said, due in pairs])


def best_threshold(found: Sequence[Found]) -> float:
    """The threshold of no answer with the highest F1, between two questions; 0 among equals nearest
    to it."""
    margins = np.array([each.null - each.score for each in found])
    answered = np.array([word_f1(each.text, each.due or ()) for each in found])
    silent = np.array([word_f1("", each.due or ()) for each in found])
    order = np.argsort(margins, kind="stable")
    # At place k the k questions with the lowest margins are answered, the others are not.
    total = np.append(0, np.cumsum(answered[order])) + np.append(
        np.cumsum(silent[order][::-1])[::-1], 0
    )
    sorted_ = margins[order]
    low, high = np.append(sorted_[:1] - 1, sorted_), np.append(sorted_, sorted_[-1:] + 1)
    middles = (low + high) / 2
    chosen = np.flatnonzero(total >= total.max() - 1e-12)
    # Equal margins cannot be told apart: only places between different ones count.
    apart = [k for k in chosen.tolist() if k in (0, len(found)) or low[k] < high[k]]
    candidates = middles[apart or [len(found)]]
    return float(candidates[np.argmin(np.abs(candidates))])


def position_log_probs(said_NT2: np.ndarray, targets_NT: np.ndarray) -> np.ndarray:
    """Log-probabilities of start and end over the tokens that are asked about, float64 [N, T, 2];
    -inf elsewhere."""
    masked = np.where(targets_NT[..., None] >= 0, said_NT2.astype(np.float64), -np.inf)
    return special.log_softmax(masked, axis=1)


def position_nll(said_NT2: np.ndarray, targets_NT: np.ndarray) -> float:
    """Mean over windows, starts and ends of the negative log-likelihood of the right token."""
    log_probs = position_log_probs(said_NT2, targets_NT)
    marks = np.maximum(targets_NT, 0)
    rows = np.arange(len(marks))
    ends = [((marks & part) > 0).argmax(axis=1) for part in (STARTS, ENDS)]
    return float(-np.mean([log_probs[rows, token, k] for k, token in enumerate(ends)]))


def position_kl(teacher_NT2: np.ndarray, student_NT2: np.ndarray, targets_NT: np.ndarray) -> float:
    """Mean over windows, starts and ends of ``KL(teacher || student)`` over the tokens asked."""
    one = position_log_probs(teacher_NT2, targets_NT)
    other = position_log_probs(student_NT2, targets_NT)
    probs = np.exp(one)
    with np.errstate(invalid="ignore"):
        terms = np.where(probs == 0, 0.0, probs * (one - other))
    return float(terms.sum(axis=1).mean())
