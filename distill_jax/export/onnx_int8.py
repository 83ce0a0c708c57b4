"""Products and look-ups in 8 bits, as nodes of a graph.

Weights are symmetric int8, one scale an output channel, ``max|W[:, f]| / 127``. Activations are
symmetric int8 with one scale a token, ``max|x[n]| / 127``, computed in the graph: an example's
answer hangs neither on who shares its batch nor on padding, which ONNX's own
``DynamicQuantizeLinear``, one scale a batch, does not give. Sums are int32. Rows of embeddings have
a scale each.
"""

from __future__ import annotations

import numpy as np

from distill_jax.export.onnx_builder import TYPES, Builder

LIMIT = 127


def quantised(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 numbers and their float32 scales, one for all elements along ``axis``."""
    most = np.abs(array).max(axis=axis, keepdims=True)
    scale = np.where(most > 0, most / np.float32(LIMIT), np.float32(1)).astype(np.float32)
    return np.clip(np.rint(array / scale), -LIMIT, LIMIT).astype(np.int8), scale


def int8_product(builder: Builder, x: str, kernel: str) -> str:
    """``x @ kernel`` of activations [..., K] and a constant [K, F], without bias."""
    whole, scale_1F = quantised(builder.arrays[kernel], axis=0)
    numbers, scale_N1 = _by_token(builder, x)
    summed = builder.op("MatMulInteger", numbers, builder.constant(whole, f"{kernel}/int8"))
    product = builder.op("Cast", summed, to=TYPES["float32"])
    by_token = builder.op("Mul", product, scale_N1)
    return builder.op("Mul", by_token, builder.constant(scale_1F[0], f"{kernel}/scale"))


def int8_rows(builder: Builder, table: str, index: str) -> str:
    """Rows of a constant table [V, D], at an index of any shape."""
    whole, scale_V1 = quantised(builder.arrays[table], axis=1)
    rows = builder.op("Gather", builder.constant(whole, f"{table}/int8"), index, axis=0)
    scales = builder.op("Gather", builder.constant(scale_V1, f"{table}/scale"), index, axis=0)
    return builder.op("Mul", builder.op("Cast", rows, to=TYPES["float32"]), scales)


def _by_token(builder: Builder, x: str) -> tuple[str, str]:
    """int8 of activations [..., K], and their scales [..., 1]."""
    last = builder.ints(-1)
    most = builder.op("ReduceMax", builder.op("Abs", x), last, keepdims=1)
    scale = builder.op("Mul", most, builder.constant(np.float32(1 / LIMIT)))
    nothing = builder.op("Equal", most, builder.constant(np.float32(0)))
    scale = builder.op("Where", nothing, builder.constant(np.float32(1)), scale)
    rounded = builder.op("Round", builder.op("Div", x, scale))
    return builder.op("Cast", rounded, to=TYPES["int8"]), scale
