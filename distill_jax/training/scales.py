"""Whether student and teacher score on scales whose margins can be compared: said before step 1."""

from collections.abc import Callable
from typing import Any

import numpy as np

from distill_jax.objectives.feeds import RankingFeed
from distill_jax.objectives.registry import lookup
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.training.diagnose import Diagnostics
from distill_jax.training.feed import Feed
from distill_jax.training.state import Params


def warn_of_scales(
    diagnostics: Diagnostics | None,
    objective: ResolvedObjective,
    params: Params,
    feed: Feed,
    say: Callable[[str], None],
) -> None:
    """Say so where margins of free scores are to equal those of scores within [0, 1].

    Read off the first batch. The student is asked only where the teacher's scores lie so.

    Args:
      params: the student's, in the host's memory.
    """
    terms = [term.label for term in objective.terms if _compares_margins(term)]
    if diagnostics is None or not terms:
        return
    batch, said = feed(0)
    if said is None:  # they hear each other
        return
    for teacher in said if isinstance(said, tuple | list) else (said,):
        taught = _range_of(teacher, batch)
        if taught is None or not _are_shares(taught):
            continue
        own = _range_of(diagnostics.output(params, batch), batch)
        if own is not None and not _are_shares(own):
            say(
                f"{', '.join(terms)}: on the first batch the teacher's scores lie in "
                f"{_words(taught)}, like probabilities, and the student's, which are not bounded, "
                f"in {_words(own)}: no margin above 1 can be taught. Give the teacher's logits, or "
                "take a loss on distributions or orders (kl, listnet, listmle)"
            )
            return


def _compares_margins(term: Any) -> bool:
    feed = lookup(term.name).feed
    return isinstance(feed, RankingFeed) and feed.margins


def _range_of(output: Any, batch: Any) -> tuple[float, float] | None:
    """The least and the largest score of the examples that are there."""
    if output.scores is None:
        return None
    scores = np.asarray(output.scores, np.float32)[np.asarray(batch.where_B)]
    scores = scores[np.isfinite(scores)]
    return (float(scores.min()), float(scores.max())) if scores.size else None


def _are_shares(ends: tuple[float, float]) -> bool:
    return ends[0] >= 0 and ends[1] <= 1


def _words(ends: tuple[float, float]) -> str:
    return f"[{ends[0]:.2g}, {ends[1]:.2g}]"
