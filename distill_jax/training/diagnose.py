"""Which term of an objective went wrong in a step, and on which examples.

Asked only after a step whose loss or gradients were not finite; compiles a program of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distill_jax.core.types import Batch, Output
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.training.state import in_float32
from distill_jax.training.step import StepNumbers

Finite = Callable[[Any, Any, Batch, Output | None, StepNumbers], dict[str, tuple[Any, Any]]]
"""``(trained, step, batch, teacher_output, numbers) -> {term: (value is finite, gradient is)}``."""
SHOWN = 5


@dataclass(frozen=True)
class Diagnostics:
    """What may be asked about a training beside its steps; compiled when it is asked.

    Attributes:
      finite: which terms of a step are finite.
      output: (student parameters, batch) -> what the student says of it, without dropout.
    """

    finite: Finite
    output: Callable[[Any, Any], Any]


def make_diagnostics(model: Any, objective: ResolvedObjective) -> Diagnostics:
    """Diagnostics that compute every term of a step by itself, with the step's own dropout.

    Args:
      model, objective: as ``make_step`` takes them.
    """

    def finite(
        trained: Any,
        step: Any,
        batch: Batch,
        teacher_output: Output | None,
        numbers: StepNumbers,
    ) -> dict[str, tuple[Any, Any]]:
        dropout_key = jax.random.fold_in(jax.random.key(numbers.seed), step)

        def value(trained: Any, label: str) -> jax.Array:
            output = model.apply(
                {"params": trained["student"]}, batch, train=True, rngs={"dropout": dropout_key}
            )
            said = in_float32(objective.student_capture.select(output))
            _, parts = objective(trained["losses"], numbers.objective, said, teacher_output, batch)
            total, count = parts[label]
            return total / jnp.maximum(count, 1)

        found = {}
        for term in objective.terms:
            total, grads = jax.value_and_grad(value)(trained, term.label)
            leaves = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)]
            found[term.label] = jnp.isfinite(total), jnp.stack(leaves).all()
        return found

    def output(params: Any, batch: Batch) -> Any:
        return model.apply({"params": params}, batch, train=False)

    return Diagnostics(jax.jit(finite), jax.jit(output))


def explain(
    diagnostics: Diagnostics,
    trained: Any,
    step: int,
    batch: Batch,
    teacher_output: Output | None,
    numbers: StepNumbers,
    ids: Sequence[str],
) -> str:
    """What was not finite, in words: ``kl (gradient) not finite on example a, b``.

    Args:
      diagnostics: from ``make_diagnostics``.
      trained: what the optimiser moves, before the step.
      step: updates before it.
      batch, teacher_output, numbers: of the step.
      ids: of the training examples, by row.
    """
    trained, batch, teacher_output = jax.device_get((trained, batch, teacher_output))
    rows_B = np.asarray(batch.example_ids_B)

    def wrong(where_B: np.ndarray) -> dict[str, str]:
        alone, heard = _only((batch, teacher_output), where_B)  # zeros, as NaN * 0 is NaN
        alone = alone.replace(example_ids_B=np.where(where_B, rows_B, np.int32(-1)))
        said = diagnostics.finite(trained, np.int32(step), alone, heard, numbers)
        return {
            term: "" if not value else " (gradient)"
            for term, (value, gradient) in sorted(jax.device_get(said).items())
            if not (value and gradient)
        }

    found: list[str] = []

    def search(positions: np.ndarray) -> bool:
        """Find the fewest examples, by halving, that go wrong by themselves; enough to show."""
        where_B = np.zeros(len(rows_B), bool)
        where_B[positions] = True
        if len(found) > SHOWN or not wrong(where_B):
            return False
        halves = np.array_split(positions, 2) if len(positions) > 1 else []
        if not any([search(half) for half in halves]):  # all of them
            found.extend(ids[row] for row in rows_B[positions])
        return True

    positions = np.flatnonzero(rows_B >= 0)
    terms = wrong(rows_B >= 0)
    if not (terms and search(positions)):
        found.extend(ids[row] for row in rows_B[positions])
    more = " and more" if len(found) > SHOWN else ""
    examples = f"example{'s' if len(found) > 1 else ''} {', '.join(found[:SHOWN])}{more}"
    if not terms:
        return f"loss or gradients not finite, though not when computed again, on {examples}"
    told = ", ".join(term + what for term, what in terms.items())
    return f"{told} not finite on {examples}"


def _only(tree: Any, where_B: np.ndarray) -> Any:
    """Arrays [B, ...] with zeros in all other rows."""

    def keep(x: Any) -> np.ndarray:
        x = np.asarray(x)
        return np.where(where_B.reshape(-1, *(1,) * (x.ndim - 1)), x, np.zeros((), x.dtype))

    return jax.tree.map(keep, tree)
