"""A handful of training examples, and what is run on them before step 1: see ``self_checks``."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from distill_jax.core.types import Batch, ModelOutput
from distill_jax.models.build import build_model
from distill_jax.models.family import ModelConfig
from distill_jax.objectives.resolve import Parts, ResolvedObjective
from distill_jax.objectives.terms import Objective
from distill_jax.tasks.classification.splits import Examples
from distill_jax.training.state import Params

EXAMPLES = 8
_ROUND_TO = 8
"""Batches of the probe have lengths that are multiples, so that tasks share compilations."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """The same few examples twice.

    Attributes:
      little: padded as little as can be.
      much: with longer rows, where the models have positions for them, and more empty rows.
    """

    little: Batch
    much: Batch


def take_probe(table: Examples, most_tokens: int, among_N: np.ndarray | None = None) -> Probe:
    """A few examples of the shorter half, of different lengths, with labels and without.

    Args:
      most_tokens: positions that student and teacher have.
      among_N: bool [N], of which rows; None for all.
    """
    order = np.argsort(table.lengths_N, kind="stable")
    if among_N is not None:
        order = order[among_N[order]]
    with_labels = order[table.labels_N[order] >= 0]
    rows = np.unique(np.concatenate([_spread(with_labels), _spread(order)])).astype(np.int32)
    longest = int(table.lengths_N[rows].max())
    length = min(-(-longest // _ROUND_TO) * _ROUND_TO, most_tokens)
    longer = min(length + _ROUND_TO, most_tokens)
    return Probe(
        table.batch(rows, length, 2 * EXAMPLES), table.batch(rows, longer, 2 * EXAMPLES + 3)
    )


def retold(probe: Probe, table: Examples) -> Probe:
    """The examples of a probe as another tokeniser reads them.

    Args:
      table: the same rows.
    """
    ids_B = np.asarray(probe.little.example_ids_B)
    rows = ids_B[ids_B >= 0]
    longest = int(table.lengths_N[rows].max())
    return Probe(
        table.batch(rows, longest, len(ids_B)),
        table.batch(rows, longest, len(probe.much.example_ids_B)),
    )


@dataclasses.dataclass(frozen=True)
class LoneTerm:
    """A term of an objective by itself, at the step where its weight is highest.

    Attributes:
      label: of the term in its objective.
      weight: the highest.
      objective: of this term alone.
      numbers: its numbers at that step, with weight 1.
    """

    label: str
    weight: float
    objective: ResolvedObjective
    numbers: dict[str, Any]


def terms_that_count(objective: ResolvedObjective, steps: int) -> list[LoneTerm]:
    """Each term whose weight is not 0 all the way."""
    every = range(0, steps + 1, -(-steps // 100))
    counting = []
    for term, source in zip(objective.terms, objective.objective.terms, strict=True):
        alone = dataclasses.replace(
            objective,
            objective=Objective((source,)),
            terms=(dataclasses.replace(term, label=term.name),),  # not kl_2: equal terms are one
        )
        several = (alone.numbers(step, steps)[term.name] for step in every)
        numbers = max(several, key=lambda own: float(own["weight"]))
        if (weight := float(numbers["weight"])) > 0:
            unweighted = {term.name: {**numbers, "weight": np.float32(1)}}
            counting.append(LoneTerm(term.label, weight, alone, unweighted))
    return counting


def nudged(params: Params) -> Params:
    """Parameters with a little noise, the same every time."""
    rng = np.random.default_rng(0)

    def noisy(leaf: Any) -> np.ndarray:
        noise = rng.random(np.shape(leaf), np.float32) - np.float32(0.5)
        return np.asarray(leaf, np.float32) + np.float32(0.05) * noise

    return jax.tree.map(noisy, params)


@dataclasses.dataclass(frozen=True)
class Programs:
    """What is compiled, for all tables of a process.

    Attributes:
      forward: (config, params, batch) -> the whole output.
      forward_and_pull: the same arguments -> the output, and its vector-Jacobian product.
      reached: (that product, a gradient of the output) -> for each parameter, whether any element
        of its gradient is not 0, and the norm of the whole gradient.
      value: (objective, own parameters, numbers, student, teacher, batch) -> (sum, count) of terms.
      slope: the same arguments -> the same, and the total's gradients with respect to own
        parameters and the student's output.
    """

    forward: Any
    forward_and_pull: Any
    reached: Any
    value: Any
    slope: Any


@functools.cache
def programs() -> Programs:
    """Compiled in haste where that is known to work: they run once or twice."""
    hasty = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None

    def forward(config: ModelConfig, params: Params, batch: Batch) -> ModelOutput:
        model: Any = build_model(config)
        return model.apply({"params": params}, batch, train=False)

    def forward_and_pull(
        config: ModelConfig, params: Params, batch: Batch
    ) -> tuple[ModelOutput, Any]:
        return jax.vjp(lambda own: forward(config, own, batch), params)

    def reached(pull: Any, slope: ModelOutput) -> tuple[Params, jax.Array]:
        gradient = pull(slope)[0]
        return jax.tree.map(lambda leaf: jnp.any(leaf != 0), gradient), optax.tree.norm(gradient)

    def value(objective: ResolvedObjective, *arguments: Any) -> Parts:
        return objective(*arguments)[1]

    def slope(
        objective: ResolvedObjective, own: Any, numbers: Any, student: ModelOutput, *rest: Any
    ) -> tuple[Parts, Any, ModelOutput]:
        def total(own: Any, student: ModelOutput) -> tuple[jax.Array, Parts]:
            return objective(own, numbers, student, *rest)

        gradients, parts = jax.grad(total, argnums=(0, 1), has_aux=True)(own, student)
        return parts, *gradients

    def compiled(function: Callable[..., Any], *static: int) -> Any:
        return jax.jit(function, static_argnums=static, compiler_options=hasty)

    return Programs(
        forward=compiled(forward, 0),
        forward_and_pull=compiled(forward_and_pull, 0),
        reached=compiled(reached),
        value=compiled(value, 0),
        slope=compiled(slope, 0),
    )


def add_outputs(whole: ModelOutput, part: ModelOutput) -> ModelOutput:
    """Gradients of outputs; ``part`` may lack layers that ``whole`` has."""
    slopes = dict(jax.tree_util.tree_leaves_with_path(part))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + slopes[path] if path in slopes else leaf, whole
    )


def _spread(rows: np.ndarray) -> np.ndarray:
    """A few of the first half of ``rows``, evenly spread; all of them if they are few."""
    half = rows[: max(EXAMPLES, -(-len(rows) // 2))]
    return half[np.unique(np.linspace(0, len(half) - 1, min(len(half), EXAMPLES)).astype(int))]
