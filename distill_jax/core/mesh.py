"""Where arrays live: a mesh over all devices, batches cut along it, parameters on each."""

from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_jax.core.errors import UserError

Tree = TypeVar("Tree")
DATA_AXIS = "data"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh with one axis, ``data``, over ``devices`` (default: all there are)."""
    return Mesh(np.asarray(devices or jax.devices()), (DATA_AXIS,))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises ``UserError`` unless a batch can be cut into equal parts, one a device."""
    if batch_size % mesh.size:
        raise UserError(
            f"a batch of {batch_size} examples cannot be shared equally by {mesh.size} devices; "
            f"choose a multiple of {mesh.size}"
        )


def shard_batch(tree: Tree, mesh: Mesh) -> Tree:
    """Put arrays on the mesh, cut along their first axis."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(DATA_AXIS)))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Put arrays on every device of the mesh, whole."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
