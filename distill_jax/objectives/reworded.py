"""Objectives whose terms are told more than their text says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from distill_jax.objectives.grammar import Vocabulary, parse
from distill_jax.objectives.registry import lookup
from distill_jax.objectives.terms import Objective, Term


def listens(objective: Objective) -> bool:
    """Whether any term of an objective listens to a teacher."""
    return any(lookup(term.name).feed.needs_teacher for term in objective.terms)


def with_teacher_weights(
    objective: str, weights: Sequence[float], vocabulary: Vocabulary | None = None
) -> str:
    """An objective whose terms weigh the teachers, except those that say so themselves, or listen
    to one of them.

    Args:
      vocabulary: the losses of another task than classes.
    """

    def listens_to_all(term: Term) -> bool:
        return lookup(term.name).feed.needs_teacher and "teacher" not in dict(term.options)

    return with_option(objective, listens_to_all, "teacher_weights", weights, vocabulary)


def with_option(
    objective: str,
    chosen: Callable[[Term], bool],
    name: str,
    values: Sequence[float],
    vocabulary: Vocabulary | None = None,
) -> str:
    """An objective some of whose terms have an option more, where they do not have it already."""
    parsed = parse(objective, vocabulary)
    terms = [
        dataclasses.replace(
            term, options=tuple(sorted({name: tuple(values), **dict(term.options)}.items()))
        )
        if chosen(term)
        else term
        for term in parsed.terms
    ]
    return str(dataclasses.replace(parsed, terms=tuple(terms)))
