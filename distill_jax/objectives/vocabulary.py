"""The outputs of a language model: logits of a vocabulary at the positions that are asked for.

Each position is an example of the losses on logits; ``ce`` is that of the token there. Losses on hidden
states and attention are read as of a classifier, at all positions of the texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.language_types import LanguageBatch
from distill_jax.core.types import ModelOutput, ModelShape
from distill_jax.losses.numeric import floats
from distill_jax.losses.teachers import mean_logits, mean_probabilities
from distill_jax.objectives.feeds import Shape, check_classes, logits_of
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.readers import Loss, Options, Params, Reader, Said
from distill_jax.objectives.registry import Spec


@dataclasses.dataclass(frozen=True)
class PositionReader(Reader):
    """A loss on logits, a value a position.

    Attributes:
      hears: whether it looks at a teacher.
      labelled: whether it looks at the token itself.
    """

    hears: bool
    labelled: bool

    def where(self, batch: LanguageBatch, teacher: Any) -> Array:
        return batch.where_B[:, None] & _wanted(batch)

    def values(self, loss: Loss, params: Params, said: Said, teacher: Any, draw: Any) -> Array:
        where_BP = self.where(said.batch, teacher)
        arrays = [_rows(logits_of(said.output))]
        if self.hears:
            arrays.append(_rows(logits_of(teacher)))
        if self.labelled:
            arrays.append(said.batch.targets_BP.reshape(-1))
        values_N = loss(*arrays, where=where_BP.reshape(-1))
        return values_N.reshape(where_BP.shape)


@dataclasses.dataclass(frozen=True)
class VocabularyOutputs(Outputs):
    """A language model's."""

    name: ClassVar[str] = "vocabulary"
    combines: ClassVar[bool] = True

    def options_of(self, feed: Any) -> Any:
        return {} if feed.reads_logits else feed.options()

    def refusal(self, spec: Spec) -> str:
        return f"{super().refusal(spec)} A language model takes {', '.join(self.names())}."

    def fit(self, spec: Spec, given: Options, student: ModelShape, teacher: Shape) -> Reader:
        if not spec.feed.reads_logits:
            return spec.feed.bind(given, student, teacher)
        if spec.feed.needs_teacher:
            check_classes(student, teacher)
        if given.get("class_weights"):
            raise UserError("class_weights weigh classes, and a language model says tokens.")
        return PositionReader(spec.feed.needs_teacher, spec.feed.labelled)

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


def _wanted(batch: LanguageBatch) -> Array:
    assert batch.target_where_BP is not None, "a batch of a language model asks for tokens"
    return batch.target_where_BP


def _rows(logits_BPV: Array) -> Array:
    return logits_BPV.reshape(-1, logits_BPV.shape[-1])
