"""How much of the gradient each term of an objective gives before the first step.

A weight says little by itself: a mean over features may be a thousand times smaller than a sum
over classes. A term that gives next to nothing makes a run that is nearly the run without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from distill_jax.core.types import Batch, ModelOutput
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.tasks.classification.models import params_of_student
from distill_jax.tasks.classification.probe import LoneTerm, Programs, add_outputs
from distill_jax.tasks.classification.runs import ClassifierRun

NEGLIGIBLE = 0.01
"""A share of the gradient below which a term is said to do nothing."""


class Shares:
    """Norms of the terms' gradients with respect to the student, at its very start.

    Each term is taken at its highest weight, on the few examples of the self-checks, without
    dropout.

    Args:
      compiled: the programs of the self-checks.
      batch: those examples.
      heard: what the teachers say of them, all of it; None where nobody listens.
    """

    def __init__(self, compiled: Programs, batch: Batch, heard: Any) -> None:
        self._compiled, self._batch, self._heard = compiled, batch, heard
        self._starts: dict[Any, tuple[ModelOutput, Any]] = {}
        self._norms: dict[Any, float] = {}
        self._told: set[Any] = set()

    def line(
        self, run: ClassifierRun, objective: ResolvedObjective, terms: Sequence[LoneTerm]
    ) -> str:
        """The shares in words; "" for a single term, and for what was told already.

        Args:
          terms: of the objective, see ``terms_that_count``.
        """
        setup = run.cell.setup
        start = setup.student, str(setup.layers), setup.start, run.model
        if len(terms) < 2 or (start, objective.objective) in self._told:
            return ""
        self._told.add((start, objective.objective))
        own = objective.init_params(jax.random.key(run.cell.seed))
        norms = {
            term.label: term.weight * self._norm(run, start, term, own.get(term.label))
            for term in terms
        }
        return f"{run.cell.setup.student}, {objective.objective}: {describe(shares_of(norms))}"

    def _norm(self, run: ClassifierRun, start: Any, term: LoneTerm, own: Any) -> float:
        """Of an unweighted term, with the parameters that it owns, if any."""
        ((name, numbers),) = term.numbers.items()
        plain = tuple((name, str(value)) for name, value in sorted(numbers.items()))
        key = start, term.objective, plain
        if key not in self._norms:
            said, pull = self._start(run, start)
            student = term.objective.student_capture.select(said)
            heard = self._heard and term.objective.heard(self._heard)
            arguments = {name: own} if own else {}, term.numbers, student, heard, self._batch
            *_, slope = self._compiled.slope(term.objective, *arguments)
            whole = add_outputs(jax.tree.map(jnp.zeros_like, said), slope)
            self._norms[key] = float(self._compiled.reached(pull, whole)[1])
        return self._norms[key]

    def _start(self, run: ClassifierRun, start: Any) -> tuple[ModelOutput, Any]:
        """What the student says before its first step, and the product that goes back into it."""
        if start not in self._starts:
            params = params_of_student(run.cell, *run.sources)
            said_and_pull = self._compiled.forward_and_pull(run.model, params, self._batch)
            self._starts[start] = said_and_pull
        return self._starts[start]


def shares_of(norms: Mapping[str, float]) -> dict[str, float]:
    """Each term's share of the sum of all norms; 0 where there is no gradient at all."""
    total = sum(norms.values())
    return {label: norm / total if total else 0.0 for label, norm in norms.items()}


def describe(shares: Mapping[str, float]) -> str:
    """The shares in one line, with a warning where one is negligible."""
    told = ", ".join(f"{label} {_percent(share)}" for label, share in shares.items())
    small = [label for label, share in shares.items() if share < NEGLIGIBLE]
    line = f"of the gradient before step 1: {told}"
    if small:
        line += (
            f". WARNING: {' and '.join(small)} below {NEGLIGIBLE:.0%} may as well not be there; "
            "raise the weight, or leave it out"
        )
    return line


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 9.95 else f"{percent:.2g}%" if share else "0%"
