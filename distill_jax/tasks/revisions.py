"""Corrections that changed how some runs come out, as part of those runs' hashes alone."""

import re

EXPERTS = frozenset({"expert_hints", "hierarchical_topology"})
EXPERTS_REVISED = {"experts": 2}
"""Since the experts' biases no longer decay, and their noise depends on the seed and, in a
population too, on the step."""


def has_experts(objective: str) -> bool:
    """Whether a term of an objective has learned experts.

    Args:
      objective: canonical text, of a classifier or a recommender.
    """
    return not EXPERTS.isdisjoint(re.findall(r"\w+", objective))


USERS_REVISED = {"users": 2}
"""Since users of whom training has nothing are asked by their histories, not by a vector of their
own that was never trained; of models that have vectors of users."""
