"""How well a language model says the tokens that it is asked for.

Scores are means over tokens; tests over texts weigh a text by how many of its tokens are asked for.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from distill_jax.core.distributed import to_host
from distill_jax.core.errors import UserError
from distill_jax.core.language_types import LanguageBatch
from distill_jax.core.mesh import shard_batch
from distill_jax.core.sharding import ALONG_WIDTH, place
from distill_jax.data.language_tables import LanguageTable
from distill_jax.data.plan import plan_in_order

MEASURED = ("nll", "top1", "kl")


@dataclasses.dataclass(frozen=True, eq=False)
class TextScores:
    """Of each text that is asked for a token at least, in the order of the table.

    Attributes:
      counts_N: int64, its tokens that are asked for.
      sums: measure -> float64 [N], the sum over them: ``nll``, negative log-likelihood in nats;
        ``top1``, how often the token is the likeliest; ``kl``, KL(teacher || model), where there is
        a teacher.
    """

    counts_N: np.ndarray
    sums: dict[str, np.ndarray]

    @property
    def means(self) -> dict[str, float]:
        """Over all tokens; ``perplexity`` is exp of the first."""
        total = self.counts_N.sum()
        found = {name: float(sum_N.sum() / total) for name, sum_N in self.sums.items()}
        return {**found, "perplexity": math.exp(min(found["nll"], 700.0))}

    def by_text(self, name: str) -> np.ndarray:
        """float64 [N], a measure's mean over the tokens of each text."""
        return self.sums[name] / self.counts_N


Measure = Callable[[Any, Any, LanguageBatch], dict[str, jax.Array]]
"""(parameters, the teacher's or None, batch) -> sums by text, [B]."""


def measure_of(model: nn.Module, teacher: nn.Module | None = None) -> Measure:
    """The compiled measurement; compile it once and keep it."""

    def measure(params: Any, heard: Any, batch: LanguageBatch) -> dict[str, jax.Array]:
        said: Any = model.apply({"params": params}, batch, train=False)
        logp_BPV = jax.nn.log_softmax(said.logits_BC.astype(jnp.float32))
        where_BP, targets_BP = batch.asked_BP, jnp.maximum(jnp.asarray(batch.targets), 0)
        logp_BP = jnp.take_along_axis(logp_BPV, targets_BP[:, :, None], axis=-1)[..., 0]
        right_BP = jnp.argmax(logp_BPV, axis=-1) == targets_BP
        found = {"nll": -logp_BP, "top1": right_BP.astype(jnp.float32)}
        if teacher is not None:
            theirs: Any = teacher.apply({"params": heard}, batch, train=False)
            log_BPV = jax.nn.log_softmax(theirs.logits_BC.astype(jnp.float32))
            found["kl"] = jnp.sum(jnp.exp(log_BPV) * (log_BPV - logp_BPV), axis=-1)
        return {
            name: jnp.sum(values_BP, axis=-1, where=where_BP) for name, values_BP in found.items()
        }

    return jax.jit(measure)


def score_texts(
    measure: Measure,
    params: Any,
    heard: Any,
    table: LanguageTable,
    *,
    shape_lengths: Sequence[int],
    batch_size: int,
    mesh: Mesh,
    on_batch: Callable[[], None] = lambda: None,
) -> TextScores:
    """The scores of a table.

    Args:
      measure: from ``measure_of``.
      heard: parameters of the teacher, None without.
      on_batch: called after every batch; may raise to stop.

    Raises:
      UserError: where no text is asked anything.
    """
    params = place(params, ALONG_WIDTH, mesh)
    heard = None if heard is None else place(heard, ALONG_WIDTH, mesh)
    counts_N = np.zeros(len(table), np.int64)
    sums: dict[str, np.ndarray] = {}
    for planned in plan_in_order(table.lengths_N, shape_lengths, batch_size=batch_size):
        batch = table.asked(table.batch(planned.rows, planned.length, batch_size))
        found = to_host(measure(params, heard, shard_batch(batch, mesh)))
        rows = planned.rows
        counts_N[rows] = np.asarray(batch.asked_BP).sum(axis=1)[: len(rows)]
        for name, sum_B in found.items():
            own = sums.setdefault(name, np.zeros(len(table), np.float64))
            own[rows] = np.asarray(sum_B, np.float64)[: len(rows)]
        on_batch()
    asked = np.flatnonzero(counts_N)
    if not len(asked):
        raise UserError("no text has a token that could be asked for: all of them are unknown")
    return TextScores(counts_N[asked], {name: sum_N[asked] for name, sum_N in sums.items()})
