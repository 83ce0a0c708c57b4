"""Where arrays live: a mesh over all devices, batches cut along all of it.

The axis ``data`` only cuts batches, ``fsdp`` cuts parameters as well (see ``core.sharding``). A
population of models is placed the other way round: members cut along the mesh, batches on each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_jax.core.errors import UserError

Tree = TypeVar("Tree")
DATA_AXIS = "data"
FSDP_AXIS = "fsdp"
MEMBER_AXIS = "member"


def make_mesh(devices: list[jax.Device] | None = None, *, fsdp: int = 1) -> Mesh:
    """A mesh with the axes ``data`` and ``fsdp`` over ``devices`` (default: all there are).

    Args:
      fsdp: devices over which each parameter is cut.

    Raises:
      UserError: when the devices cannot be put in rows of ``fsdp``.
    """
    every = np.asarray(devices or jax.devices())
    if every.size % fsdp:
        raise UserError(f"{every.size} devices cannot be put in rows of {fsdp} (--fsdp)")
    return Mesh(every.reshape(-1, fsdp), (DATA_AXIS, FSDP_AXIS))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of arrays with a row an example: cut into equal parts, one a device."""
    return NamedSharding(mesh, PartitionSpec((DATA_AXIS, FSDP_AXIS)))


def check_batch_size(batch_size: int, mesh: Mesh, parts: int = 1) -> None:
    """Raises ``UserError`` unless a batch can be cut into equal parts.

    Args:
      parts: into which each device cuts its share once more.
    """
    if batch_size % (mesh.size * parts):
        in_parts = f" in {parts} parts each" if parts > 1 else ""
        raise UserError(
            f"a batch of {batch_size} examples cannot be shared equally by {mesh.size} devices"
            f"{in_parts}; choose a multiple of {mesh.size * parts}"
        )


def shard_batch(tree: Tree, mesh: Mesh) -> Tree:
    """Put arrays that every process has on the mesh, cut along their first axis."""
    return jax.tree.map(lambda x: put(x, batch_sharding(mesh)), tree)


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Put arrays on every device of the mesh, whole."""
    return jax.tree.map(lambda x: put(x, NamedSharding(mesh, PartitionSpec())), tree)


def put(array: Any, sharding: NamedSharding) -> jax.Array:
    """Put an array that every process has where it belongs; each sends its own devices' parts."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return jax.device_put(array, sharding)  # it is spread over the processes already
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])


def own_rows(mesh: Mesh, batch_size: int) -> slice:
    """The rows of a batch that lie on this process's devices."""
    parts = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    starts, stops = zip(*(rows.indices(batch_size)[:2] for (rows,) in parts), strict=True)
    own = slice(min(starts), max(stops))
    assert own.stop - own.start == batch_size // mesh.size * len(parts), "devices stand by process"
    return own


@dataclass(frozen=True)
class Placement:
    """Where the members of a population live: in equal parts, one a device, that never talk.

    Stacks of members are [P, ...]. Where P is not a multiple of the number of devices, a placed
    stack is filled up with copies of the last member, which nobody reads.

    Attributes:
      mesh: of one axis, ``member``.
    """

    mesh: Mesh

    def rows(self, members: int) -> np.ndarray:
        """Which member each row of a placed stack holds: ``0, 1, ..., P-1, P-1, ...``."""
        placed = -(-members // self.mesh.size) * self.mesh.size
        return np.minimum(np.arange(placed), members - 1)

    def fill(self, tree: Tree, *, axis: int = 0) -> Tree:
        """Stacks of members along ``axis``, filled up to a multiple of the devices."""

        def filled(stack: Any) -> Any:
            members = stack.shape[axis]
            rows = self.rows(members)
            return stack if len(rows) == members else stack.take(rows, axis=axis)

        return jax.tree.map(filled, tree)

    def put_members(self, tree: Tree) -> Tree:
        """Put stacks [P, ...] on the devices, filled up and cut along their first axis."""
        sharding = NamedSharding(self.mesh, PartitionSpec(MEMBER_AXIS))
        return jax.device_put(self.fill(tree), sharding)

    def put_shared(self, tree: Tree) -> Tree:
        """Put what all members share on every device, whole."""
        return replicate(tree, self.mesh)

    def vmap(self, function: Callable[..., Any], in_axes: tuple[int | None, ...]) -> Any:
        """``function`` over placed stacks; each device works on its own members alone.

        Args:
          function: of one member.
          in_axes: for each argument 0 if it is a stack, None if all members share it.
        """
        if self.mesh.size == 1:
            return jax.vmap(function, in_axes)
        stacked, shared = PartitionSpec(MEMBER_AXIS), PartitionSpec()
        # shard_map rather than a hint to the partitioner: that could choose to communicate.
        return jax.shard_map(
            jax.vmap(function, in_axes),
            mesh=self.mesh,
            in_specs=tuple(shared if axis is None else stacked for axis in in_axes),
            out_specs=stacked,
            check_vma=False,
        )


def make_placement(strategy: Literal["vmap", "sharded"], mesh: Mesh) -> Placement:
    """``vmap``: all members on the first device of ``mesh``; ``sharded``: on all, in equal parts.

    Args:
      mesh: of any axes; only its devices count.
    """
    devices = mesh.devices.reshape(-1)
    return Placement(Mesh(devices if strategy == "sharded" else devices[:1], (MEMBER_AXIS,)))
