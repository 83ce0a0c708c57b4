"""Products and look-ups in 8 bits, as nodes of a graph.

Weights are symmetric int8, one scale an output channel, ``max|W[:, f]| / 127``. Activations are
symmetric int8 with one scale a token, ``max|x[n]| / 127``, computed in the graph: an example's
answer hangs neither on who shares its batch nor on padding, which ONNX's own
``DynamicQuantizeLinear``, one scale a batch, does not give. Sums are int32. Rows of embeddings have
a scale each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from distill_jax.export.onnx_builder import TYPES, Builder, Dim, Value

LIMIT = 127
ZERO = 128


def quantised(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 numbers and their float32 scales, one for all elements along ``axis``."""
    most = np.abs(array).max(axis=axis, keepdims=True)
    scale = np.where(most > 0, most / np.float32(LIMIT), np.float32(1)).astype(np.float32)
    return np.clip(np.rint(array / scale), -LIMIT, LIMIT).astype(np.int8), scale


def int8_product(builder: Builder, x: Value, kernel: str, shape: Sequence[Dim]) -> Value:
    """``x @ kernel`` of activations [..., K] and a constant [K, F], without bias.

    Args:
      shape: of the result, [..., F].
    """
    whole_KF, scale_1F = quantised(builder.arrays[kernel], axis=0)
    width, features = whole_KF.shape
    rows = math.prod(x.shape[:-1])
    flat_NK = builder.reshape(x, (rows, width)).name
    unsigned_NK, scale_N1 = _by_token(builder, flat_NK)
    summed = _summed(builder, unsigned_NK, builder.constant(whole_KF, f"{kernel}/int8"))
    by_token = builder.op("Mul", summed, scale_N1)
    made = builder.op("Mul", by_token, builder.constant(scale_1F[0], f"{kernel}/scale"))
    return builder.reshape(Value(made, (rows, features)), shape)


def whole_product(builder: Builder, x: str, kernel: str) -> str:
    """The product of float32 whole numbers from -127 to 127 with int8 ones, as float32."""
    shifted = builder.op("Add", x, builder.constant(np.float32(ZERO)))
    return _summed(builder, builder.op("Cast", shifted, to=TYPES["uint8"]), kernel)


def _summed(builder: Builder, unsigned: str, kernel: str) -> str:
    """A product in integers, as float32.

    The left factor is uint8 around a zero point of 128, which changes no sum: of such a pair ONNX
    Runtime multiplies many times faster than of two signed ones. The reshape changes nothing, and
    keeps ONNX Runtime 1.32 from a mistake: it makes ``cast(sum) * (scale_N * scale_F) + bias`` one
    node, for which the bias comes out wrong where there are more scales than one.
    """
    zero = builder.constant(np.uint8(ZERO))
    summed = builder.op("MatMulInteger", unsigned, kernel, zero)
    apart = builder.op("Reshape", summed, builder.ints(0, -1))
    return builder.op("Cast", apart, to=TYPES["float32"])


def int8_rows(builder: Builder, table: str, index: str) -> str:
    """Rows of a constant table [V, D], at an index of any shape."""
    whole, scale_V1 = quantised(builder.arrays[table], axis=1)
    rows = builder.op("Gather", builder.constant(whole, f"{table}/int8"), index, axis=0)
    scales = builder.op("Gather", builder.constant(scale_V1, f"{table}/scale"), index, axis=0)
    return builder.op("Mul", builder.op("Cast", rows, to=TYPES["float32"]), scales)


def _by_token(builder: Builder, x_NK: str) -> tuple[str, str]:
    """uint8 around 128 of activations, and their scales [N, 1].

    The largest magnitude from both ends, and one operator that divides, rounds and shifts: three
    times as fast as one for each step.
    """
    last = builder.ints(-1)
    top = builder.op("ReduceMax", x_NK, last, keepdims=1)
    bottom = builder.op("Neg", builder.op("ReduceMin", x_NK, last, keepdims=1))
    most = builder.op("Max", top, bottom)
    scale = builder.op("Div", most, builder.constant(np.float32(LIMIT)))
    nothing = builder.op("Equal", most, builder.constant(np.float32(0)))
    scale_N1 = builder.op("Where", nothing, builder.constant(np.float32(1)), scale)
    scale_N = builder.op("Squeeze", scale_N1, last)
    rows = builder.op("Shape", scale_N)
    zero_N = builder.op("Expand", builder.constant(np.full(1, ZERO, np.uint8)), rows)
    return builder.op("QuantizeLinear", x_NK, scale_N, zero_N, axis=0), scale_N1
