"""Which parameters are cut over the ``fsdp`` axis of a mesh, as rules from names to axes."""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from distill_jax.core.errors import UserError
from distill_jax.core.mesh import DATA_AXIS, FSDP_AXIS, put

Tree = TypeVar("Tree")
Rules = tuple[tuple[str, PartitionSpec], ...]
"""(regular expression, how an array is cut whose path it is found in); the first one counts."""

ALONG_WIDTH: Rules = (
    (r"embedding$", PartitionSpec(None, FSDP_AXIS)),
    (r"classifier/kernel$", PartitionSpec()),
    (r"kernel$", PartitionSpec(None, FSDP_AXIS)),
)
"""Matrices of a transformer by their columns; vectors, and the few columns of a head, whole."""

MOMENTS: Rules = ((r"(^|/)losses/", PartitionSpec()), *ALONG_WIDTH)
"""Of the optimiser: as the parameters they belong to; the losses' own are few and of any shape."""


@dataclass(frozen=True)
class ShardingRules:
    """A list of rules for each thing that a step is given; what no rule names is kept whole.

    Paths are names joined by slashes: ``layer_1/attention/query/kernel``; of the optimiser
    ``1/mu/student/layer_1/attention/query/kernel``; of the teacher's output ``logits_BC``,
    ``hidden_states/3``.
    """

    student: Rules = ALONG_WIDTH
    losses: Rules = ()
    optimizer: Rules = MOMENTS
    teacher: Rules = ALONG_WIDTH
    teacher_outputs: Rules = ((r"", PartitionSpec((DATA_AXIS, FSDP_AXIS))),)


def shardings(tree: Tree, rules: Rules, mesh: Mesh) -> Tree:
    """A sharding for each array of a tree.

    Args:
      tree: of arrays, or of their shapes.

    Raises:
      UserError: when an array cannot be cut into equal parts as its rule says.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _sharding(_name(path), leaf.shape, rules, mesh), tree
    )


def place(tree: Tree, rules: Rules, mesh: Mesh) -> Tree:
    """Put arrays on the mesh as the rules say; each device is sent its own part only."""
    return jax.tree.map(put, tree, shardings(tree, rules, mesh))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _sharding(name: str, shape: tuple[int, ...], rules: Rules, mesh: Mesh) -> NamedSharding:
    spec = next((spec for pattern, spec in rules if re.search(pattern, name)), PartitionSpec())
    if len(spec) > len(shape):
        raise UserError(f"the rule for {name} names {len(spec)} axes, it has {len(shape)}")
    for size, axes in zip(shape, spec, strict=False):
        names = axes if isinstance(axes, tuple) else () if axes is None else (axes,)
        parts = 1
        for axis in names:
            parts *= mesh.shape[axis]
        if size % parts:
            raise UserError(
                f"{name} of shape {shape} cannot be cut into {parts} equal parts along {axes}; "
                "choose another --fsdp"
            )
    return NamedSharding(mesh, spec)
