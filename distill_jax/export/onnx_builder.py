"""ONNX graphs node by node: names, constants, symbolic sizes; what is computed twice is one node.

The representation of a value may be smaller than what it stands for: an axis of size 1 where the
value is the same along it. ONNX's elementwise operators broadcast by themselves.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Dim = Any
"""A size: an int, or a symbolic expression of ``jax.export`` in the names of the inputs' sizes."""

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "uint32": TensorProto.UINT32,
    "bool": TensorProto.BOOL,
}
"""ONNX's types by numpy's names."""


@dataclasses.dataclass(frozen=True)
class Value:
    """Something computed: its name in the graph and its shape there."""

    name: str
    shape: tuple[Dim, ...]


class Builder:
    """Collects the nodes of a graph, or of the body of a loop within one.

    Args:
      outer: the builder of the graph around it, whose values the body may use.

    Attributes:
      arrays: the constants by name, of this graph and all within it.
    """

    def __init__(self, outer: Builder | None = None) -> None:
        self._outer = outer
        self._root: Builder = outer._root if outer else self
        self._nodes: list[onnx.NodeProto] = []
        self._known: dict[Any, tuple[str, ...]] = {}
        self._made_by: dict[str, onnx.NodeProto] = {}
        self.arrays: dict[str, np.ndarray] = outer.arrays if outer else {}
        self._count = 0

    def body(self) -> Builder:
        """A builder for a graph within this one."""
        return Builder(self)

    def fresh(self, stem: str) -> str:
        """A name that nobody has."""
        self._root._count += 1
        return f"{stem}_{self._root._count}"

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """The one output of a node."""
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> tuple[str, ...]:
        """The outputs of a node; the same node as before where it was asked for before."""
        key = (kind, outputs, inputs, repr(sorted(attributes.items())))
        if (known := self._find(key)) is not None:
            return known
        made = tuple(self.fresh(kind) for _ in range(outputs))
        self.node(kind, inputs, made, **attributes)
        self._known[key] = made
        return made

    def node(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """A node with outputs of these names."""
        node = helper.make_node(kind, inputs, outputs, name=f"{kind}:{outputs[0]}", **attributes)
        self._nodes.append(node)
        self._made_by |= dict.fromkeys(outputs, node)

    def constant(self, array: Any, name: str | None = None) -> str:
        """The name of a constant; small equal ones are one."""
        array = np.asarray(array)
        if name is not None:
            self.arrays[name] = array
            return name
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._root._known:
            made = self._root.fresh("const")
            self.arrays[made] = array
            self._root._known[key] = (made,)
        return self._root._known[key][0]

    def ints(self, *numbers: int) -> str:
        """A vector of int64."""
        return self.constant(np.asarray(numbers, np.int64))

    def size(self, dim: Dim) -> str:
        """A size as a vector of one int64."""
        if isinstance(dim, int | np.integer):
            return self.ints(int(dim))
        return self._root._expression(ast.parse(str(dim).replace("^", "**"), mode="eval").body)

    def sizes(self, shape: Sequence[Dim]) -> str:
        """A shape as a vector of int64."""
        if all(isinstance(dim, int | np.integer) for dim in shape):
            return self.ints(*map(int, shape))
        return self._root.op("Concat", *map(self.size, shape), axis=0)

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """Its axes in another order; two transposes in a row become one."""
        order = tuple(order)
        shape = tuple(value.shape[axis] for axis in order)
        made = self._made_by.get(value.name)
        name = value.name
        if made is not None and made.op_type == "Transpose":
            (before,) = (list(each.ints) for each in made.attribute if each.name == "perm")
            name, order = made.input[0], tuple(before[axis] for axis in order)
        if order == tuple(range(len(order))):
            return Value(name, shape)
        return Value(self.op("Transpose", name, perm=list(order)), shape)

    def reshape(self, value: Value, shape: Sequence[Dim]) -> Value:
        """Another shape of as many elements."""
        if tuple(shape) == value.shape:
            return value
        return Value(self.op("Reshape", value.name, self._target(value.shape, shape)), tuple(shape))

    def whole(self, value: Value, shape: Sequence[Dim]) -> Value:
        """The value in full, nothing left to broadcasting."""
        if tuple(shape) == value.shape:
            return value
        return Value(self.op("Expand", value.name, self.sizes(shape)), tuple(shape))

    def graph(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.GraphProto:
        """The graph of what its outputs need."""
        needed = {each.name for each in outputs}
        kept = []
        for node in reversed(self._nodes):
            if needed & set(node.output):
                kept.append(node)
                needed |= _read_by(node)
        held = {} if self._outer else self.arrays
        constants = [
            numpy_helper.from_array(np.asarray(array, order="C"), key)
            for key, array in held.items()
            if key in needed
        ]
        return helper.make_graph(kept[::-1], name, inputs, outputs, constants)

    def _find(self, key: Any) -> tuple[str, ...] | None:
        found = self._known.get(key)
        return found if found or self._outer is None else self._outer._find(key)

    def _target(self, old: Sequence[Dim], new: Sequence[Dim]) -> str:
        """The shape to reshape to, as a constant where that can be: 0 copies, -1 fills."""
        spelt = [
            dim if isinstance(dim, int | np.integer) else 0 if old[n : n + 1] == (dim,) else -1
            for n, dim in enumerate(new)
        ]
        if spelt.count(-1) > 1 or any(dim == 0 for dim in new if isinstance(dim, int)):
            return self.sizes(new)
        return self.ints(*map(int, spelt))

    def _expression(self, node: ast.expr) -> str:
        """Of sizes; the names are those that ``name_sizes`` gave."""
        match node:
            case ast.Name(id=name):
                return name
            case ast.Constant(value=number):
                return self.ints(int(str(number)))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.op("Neg", self._expression(operand))
            case ast.BinOp(left=left, op=operator, right=right):
                kind = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Pow: "Pow"}
                return self.op(
                    kind[type(operator)], self._expression(left), self._expression(right)
                )
            case ast.Call(func=ast.Name(id=name), args=[left, right]):
                kinds: Mapping[str, str] = {
                    "floordiv": "Div",  # of sizes, which are not negative
                    "mod": "Mod",
                    "max": "Max",
                    "min": "Min",
                }
                return self.op(kinds[name], self._expression(left), self._expression(right))
        raise NotImplementedError(f"a size {ast.unparse(node)}")

    def name_sizes(self, of: str, names: Sequence[str]) -> None:
        """Give the sizes of an input the names that expressions of sizes use."""
        shape = self.op("Shape", of)
        for axis, name in enumerate(names):
            self.node("Gather", [shape, self.ints(axis)], [name], axis=0)


def _read_by(node: onnx.NodeProto) -> set[str]:
    """The names that a node, or the graphs within it, read."""
    inner = [each.g for each in node.attribute if each.HasField("g")]
    return set(node.input).union(
        *(_read_by(each) for graph in inner for each in graph.node),
        *({each.name for each in graph.output} for graph in inner),
    )
