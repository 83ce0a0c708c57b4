"""BitFit: biases are trained, and the head; nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from distill_jax.training.ingredients.base import Ingredient, register
from distill_jax.training.optimizer import OptimizerConfig

HEAD = "classifier|pooling"
"""What stands above the last layer of a model: new in every task, and always trained."""


@register
@dataclass(frozen=True)
class BitFit(Ingredient):
    """Ben Zaken et al. 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based
    Masked Language-models": the bias terms, those of layer norms too, and the classifier."""

    kind: ClassVar[str] = "bitfit"
    place: ClassVar[str] = "parameters"

    def optimizer(self, config: OptimizerConfig) -> OptimizerConfig:
        return frozen_but(config, rf"({HEAD})/|(.*/)?bias$")


def frozen_but(config: OptimizerConfig, trained: str) -> OptimizerConfig:
    """The optimiser that moves only what has a path that begins as a regular expression says."""
    return replace(config, rates=(*config.rates, (rf"^(?!{trained})", 0.0)))
