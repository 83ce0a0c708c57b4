"""McNemar's exact test: did what changed between two models change for the worse or the better?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Changed:
    """What two models of the same examples do not agree in.

    Attributes:
      examples: how many there are.
      lost: right before, wrong after.
      won: wrong before, right after.
      p: two-sided, that a change is as likely to be one as the other; 1 where nothing changed.
    """

    examples: int
    lost: int
    won: int
    p: float


def mcnemar(before_N: ArrayLike, after_N: ArrayLike) -> Changed:
    """The exact test of McNemar 1947: a sign test over the examples that changed.

    With n changes of which k are losses, ``p`` is the probability of a count at least as far from
    n / 2 as k under Binomial(n, 1/2).

    Args:
      before_N, after_N: [N] whether each example is right.
    """
    from scipy.stats import binomtest

    before, after = np.asarray(before_N, bool), np.asarray(after_N, bool)
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(f"shapes {before.shape} and {after.shape} of two models' answers")
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    p = float(binomtest(lost, lost + won).pvalue) if lost + won else 1.0
    return Changed(len(before), lost, won, p)
