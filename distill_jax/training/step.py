"""The heart: one pure step, compiled once for each shape of batch."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.typing import ArrayLike

from distill_jax.core.types import Batch, Output
from distill_jax.objectives.resolve import ResolvedObjective
from distill_jax.training.finite import guard
from distill_jax.training.ingredients.attack import shifted
from distill_jax.training.ingredients.base import Around, Passed
from distill_jax.training.parts import one_pass, rows_of
from distill_jax.training.pruning import Pruning
from distill_jax.training.recipe import PLAIN, Recipe
from distill_jax.training.state import Params, TrainState, in_float32, like

ATTACK = 2
"""Folded into dropout's key for what an attack draws; R-Drop's second pass folds in 1."""


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
      applied: whether loss and gradients were finite and the update was made, see ``finite``.
    """

    loss: jax.Array
    terms: dict[str, tuple[jax.Array, jax.Array]]
    grad_norm: jax.Array
    applied: jax.Array


@struct.dataclass
class Gradients:
    """What the first half of a step hands to the second.

    Attributes:
      trained: of the total, a tree like ``TrainState.trained``; float32.
      loss, terms: see ``StepMetrics``.
    """

    trained: dict[str, Params]
    loss: jax.Array
    terms: dict[str, tuple[jax.Array, jax.Array]]


Step = Callable[[TrainState, Batch, Output | None, StepNumbers], tuple[TrainState, StepMetrics]]


@dataclass(frozen=True)
class TwoHalves:
    """A ``Step`` whose halves can be compiled apart: the second is the same for all batches.

    Attributes:
      gradients: (trained, steps before, batch, teacher's output, numbers) -> gradients.
      update: (state, gradients, learning rate) -> (state, metrics).
    """

    gradients: Callable[[dict[str, Params], Any, Batch, Output | None, StepNumbers], Gradients]
    update: Callable[[TrainState, Gradients, Any], tuple[TrainState, StepMetrics]]

    def __call__(
        self, state: TrainState, batch: Batch, teacher_output: Output | None, numbers: StepNumbers
    ) -> tuple[TrainState, StepMetrics]:
        found = self.gradients(state.trained, state.step, batch, teacher_output, numbers)
        return self.update(state, found, numbers.learning_rate)


def make_step(
    model: Any,
    objective: ResolvedObjective,
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    axis: str | None = None,
    gathered: jax.sharding.Sharding | None = None,
    skip_nonfinite: bool = False,
    pruning: Pruning | None = None,
    recipe: Recipe = PLAIN,
    embeddings: tuple[str, ...] = (),
    stopped: Callable[[Params], Params] | None = None,
) -> TwoHalves:
    """The pure step ``(state, batch, teacher_output, numbers) -> (state, metrics)``.

    It does not know where the teacher's outputs came from (of several teachers a tuple, in the
    objective's order), nor on how many devices it runs: ``jit`` over a mesh gives it global arrays,
    so every sum is over the global batch. The losses, their sums and the optimiser are float32,
    whatever the model computes in.

    Args:
      model: a Flax module, or what is applied like one (``models.recommenders.build``).
      accumulate: parts into which the batch is cut for the model, one after another; it must
        divide the batch. The losses see the whole batch, so the result is that of one part.
      axis: of ``pmap``, whose devices each hold a part of the batch; None under ``jit``.
      gathered: where the student's parameters are whole, if they are kept cut: the compiler then
        gathers them where they are used and cuts their gradients again.
      skip_nonfinite: leave out a step whose loss or gradients are not finite; else such a step
        freezes the state (see ``finite``).
      pruning: how weights go, by the state's masks; None where none does.
      recipe: what is done beside the objective.
      embeddings: where the student's embeddings of tokens are, for recipes that shift them.
      stopped: see ``optimizer.stopping_at_frozen``.
    """

    gradients = _gradient_half(
        model,
        objective,
        recipe,
        embeddings,
        accumulate=accumulate,
        axis=axis,
        gathered=gathered,
        stopped=stopped,
    )
    return TwoHalves(gradients, _update_half(optimizer, pruning, skip_nonfinite))


def _gradient_half(
    model: Any,
    objective: ResolvedObjective,
    recipe: Recipe,
    embeddings: tuple[str, ...],
    *,
    accumulate: int,
    axis: str | None,
    gathered: jax.sharding.Sharding | None,
    stopped: Callable[[Params], Params] | None,
) -> Callable[[dict[str, Params], Any, Batch, Output | None, StepNumbers], Gradients]:
    """The first half of ``make_step``, whose arguments these are."""

    def gradients(
        trained: dict[str, Params],
        steps_before: jax.Array,
        batch: Batch,
        teacher_output: Output | None,
        numbers: StepNumbers,
    ) -> Gradients:
        dropout_key = jax.random.fold_in(jax.random.key(numbers.seed), steps_before)

        def say(params: Params, part: Batch, key: jax.Array, shift: Any) -> Output:
            if stopped is not None:
                params = stopped(params)
            if gathered is not None:
                params = jax.lax.with_sharding_constraint(params, gathered)
            with shifted(embeddings, shift):
                output = model.apply({"params": params}, part, train=True, rngs={"dropout": key})
            return in_float32(objective.student_capture.select(output))

        def value(
            loss_params: Params, said: Output, teacher: Output | None, whole: Batch
        ) -> tuple[jax.Array, dict[str, Any]]:
            return objective(loss_params, numbers.objective, said, teacher, whole)

        speak, value_of = recipe.says(say), recipe.value(value)

        def once(shift: jax.Array | None) -> Passed:
            return one_pass(
                lambda params, part, own: speak(params, part, dropout_key, own),
                value_of,
                trained,
                batch,
                shift,
                teacher_output,
                accumulate=accumulate,
                axis=axis,
            )

        if recipe.attacks:
            around = _around(trained["student"], embeddings, batch, axis, dropout_key)
            passed = recipe.gradients(once, around)
        else:
            passed = once(None)
        return Gradients(in_float32(passed.grads), passed.total, passed.terms)

    return gradients


@lru_cache(maxsize=64)
def _update_half(
    optimizer: optax.GradientTransformation, pruning: Pruning | None, skip_nonfinite: bool
) -> Callable[[TrainState, Gradients, Any], tuple[TrainState, StepMetrics]]:
    """The second half of ``make_step``: one function, so one program, for all objectives whose
    trained parameters are alike."""

    def update(
        state: TrainState, found: Gradients, rate: ArrayLike
    ) -> tuple[TrainState, StepMetrics]:
        trained = found.trained
        if pruning is not None:
            trained = {**trained, "student": pruning.of_the_left(trained["student"], state.masks)}
        new_state = _updated(state, trained, optimizer, rate)
        if pruning is not None:
            new_state = pruning.pruned(new_state, state.params, found.trained["student"])
        norm = optax.tree.norm(trained)
        new_state, applied = guard(new_state, state, found.loss, norm, skip=skip_nonfinite)
        return new_state, StepMetrics(found.loss, found.terms, norm, applied)

    return update


def _around(
    params: Any, embeddings: tuple[str, ...], batch: Batch, axis: str | None, key: jax.Array
) -> Around:
    """What an attack may know of a batch."""
    for name in embeddings:
        params = params[name]
    zeros_BTD = jnp.zeros((*batch.where_BT.shape, params.shape[-1]), jnp.float32)
    drawn = jax.random.fold_in(key, ATTACK)
    return Around(zeros_BTD, batch.where_BT, rows_of(batch, axis), drawn)


def _updated(
    state: TrainState, grads: Any, optimizer: optax.GradientTransformation, rate: ArrayLike
) -> TrainState:
    """The state after an update in float32, its parameters in their own dtypes."""
    masters = in_float32(state.trained)
    directions, opt_state = optimizer.update(grads, state.opt_state, masters)
    rate = jnp.asarray(rate)
    updates = jax.tree.map(lambda d: -rate * d, directions)
    trained = like(state.trained, optax.apply_updates(masters, updates))
    return TrainState(
        step=state.step + jnp.int32(1),
        params=trained["student"],
        loss_params=trained["losses"],
        opt_state=opt_state,
        masks=state.masks,
        rows=state.rows,
    )


class CompiledStep:
    """A step under ``jit`` with its state donated; counts how often it had to be traced.

    One object serves every run that shares a student shape and an objective's structure, so
    that a table's second seed and second temperature compile nothing. States come and go in one
    placement: that of the first. On one CPU, where compiling takes longer than many steps, the
    halves of a step are two programs, and each further shape of batches compiles the first alone;
    the second knows nothing of the objective's terms, and serves others too.
    """

    def __init__(self, step: Step) -> None:
        self.traces = 0
        self._step = step
        self._first: Any = None
        self._second: Any = None

    def __call__(
        self,
        state: TrainState,
        batch: Batch,
        teacher_output: Output | None,
        numbers: StepNumbers,
    ) -> tuple[TrainState, StepMetrics]:
        self._make(state)
        if self._second is None:
            return self._first(state, batch, teacher_output, numbers)
        found = self._first(state.trained, state.step, batch, teacher_output, numbers)
        state, metrics = self._second(state, found.replace(terms={}), numbers.learning_rate)
        return state, metrics.replace(terms=found.terms)

    def prepare(self, state: TrainState, calls: Sequence[tuple[Any, ...]]) -> None:
        """Compile the programs of some calls side by side, on all cores.

        Args:
          state: that any of them starts from; it is left as it is.
          calls: the other arguments of each.
        """
        self._make(state)
        placed = _placement(state.step)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            waiting = []
            for batch, said, numbers in calls:
                given: tuple[Any, ...] = (state,)
                if self._second is not None:
                    given = (state.trained, state.step)
                lowered = self._first.lower(*given, batch, said, numbers)
                waiting.append(pool.submit(lowered.compile))
                if self._second is not None and len(waiting) == 1:
                    found = jax.tree.map(
                        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed),
                        lowered.out_info.replace(terms={}),
                    )
                    rest = self._second.lower(state, found, numbers.learning_rate)
                    waiting.append(pool.submit(rest.compile))
            for each in waiting:
                each.result()

    def _make(self, state: TrainState) -> None:
        if self._first is None:
            self._first, self._second = self._compile(state)

    def _compile(self, state: TrainState) -> tuple[Any, Any]:
        """The programs: of the whole step and None, or of its halves."""
        placed = jax.tree.map(_placement, state)
        if isinstance(self._step, TwoHalves) and on_one_cpu(state):
            there = placed.step
            first = jax.jit(self._counted(self._step.gradients), out_shardings=there)
            second = jax.jit(self._step.update, donate_argnums=0, out_shardings=(placed, None))
            return first, second
        whole = self._counted(self._step)
        return jax.jit(whole, donate_argnums=0, out_shardings=(placed, None)), None

    def _counted(self, program: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.traces += 1
            return program(*arguments)

        return counted


def _placement(x: Any) -> Any:
    return x.sharding if isinstance(x, jax.Array) else None


def on_one_cpu(tree: Any) -> bool:
    """Whether arrays are all on the host, or on one device that is a CPU."""
    placed = [x.sharding for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    devices: set[Any] = {device for sharding in placed for device in sharding.device_set}
    if not devices:
        return jax.default_backend() == "cpu"
    return len(devices) == 1 and devices.pop().platform == "cpu"


class PmappedStep(CompiledStep):
    """The same for a step made with ``axis``: a program a device, parameters whole on each.

    Batches are stacked by device, [devices, rows, ...].
    """

    def __init__(self, step: Step, axis: str, devices: list[jax.Device]) -> None:
        super().__init__(step)
        self._axis, self._devices = axis, devices

    def _compile(self, state: TrainState) -> tuple[Any, Any]:
        program = jax.pmap(
            self._counted(self._step),
            axis_name=self._axis,
            in_axes=(None, 0, 0, None),
            out_axes=(None, None),
            donate_argnums=0,
            devices=self._devices,
        )
        return program, None
