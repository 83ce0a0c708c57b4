"""Ingredients of recipes: what a training does beside its objective. A kind is one file.

Such a file has a frozen dataclass under ``register``, whose fields are the options that its text
may name, ``rdrop(2.0)``, and is named in ``kinds``. It changes what it has to and leaves the rest:
how the student speaks, what is made of that, how gradients are taken, what is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import jax

from distill_jax.core.calls import written
from distill_jax.core.types import Batch, Output
from distill_jax.training.optimizer import OptimizerConfig
from distill_jax.training.state import Params

Terms = dict[str, tuple[jax.Array, jax.Array]]
Say = Callable[[Params, Batch, jax.Array, Any], Any]
"""(student's parameters, rows of the batch, dropout's key, shift [B, T, D] of their embeddings or
None) -> what the student says, a pytree with a row an example and ``split_shared`` as an
``Output`` has it."""
Value = Callable[[Params, Any, Output | None, Batch], tuple[jax.Array, Terms]]
"""(the losses' own parameters, what the student says, the teacher's output, batch) -> the total and
its terms."""


class Passed(NamedTuple):
    """What one pass over a batch gives.

    Attributes:
      total, terms: see ``StepMetrics``.
      grads: of all that is trained.
      shift_BTD: gradient of the shift of the embeddings; None where nothing was shifted.
    """

    total: jax.Array
    terms: Terms
    grads: Any
    shift_BTD: jax.Array | None


class Around(NamedTuple):
    """What an attack may know of a batch.

    Attributes:
      zeros_BTD: no shift of its embeddings, float32.
      where_BT: its real tokens.
      rows_B: int32, the place of each row in the batch of all devices.
      key: of what is drawn, a function of seed and step.
    """

    zeros_BTD: jax.Array
    where_BT: jax.Array
    rows_B: jax.Array
    key: jax.Array


Once = Callable[[jax.Array], Passed]
"""(shift of the embeddings [B, T, D]) -> one pass."""


class Adapter(Protocol):
    """Another set of parameters for the same model."""

    def start(self, params: Params, seed: int) -> Params:
        """What is trained instead of a model's parameters."""

    def merged(self, params: Params) -> Params:
        """The model's parameters again; pure, works under ``jit`` and ``vmap``."""


@dataclass(frozen=True)
class Adapted:
    """A model that is applied to the parameters of an adapter.

    Attributes:
      model: a Flax module, or what is applied like one.
    """

    model: Any
    adapter: Adapter

    def apply(self, variables: Any, *args: Any, **options: Any) -> Any:
        """As the model's."""
        merged = self.adapter.merged(variables["params"])
        return self.model.apply({**variables, "params": merged}, *args, **options)


@dataclass(frozen=True)
class Ingredient:
    """One ingredient. What it does not override it leaves as it is.

    Attributes:
      kind: its name.
      place: of two with the same place a recipe has one at most.
      attacks: whether ``gradients`` is its own; it then shifts embeddings of tokens.
    """

    kind: ClassVar[str] = ""
    place: ClassVar[str] = ""
    attacks: ClassVar[bool] = False

    @property
    def adapter(self) -> Adapter | None:
        """Other parameters that are trained instead of the model's."""
        return None

    def check(self, num_classes: int, embeddings: tuple[str, ...]) -> None:
        """Raises ``UserError`` for a student that cannot be trained so.

        Args:
          num_classes: of which an example has one; 0 where the task has no such.
          embeddings: where its embeddings of tokens are, () where nowhere.
        """

    def optimizer(self, config: OptimizerConfig) -> OptimizerConfig:
        """How parameters are moved."""
        return config

    def says(self, say: Say) -> Say:
        """How the student speaks."""
        return say

    def value(self, value: Value) -> Value:
        """What is made of what it says."""
        return value

    def gradients(self, once: Once, around: Around) -> Passed:
        """How gradients are taken, for one that ``attacks``."""
        return once(around.zeros_BTD)

    def __str__(self) -> str:
        """As the grammar reads it."""
        return written(self)


_KINDS: dict[str, type[Ingredient]] = {}
Kind = TypeVar("Kind", bound=type[Ingredient])


def register(kind: Kind) -> Kind:
    """Make a kind of ingredients known under its name."""
    _KINDS[kind.kind] = kind
    return kind


def registered() -> dict[str, type[Ingredient]]:
    """The kinds that are known so far, by name."""
    return dict(_KINDS)
