"""Objectives: weighted sums of losses, written as text, fitted to two models.

``parse`` reads the text, ``resolve`` fits it to a student and a teacher. Importing this package
does not import jax.
"""

from distill_jax.objectives.grammar import parse
from distill_jax.objectives.terms import LayerMap, Objective, Term

__all__ = ["LayerMap", "Objective", "Term", "parse"]
