"""The table from JAX's primitives to ONNX's operators, a short rule each.

A rule gets the walker, the equation and the values it reads, and returns the value it makes, or a
list of them. Values may be smaller than JAX's along axes where they are the same (see
``onnx_builder``); rules that move elements about ask for them in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import lax
from onnx import helper

from distill_jax.core.errors import UserError
from distill_jax.export.onnx_builder import TYPES, Builder, Dim, Value
from distill_jax.export.onnx_int8 import int8_product, int8_rows, whole_product
from distill_jax.export.onnx_walker import RULES, Rule, Walker, named, rule


def _joint(*values: Value) -> tuple[Dim, ...]:
    """The shape of an elementwise result."""
    ranks = max(len(value.shape) for value in values)
    shapes = [(1,) * (ranks - len(value.shape)) + value.shape for value in values]
    return tuple(next((d for d in dims if d != 1), 1) for dims in zip(*shapes, strict=True))


def _elementwise(kind: str) -> Rule:
    def apply(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
        return _each(walker.builder, kind, *inputs)

    return apply


def _each(builder: Builder, kind: str, *inputs: Value, **attributes: Any) -> Value:
    names = (value.name for value in inputs)
    return Value(builder.op(kind, *names, **attributes), _joint(*inputs))


RULES.update(
    {
        name: _elementwise(kind)
        for name, kind in {
            "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min",
            "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "erf": "Erf",
            "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs", "sign": "Sign", "floor": "Floor",
            "ceil": "Ceil", "pow": "Pow", "eq": "Equal", "lt": "Less", "le": "LessOrEqual",
            "gt": "Greater", "ge": "GreaterOrEqual", "sin": "Sin", "cos": "Cos",
        }.items()
    }
)  # fmt: skip


@rule("copy", "copy_p", "stop_gradient")
def _same(walker: Walker, eqn: Any, inputs: list[Value]) -> list[Value]:
    return inputs


@rule("ne")
def _ne(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    return _each(walker.builder, "Not", _each(walker.builder, "Equal", *inputs))


@rule("and", "or", "xor", "not")
def _logical(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    kind = eqn.primitive.name.capitalize()
    if eqn.invars[0].aval.dtype != np.bool_:
        kind = f"Bitwise{kind}"
    return _each(walker.builder, kind, *inputs)


@rule("square")
def _square(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    return _each(walker.builder, "Mul", inputs[0], inputs[0])


@rule("rsqrt")
def _rsqrt(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    return _each(walker.builder, "Reciprocal", _each(walker.builder, "Sqrt", inputs[0]))


@rule("erfc", "expm1", "log1p")
def _with_one(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    builder, one = walker.builder, walker.constant(np.asarray(1, eqn.invars[0].aval.dtype))
    match eqn.primitive.name:
        case "erfc":
            return _each(builder, "Sub", one, _each(builder, "Erf", inputs[0]))
        case "expm1":
            return _each(builder, "Sub", _each(builder, "Exp", inputs[0]), one)
        case _:
            return _each(builder, "Log", _each(builder, "Add", inputs[0], one))


@rule("rem")
def _remainder(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    return _each(walker.builder, "Mod", *inputs, fmod=1)


@rule("dim_as_value")
def _dim_as_value(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    number = _scalar(walker.builder, eqn.params["dim"])
    return Value(walker.builder.op("Cast", number, to=TYPES["int32"]), ())


@rule("integer_pow")
def _integer_pow(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    if eqn.params["y"] == 2:
        return _each(walker.builder, "Mul", inputs[0], inputs[0])
    power = walker.constant(np.asarray(eqn.params["y"], eqn.invars[0].aval.dtype))
    return _each(walker.builder, "Pow", inputs[0], power)


@rule("round")
def _round(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    if eqn.params["rounding_method"] != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise UserError("ONNX rounds halves to even numbers, this model away from zero")
    return _each(walker.builder, "Round", inputs[0])


@rule("clamp")
def _clamp(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    least, x, most = inputs
    return _each(walker.builder, "Min", _each(walker.builder, "Max", x, least), most)


@rule("select_n")
def _select(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    which, *cases = inputs
    if len(cases) != 2 or eqn.invars[0].aval.dtype != np.bool_:
        raise UserError("ONNX chooses between two values, this model among more")
    return _each(walker.builder, "Where", which, cases[1], cases[0])


@rule("convert_element_type")
def _cast(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    dtype = str(eqn.params["new_dtype"])
    if dtype not in TYPES:
        raise UserError(f"this model computes in {dtype}, which is not exported to ONNX")
    if eqn.invars[0].aval.dtype == eqn.params["new_dtype"]:
        return inputs[0]
    return _each(walker.builder, "Cast", inputs[0], to=TYPES[dtype])


@rule("broadcast_in_dim")
def _broadcast(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    """Axes are put in their places; along new ones the value is left as it is, of size 1."""
    (value, *_), shape = inputs, eqn.outvars[0].aval.shape
    own = [1] * len(shape)
    for axis, target in enumerate(eqn.params["broadcast_dimensions"]):
        own[target] = value.shape[axis]
    return walker.builder.reshape(value, own)


@rule("reshape")
def _reshape(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    new, old = eqn.outvars[0].aval.shape, eqn.invars[0].aval.shape
    if math.prod(inputs[0].shape) == 1:
        return walker.builder.reshape(inputs[0], (1,) * len(new))
    return walker.builder.reshape(walker.builder.whole(inputs[0], old), new)


@rule("squeeze")
def _squeeze(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    gone = eqn.params["dimensions"]
    kept = [dim for axis, dim in enumerate(inputs[0].shape) if axis not in gone]
    return walker.builder.reshape(inputs[0], kept)


@rule("transpose")
def _transpose(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    return walker.builder.transpose(inputs[0], eqn.params["permutation"])


@rule("concatenate")
def _concatenate(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    whole = _in_full(walker, eqn, inputs)
    name = walker.builder.op("Concat", *(x.name for x in whole), axis=eqn.params["dimension"])
    return Value(name, eqn.outvars[0].aval.shape)


@rule("stack")
def _stack(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    axis, whole = eqn.params["axis"], _in_full(walker, eqn, inputs)
    shape = [*whole[0].shape[:axis], 1, *whole[0].shape[axis:]]
    each = [walker.builder.reshape(value, shape).name for value in whole]
    return Value(walker.builder.op("Concat", *each, axis=axis), eqn.outvars[0].aval.shape)


@rule("split")
def _split(walker: Walker, eqn: Any, inputs: list[Value]) -> list[Value]:
    (value,) = _in_full(walker, eqn, inputs)
    sizes = walker.builder.sizes(eqn.params["sizes"])
    made = walker.builder.ops("Split", len(eqn.outvars), value.name, sizes, axis=eqn.params["axis"])
    return [Value(n, var.aval.shape) for n, var in zip(made, eqn.outvars, strict=True)]


@rule("slice")
def _slice(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    (value,) = _in_full(walker, eqn, inputs)
    starts, ends = eqn.params["start_indices"], eqn.params["limit_indices"]
    return _cut(walker.builder, value, starts, ends, eqn.params["strides"], eqn)


@rule("rev")
def _reverse(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    builder, axes = walker.builder, eqn.params["dimensions"]
    last, beyond = [-1] * len(axes), [-(2**31)] * len(axes)
    vectors = (builder.ints(*each) for each in (last, beyond, axes, last))
    return Value(builder.op("Slice", inputs[0].name, *vectors), inputs[0].shape)


@rule("pad")
def _pad(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    (value, filling), builder = _in_full(walker, eqn, inputs), walker.builder
    low, high, inner = zip(*eqn.params["padding_config"], strict=True)
    if any(inner):
        raise UserError("ONNX pads around arrays, this model between their elements")
    name = builder.op("Pad", value.name, builder.sizes([*low, *high]), filling.name)
    return Value(name, eqn.outvars[0].aval.shape)


@rule("iota")
def _iota(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    builder, shape, axis = walker.builder, eqn.params["shape"], eqn.params["dimension"]
    count = _scalar(builder, shape[axis])
    ends = builder.constant(np.int64(0)), count, builder.constant(np.int64(1))
    numbers = builder.op("Cast", builder.op("Range", *ends), to=TYPES[str(eqn.params["dtype"])])
    own = [1] * len(shape)
    own[axis] = shape[axis]
    return builder.reshape(Value(numbers, (shape[axis],)), own)


@rule("reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
def _reduce(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    kind = "Reduce" + eqn.primitive.name.removeprefix("reduce_").capitalize()
    return _reduced(walker.builder, kind, _in_full(walker, eqn, inputs)[0], eqn)


@rule("reduce_and", "reduce_or")
def _reduce_logical(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    builder, (value,) = walker.builder, _in_full(walker, eqn, inputs)
    kind = "ReduceMin" if eqn.primitive.name == "reduce_and" else "ReduceMax"
    number = _each(builder, "Cast", value, to=TYPES["int32"])
    return _each(builder, "Cast", _reduced(builder, kind, number, eqn), to=TYPES["bool"])


@rule("argmax", "argmin")
def _arg(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    builder, (value,) = walker.builder, _in_full(walker, eqn, inputs)
    kind = {"argmax": "ArgMax", "argmin": "ArgMin"}[eqn.primitive.name]
    (axis,) = eqn.params["axes"]
    name = builder.op(kind, value.name, axis=axis, keepdims=0)
    dtype = TYPES[str(eqn.params["index_dtype"])]
    return Value(builder.op("Cast", name, to=dtype), eqn.outvars[0].aval.shape)


@rule("cumsum")
def _cumsum(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    builder, (value,) = walker.builder, _in_full(walker, eqn, inputs)
    axis = builder.constant(np.int64(eqn.params["axis"]))
    name = builder.op("CumSum", value.name, axis, reverse=int(eqn.params["reverse"]))
    return Value(name, value.shape)


@rule("gather")
def _gather(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    """Rows of a table, elements at places, or a window: what indexing in numpy's way traces to."""
    builder, (table, places) = walker.builder, _in_full(walker, eqn, inputs)
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    starts, gone = numbers.start_index_map, numbers.collapsed_slice_dims
    shape, new = table.shape, eqn.outvars[0].aval.shape
    rank, index_rank = len(shape), len(places.shape) - 1
    others = [axis for axis in range(rank) if axis not in starts]
    full = all(sizes[axis] == shape[axis] for axis in others)
    batched = numbers.operand_batching_dims or numbers.start_indices_batching_dims
    if not batched and full and index_rank == 0 and not gone:
        return _window(builder, table, places, starts, sizes)
    if not batched and full and gone == starts:
        places = _clipped(builder, places, [shape[axis] for axis in starts], eqn)
        if len(starts) == 1 and numbers.offset_dims == _offsets(rank, index_rank, starts[0]):
            index = builder.reshape(places, places.shape[:-1])
            if table.name in walker.tables and starts == (0,):
                return Value(int8_rows(builder, table.name, index.name), new)
            return Value(builder.op("Gather", table.name, index.name, axis=starts[0]), new)
        leading = starts == tuple(range(len(starts)))
        if leading and numbers.offset_dims == tuple(range(index_rank, len(new))):
            wide = builder.op("Cast", places.name, to=TYPES["int64"])
            return Value(builder.op("GatherND", table.name, wide), new)
    raise UserError("this model looks elements up in a way that export/onnx_primitives.py has not")


@rule("dot_general")
def _dot(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    (over, batch), builder = eqn.params["dimension_numbers"], walker.builder
    left, right = _in_full(walker, eqn, inputs)
    if str(eqn.invars[0].aval.dtype) == "int8":
        kind = "MatMulInteger"
    elif str(eqn.outvars[0].aval.dtype) == "float32":
        kind = "MatMul"
    else:
        raise UserError(f"this model multiplies matrices in {eqn.outvars[0].aval.dtype}")
    plain = len(right.shape) == 2 and not batch[0] and over == ((len(left.shape) - 1,), (0,))
    new = eqn.outvars[0].aval.shape
    if plain and right.name in walker.kernels:
        return int8_product(builder, left, right.name, new)
    if plain:
        return Value(builder.op(kind, left.name, right.name), new)
    return _batched_product(builder, kind, (left, right), over, batch, new)


@rule("scan")
def _scan(walker: Walker, eqn: Any, inputs: list[Value]) -> list[Value]:
    """A loop over the first axis: its constants are what the body sees of the graph around it."""
    params, builder, closed = eqn.params, walker.builder, eqn.params["jaxpr"]
    # JAX names how many of what there are in one way or another; what is read or written a slice
    # at a time has one axis more outside.
    carried = _as_inside(eqn.outvars, closed.jaxpr.outvars)
    first = _as_inside(eqn.invars, closed.jaxpr.invars) - carried
    inputs = _in_full(walker, eqn, inputs)
    body = builder.body()
    variables = closed.jaxpr.invars[first:]
    given = [Value(body.fresh("in"), var.aval.shape) for var in variables]
    made = walker.within(body).walk(closed.jaxpr, list(closed.consts), [*inputs[:first], *given])
    made = [
        body.whole(value, var.aval.shape)
        for value, var in zip(made, closed.jaxpr.outvars, strict=True)
    ]
    outputs = [body.fresh("out") for _ in made]
    for value, name in zip(made, outputs, strict=True):
        body.node("Identity", [value.name], [name])
    graph = body.graph(
        body.fresh("body"),
        [_described(value.name, var) for value, var in zip(given, variables, strict=True)],
        [_described(n, var) for n, var in zip(outputs, closed.jaxpr.outvars, strict=True)],
    )
    names = [builder.fresh("Scan") for _ in outputs]
    backwards = int(params["reverse"])
    builder.node(
        "Scan",
        [value.name for value in inputs[first:]],
        names,
        body=graph,
        num_scan_inputs=len(given) - carried,
        scan_input_directions=[backwards] * (len(given) - carried),
        scan_output_directions=[backwards] * (len(outputs) - carried),
    )
    return [Value(n, var.aval.shape) for n, var in zip(names, eqn.outvars, strict=True)]


def _as_inside(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many of a loop's variables are the same outside as in its body."""
    pairs = zip(outside, inside, strict=True)
    return sum(len(one.aval.shape) == len(other.aval.shape) for one, other in pairs)


@rule("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "remat2")
def _call(walker: Walker, eqn: Any, inputs: list[Value]) -> list[Value]:
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    if hasattr(inner, "consts"):
        return walker.walk(inner.jaxpr, list(inner.consts), inputs)
    return walker.walk(inner, [], inputs)


@named("gelu")
def _gelu(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    return _each(walker.builder, "Gelu", inputs[0])


@named("gelu_tanh")
def _gelu_tanh(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    return _each(walker.builder, "Gelu", inputs[0], approximate="tanh")


@named("softmax")
def _softmax(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    (value,) = _in_full(walker, eqn, inputs)
    return Value(walker.builder.op("Softmax", value.name, axis=-1), value.shape)


@named("layer_norm")
def _layer_norm(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    value, scale, bias = _in_full(walker, eqn, inputs)[:3]
    epsilon = walker.builder.arrays.get(inputs[3].name)
    if epsilon is None:
        raise UserError("the epsilon of a layer norm must be a constant to be exported to ONNX")
    names = value.name, scale.name, bias.name
    name = walker.builder.op("LayerNormalization", *names, axis=-1, epsilon=float(epsilon))
    return Value(name, value.shape)


@named("int8_product")
def _int8_product(walker: Walker, eqn: Any, inputs: list[Value]) -> Value:
    """Of two matrices of whole numbers from -127 to 127, whatever their dtypes, as float32."""
    builder, whole = walker.builder, _in_full(walker, eqn, inputs)
    left, right = (
        value.name
        if str(var.aval.dtype) == dtype
        else builder.op("Cast", value.name, to=TYPES[dtype])
        for value, var, dtype in zip(whole, eqn.invars, ("float32", "int8"), strict=True)
    )
    return Value(whole_product(builder, left, right), eqn.outvars[0].aval.shape)


def _in_full(walker: Walker, eqn: Any, inputs: list[Value]) -> list[Value]:
    """The values as JAX shapes them."""
    return [
        walker.builder.whole(value, var.aval.shape)
        for value, var in zip(inputs, eqn.invars, strict=True)
    ]


def _scalar(builder: Builder, dim: Dim) -> str:
    return builder.op("Squeeze", builder.size(dim), builder.ints(0))


def _reduced(builder: Builder, kind: str, value: Value, eqn: Any) -> Value:
    axes = builder.ints(*eqn.params["axes"])
    return Value(builder.op(kind, value.name, axes, keepdims=0), eqn.outvars[0].aval.shape)


def _cut(builder: Builder, value: Value, starts: Any, ends: Any, steps: Any, eqn: Any) -> Value:
    axes = range(len(value.shape))
    vectors = [builder.sizes(starts), builder.sizes(ends), builder.ints(*axes)]
    if steps is not None:
        vectors.append(builder.ints(*steps))
    return Value(builder.op("Slice", value.name, *vectors), eqn.outvars[0].aval.shape)


def _window(builder: Builder, table: Value, places: Value, starts: Any, sizes: Any) -> Value:
    """Of the given sizes, from places that are kept within the table."""
    free = builder.op("Sub", builder.sizes([table.shape[axis] for axis in starts]),
                      builder.sizes([sizes[axis] for axis in starts]))  # fmt: skip
    wide = builder.op("Cast", places.name, to=TYPES["int64"])
    first = builder.op("Min", builder.op("Max", wide, builder.ints(0)), free)
    last = builder.op("Add", first, builder.sizes([sizes[axis] for axis in starts]))
    return Value(builder.op("Slice", table.name, first, last, builder.ints(*starts)), sizes)


def _clipped(builder: Builder, places: Value, sizes: list[Dim], eqn: Any) -> Value:
    """Places within the table, where JAX is told to keep them there."""
    if eqn.params["mode"] != lax.GatherScatterMode.CLIP:
        return places
    wide = builder.op("Cast", places.name, to=TYPES["int64"])
    last = builder.op("Sub", builder.sizes(sizes), builder.ints(1))
    name = builder.op("Min", builder.op("Max", wide, builder.ints(0)), last)
    return Value(name, places.shape)


def _offsets(rank: int, index_rank: int, axis: int) -> tuple[int, ...]:
    """Where ``Gather`` along an axis leaves the others of a table."""
    return (*range(axis), *range(axis + index_rank, rank - 1 + index_rank))


def _batched_product(
    builder: Builder, kind: str, sides: tuple[Value, Value], over: Any, batch: Any, new: Any
) -> Value:
    """Any product: transposed and flattened to [..., M, K] and [..., K, N].

    Whichever factor comes as it has to be on the left is put there, so that the larger one of
    attention's second product is not transposed.
    """
    free = [
        [axis for axis in range(len(side.shape)) if axis not in (*over[n], *batch[n])]
        for n, side in enumerate(sides)
    ]
    orders = [[*batch[n], *free[n], *over[n]] for n in (0, 1)]
    swap = orders[1] == sorted(orders[1]) and orders[0] != sorted(orders[0])
    one, two = (1, 0) if swap else (0, 1)
    lead = [sides[0].shape[axis] for axis in batch[0]]
    sizes = [[sides[n].shape[axis] for axis in free[n]] for n in (0, 1)]
    summed = math.prod(sides[0].shape[axis] for axis in over[0])
    left = builder.transpose(sides[one], orders[one])
    right = builder.transpose(sides[two], [*batch[two], *over[two], *free[two]])
    left = builder.reshape(left, [*lead, math.prod(sizes[one]), summed])
    right = builder.reshape(right, [*lead, summed, math.prod(sizes[two])])
    shape = (*lead, math.prod(sizes[one]), math.prod(sizes[two]))
    made = Value(builder.op(kind, left.name, right.name), shape)
    made = builder.reshape(made, [*lead, *sizes[one], *sizes[two]])
    if swap:
        B, M, N = len(lead), len(sizes[one]), len(sizes[two])
        made = builder.transpose(made, [*range(B), *range(B + M, B + M + N), *range(B, B + M)])
    return Value(made.name, tuple(new))


def _described(name: str, var: Any) -> Any:
    shape = [dim if isinstance(dim, int) else None for dim in var.aval.shape]
    return helper.make_tensor_value_info(name, TYPES[str(var.aval.dtype)], shape)
