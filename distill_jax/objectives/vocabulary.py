"""The outputs of a language model: logits of a vocabulary at the positions that are asked for.

Each position counts as an example does elsewhere; ``ce`` is that of the token there. Losses on
hidden states and attention are read as of a classifier, at all positions of the texts.

Shapes: B texts, P positions, V tokens; ``logits`` [B, P, V], ``targets`` int32 [B, P], negative
where nothing is asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.types import ModelOutput, ModelShape
from distill_jax.losses.numeric import floats
from distill_jax.losses.teachers import mean_logits, mean_probabilities
from distill_jax.objectives.feeds import logits_of
from distill_jax.objectives.predictions import Predictions, refuse_vectors
from distill_jax.objectives.readers import Loss, Options, Reader
from distill_jax.objectives.registry import Spec


@dataclasses.dataclass(frozen=True)
class VocabularyOutputs(Predictions):
    """A token of a vocabulary a position."""

    combines: ClassVar[bool] = True
    losses: ClassVar[tuple[str, ...]] = (
        "ce",
        "soft_ce",
        "kl",
        "reverse_kl",
        "jeffreys",
        "js",
        "generalized_jsd",
        "skew_kl",
        "skew_reverse_kl",
        "tvd",
        "topk_kl",
        "mse_logits",
        "kl_infinite_temperature",
        "cosine_logits",
    )
    instead: ClassVar[Mapping[str, str]] = {"mse_regression": "mse_logits", "focal": "ce"}
    says: ClassVar[str] = "a token of a vocabulary"

    def where(self, batch: Any, labelled: bool) -> Array:
        """bool [B * P]."""
        return (batch.where_B[:, None] & batch.asked_BP).reshape(-1)

    def labels(self, batch: Any) -> Array:
        """int32 [B * P]."""
        return jnp.maximum(jnp.asarray(batch.targets), 0).reshape(-1)

    def values(self, loss: Loss, sides: list[Any], batch: Any, *, labelled: bool) -> Array:
        """[B * P]."""
        args: list[Any] = [_rows(logits_of(side)) for side in sides]
        if labelled:
            args.append(self.labels(batch))
        return loss(*args, where=self.where(batch, labelled))

    def reader(self, spec: Spec, given: Options, student: ModelShape) -> Reader:
        if given.get("class_weights"):
            raise UserError("class_weights weigh classes, and a language model says tokens.")
        return super().reader(spec, given, student)

    def check_vectors(self, spec: Spec) -> None:
        refuse_vectors(spec)

    def combined(self, teachers: Sequence[Any], how: str, weights_K: Array, T: Any) -> Any:
        logits_KBPV = jnp.stack(floats(*map(logits_of, teachers)))
        flat_KNV = logits_KBPV.reshape(len(teachers), -1, logits_KBPV.shape[-1])
        one_NV = (
            mean_logits(flat_KNV, weights=weights_K)
            if how == "mean_logits"
            else mean_probabilities(flat_KNV, weights=weights_K, T=T)
        )
        return ModelOutput(logits_BC=one_NV.reshape(logits_KBPV.shape[1:]))


VOCABULARY = VocabularyOutputs()


def _rows(logits_BPV: Array) -> Array:
    return logits_BPV.reshape(-1, logits_BPV.shape[-1])
