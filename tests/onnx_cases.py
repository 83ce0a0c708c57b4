"""Functions of arrays with symbolic sizes, made into ONNX by themselves."""

import jax
import jax.numpy as jnp
import onnxruntime
from jax import export
from onnx import helper

from distill_jax.export.onnx_builder import TYPES, Builder, Value
from distill_jax.export.onnx_graph import IR_VERSION, OPSET
from distill_jax.export.onnx_walker import Walker

PRESENT: set[str] = set()


def to_onnx(function, *specs):
    """A session of a traced function of arrays with sizes in b and t, and its inputs' names."""
    traced = jax.jit(function).trace(*specs)
    PRESENT.update(_primitives(traced.jaxpr.jaxpr))
    builder = Builder()
    names = [f"in{n}" for n in range(len(specs))]
    builder.name_sizes(names[0], [str(dim) for dim in specs[0].shape[:2]])
    given = [Value(name, spec.shape) for name, spec in zip(names, specs, strict=True)]
    made = Walker(builder).walk(traced.jaxpr.jaxpr, list(traced.jaxpr.consts), given)
    outputs = []
    for number, (value, aval) in enumerate(zip(made, traced.jaxpr.out_avals, strict=True)):
        builder.node("Identity", [builder.whole(value, aval.shape).name], [f"out{number}"])
        outputs.append(_described(f"out{number}", aval))
    graph = builder.graph(
        "test", [_described(n, s) for n, s in zip(names, specs, strict=True)], outputs
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
    return onnxruntime.InferenceSession(model.SerializeToString()), names, model


def _described(name, aval):
    shape = [dim if isinstance(dim, int) else None for dim in aval.shape]
    return helper.make_tensor_value_info(name, TYPES[str(aval.dtype)], shape)


def _primitives(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _primitives(inner)


SCOPE = export.SymbolicScope(["t <= 7", "t >= 2", "b >= 1"])


def spec(*tail, dtype=jnp.float32):
    b, t = export.symbolic_shape("b, t", scope=SCOPE)
    return jax.ShapeDtypeStruct((b, t, *tail), dtype)
