"""From what JAX traces of a classifier to an ONNX model, operation by operation.

No family of models does anything for it. What its module computes of a batch is traced with
symbolic numbers of rows and tokens, and every primitive of the trace becomes one ONNX operator or a
few, by the table in ``onnx_primitives.py``. A primitive that is not in the table is refused by
name; its line there is all that a family which needs it has to add. Functions that ONNX knows by
name (``models/named.py``: layer norm, GELU, softmax) become the one operator they are.

With ``int8`` the products of activations with a matrix of weights are computed in integers, by the
rule of ``onnx_int8.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from distill_jax.export import onnx_primitives  # noqa: F401  being imported it fills the table
from distill_jax.export.onnx_builder import TYPES, Builder, Value
from distill_jax.export.onnx_walker import Walker
from distill_jax.export.trace import INPUTS, LENGTH, ROWS, trace
from distill_jax.models.build import family_of
from distill_jax.models.loaded import flat_arrays

OPSET, IR_VERSION = 20, 10
"""The first with GELU, and the format of that time."""
OUTPUT = "logits"
HEAD = ("classifier", "pooling")
"""The parts of parameters that are the head of a classifier, see ``models.family``."""


def onnx_model(config: Any, params: Any, *, int8: bool = False) -> Any:
    """The ONNX model of a text classifier: ``INPUTS`` int64 [batch, length] -> ``OUTPUT`` float32,
    [batch, classes], or [batch, length, classes] of a head that reads every token.

    Args:
      config: of a registered family.
      params: its parameters, float32.
      int8: whether it computes in 8 bits, its head and its attention apart.

    Raises:
      UserError: for a model that computes what cannot be said in ONNX.
    """
    flat = dict(sorted(flat_arrays(params).items()))  # in the order in which JAX flattens them
    traced = trace(config, flat)
    builder = Builder()
    given = [Value(builder.constant(array, name), array.shape) for name, array in flat.items()]
    builder.name_sizes(INPUTS[0], (ROWS, LENGTH))
    shape = tuple(traced.in_avals[-1].shape)
    narrow = [Value(builder.op("Cast", name, to=TYPES["int32"]), shape) for name in INPUTS]
    walker = Walker(builder, *_in_8_bits(config, flat)) if int8 else Walker(builder)
    (logits,) = walker.walk(traced.jaxpr, list(traced.consts), [*given, *narrow])
    logits = builder.whole(logits, traced.out_avals[0].shape)
    builder.node("Identity", [logits.name], [OUTPUT])
    rows = (ROWS, LENGTH) if config.shape.per_token else (ROWS,)
    graph = builder.graph(
        "classifier",
        [helper.make_tensor_value_info(name, TensorProto.INT64, (ROWS, LENGTH)) for name in INPUTS],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, (*rows, config.num_labels))],
    )
    model = helper.make_model(
        graph,
        producer_name="distill_jax",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _in_8_bits(config: Any, flat: Mapping[str, np.ndarray]) -> tuple[list[str], list[str]]:
    """The parameters that become int8 where they are multiplied, or where rows are looked up; what
    is int8 already stays as it is."""
    floats = [name for name, array in flat.items() if array.dtype == np.float32]
    embeddings = "/".join(family_of(config).embeddings)
    kernels = [name for name in floats if name.split("/")[0] not in HEAD]
    return kernels, [name for name in floats if name == embeddings]
