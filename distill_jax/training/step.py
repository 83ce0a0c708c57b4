"""The heart: one pure step, compiled once for each shape of batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.typing import ArrayLike

from distill_jax.core.types import Batch, ModelOutput
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.training.state import TrainState


@struct.dataclass
class StepNumbers:
    """All that may change between steps and cells without a new compilation.

    Attributes:
      objective: weights, temperatures and the like, from ``ResolvedObjective.numbers``.
      learning_rate: float32 scalar.
      seed: uint32 scalar; dropout's key is a pure function of seed and step.
    """

    objective: Any
    learning_rate: ArrayLike
    seed: ArrayLike


@struct.dataclass
class StepMetrics:
    """What one step has to tell; scalars that stay on the device until somebody reads them.

    Attributes:
      loss: the objective's total.
      terms: term -> (sum, count), unweighted, over the examples that the term speaks of.
      grad_norm: global norm over all trained parameters, before clipping.
    """

    loss: jax.Array
    terms: dict[str, tuple[jax.Array, jax.Array]]
    grad_norm: jax.Array


Step = Callable[
    [TrainState, Batch, ModelOutput | None, StepNumbers], tuple[TrainState, StepMetrics]
]


def make_step(
    model: nn.Module, objective: ResolvedObjective, optimizer: optax.GradientTransformation
) -> Step:
    """The pure step ``(state, batch, teacher_output, numbers) -> (state, metrics)``.

    It does not know where the teacher's outputs came from, nor on how many devices it runs:
    ``jit`` over a mesh gives it global arrays, so every sum is over the global batch.
    """

    def step(
        state: TrainState, batch: Batch, teacher_output: ModelOutput | None, numbers: StepNumbers
    ) -> tuple[TrainState, StepMetrics]:
        dropout_key = jax.random.fold_in(jax.random.key(numbers.seed), state.step)

        def loss(trained: dict[str, Any]) -> tuple[jax.Array, dict[str, Any]]:
            student_output = model.apply(
                {"params": trained["student"]}, batch, train=True, rngs={"dropout": dropout_key}
            )
            assert isinstance(student_output, ModelOutput)
            return objective(
                trained["losses"], numbers.objective, student_output, teacher_output, batch
            )

        (total, terms), grads = jax.value_and_grad(loss, has_aux=True)(state.trained)
        directions, opt_state = optimizer.update(grads, state.opt_state, state.trained)
        rate = jnp.asarray(numbers.learning_rate)
        updates = jax.tree.map(lambda d: -rate * d, directions)
        trained = optax.apply_updates(state.trained, updates)
        new_state = TrainState(
            step=state.step + jnp.int32(1),
            params=trained["student"],
            loss_params=trained["losses"],
            opt_state=opt_state,
        )
        return new_state, StepMetrics(total, terms, optax.tree.norm(grads))

    return step


class CompiledStep:
    """A step under ``jit`` with its state donated; counts how often it had to be traced.

    One object serves every run that shares a student shape and an objective's structure, so
    that a table's second seed and second temperature compile nothing.
    """

    def __init__(self, step: Step) -> None:
        self.traces = 0

        def counted(
            state: TrainState,
            batch: Batch,
            teacher_output: ModelOutput | None,
            numbers: StepNumbers,
        ) -> tuple[TrainState, StepMetrics]:
            self.traces += 1
            return step(state, batch, teacher_output, numbers)

        self._jitted = jax.jit(counted, donate_argnums=0)

    def __call__(
        self,
        state: TrainState,
        batch: Batch,
        teacher_output: ModelOutput | None,
        numbers: StepNumbers,
    ) -> tuple[TrainState, StepMetrics]:
        return self._jitted(state, batch, teacher_output, numbers)
