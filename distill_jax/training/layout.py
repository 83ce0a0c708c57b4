"""How a run lies on its devices: state, batches and numbers, put there before each step."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_jax.core.mesh import DATA_AXIS, FSDP_AXIS, batch_sharding, put
from distill_jax.core.sharding import ShardingRules, shardings
from distill_jax.core.types import Batch, Output
from distill_jax.training.state import Params, TrainState, in_float32
from distill_jax.training.step import CompiledStep, PmappedStep, Step

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Layout:
    """One step function, several ways of running it.

    Attributes:
      mesh: with the axes ``data`` and ``fsdp``.
      parallel: ``jit``: one program over the mesh; ``pmap``: a program a device, which makes its
        parameters whole on each.
      rules: how arrays are cut under ``jit``.
    """

    mesh: Mesh
    parallel: Literal["jit", "pmap"] = "jit"
    rules: ShardingRules = field(default_factory=ShardingRules)

    @cached_property
    def _mesh(self) -> Mesh:
        """Of one axis under ``pmap``, as its outputs are."""
        if self.parallel == "jit":
            return self.mesh
        return Mesh(self.mesh.devices.reshape(-1), (DATA_AXIS,))

    @property
    def _everywhere(self) -> NamedSharding:
        return NamedSharding(self._mesh, PartitionSpec())

    @property
    def gathered(self) -> NamedSharding | None:
        """Where ``make_step`` wants parameters that are cut; None where they are not."""
        return self._everywhere if self.mesh.shape[FSDP_AXIS] > 1 else None

    @property
    def axis(self) -> str | None:
        """What ``make_step`` wants to know of ``pmap``."""
        return DATA_AXIS if self.parallel == "pmap" else None

    def compile(self, step: Step) -> CompiledStep:
        """A step, made with this layout's ``axis``, ready to be called."""
        if self.parallel == "pmap":
            return PmappedStep(step, DATA_AXIS, list(self.mesh.devices.flat))
        return CompiledStep(step)

    def new_state(
        self,
        params: Params,
        loss_params: Params,
        optimizer: optax.GradientTransformation,
        masks: Params | None = None,
        rows: Params | None = None,
    ) -> TrainState:
        """The state before the first step, born in parts: no device ever holds all of it.

        Args:
          params, loss_params, masks, rows: on the host, or on any device; they are copied.
        """
        params, loss_params, masks = jax.tree.map(np.array, (params, loss_params, masks or {}))
        student = self._place(params, self.rules.student)
        losses = self._place(loss_params, self.rules.losses)
        left = self._place(masks, self.rules.student)
        touched = self._place(rows or {}, ())

        def init(trained: dict[str, Params]) -> optax.OptState:
            return optimizer.init(in_float32(trained))

        trained = {"student": student, "losses": losses}
        step = put(np.zeros((), np.int32), self._everywhere)
        if self._mesh.size == 1:  # nothing to cut: no program of its own for every run
            return TrainState(step, student, losses, self._place(init(trained), ()), left, touched)
        shapes = jax.eval_shape(init, trained)
        born = jax.jit(init, out_shardings=self._shardings(shapes, self.rules.optimizer))
        return TrainState(step, student, losses, born(trained), left, touched)

    def put_state(self, state: TrainState) -> TrainState:
        """A state, wherever it is, as ``new_state`` would lay it out."""
        return state.replace(  # type: ignore[attr-defined]
            step=put(state.step, self._everywhere),
            params=self._place(state.params, self.rules.student),
            loss_params=self._place(state.loss_params, self.rules.losses),
            opt_state=self._place(state.opt_state, self.rules.optimizer),
            masks=self._place(state.masks, self.rules.student),
            rows=self._place(state.rows, ()),
        )

    def put_batch(self, batch: Batch, teacher_output: Output | None) -> tuple[Batch, Output | None]:
        """A batch and what the teacher says of it, a part a device.

        Args:
          batch, teacher_output: this process's rows, see ``core.mesh.own_rows``.
        """
        if self.parallel == "pmap":
            return self._stack_by_device((batch, teacher_output))
        where_batch = jax.tree.map(lambda _: batch_sharding(self.mesh), batch)
        whole = jax.tree.map(_of_all_processes, teacher_output)
        where_said = shardings(whole, self.rules.teacher_outputs, self.mesh)
        return jax.tree.map(_put_own, (batch, teacher_output), (where_batch, where_said))

    def put_numbers(self, numbers: Tree) -> Tree:
        """The numbers of a step, the same everywhere."""
        return jax.tree.map(lambda x: put(x, self._everywhere), numbers)

    def _stack_by_device(self, tree: Tree) -> Tree:
        sharding = NamedSharding(self._mesh, PartitionSpec(DATA_AXIS))

        def stack(x: Any) -> jax.Array:
            own_devices = len(sharding.addressable_devices)
            return _put_own(x.reshape(own_devices, -1, *x.shape[1:]), sharding)

        return jax.tree.map(stack, tree)

    def _place(self, tree: Tree, rules: Any) -> Tree:
        return jax.tree.map(put, tree, self._shardings(tree, rules))

    def _shardings(self, tree: Tree, rules: Any) -> Tree:
        return shardings(tree, () if self.parallel == "pmap" else rules, self._mesh)


def _put_own(rows: Any, sharding: NamedSharding) -> jax.Array:
    """Rows that only this process has, as its part of an array of all rows."""
    if sharding.is_fully_addressable:
        return jax.device_put(rows, sharding)
    return jax.make_array_from_process_local_data(sharding, np.asarray(rows))


def _of_all_processes(rows: Any) -> jax.ShapeDtypeStruct:
    """The array whose rows of this process these are."""
    return jax.ShapeDtypeStruct((jax.process_count() * len(rows), *rows.shape[1:]), rows.dtype)
