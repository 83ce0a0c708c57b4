"""One example of a teacher cache: named arrays as the bytes of one record.

A record is a safetensors message, which says its own dtypes and shapes and cannot run anything.
Token-level arrays hold the example's real tokens only: ``hidden_states/3`` is [t, D] for an
example of t tokens, ``attention_scores/1`` [H, t, t], ``values/2`` [t, H, D/H]. So do
the logits of a head that reads every token, [t, C]; they are float32, as logits [C] are.
"""

import math
from collections.abc import Mapping
from typing import Literal

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture, ModelOutput

Dtype = Literal["float32", "float16", "bfloat16"]
"""How token-level outputs may be kept."""
SQUARE = ("attention_scores", "attention_probs")
TOKENWISE = ("hidden_states", "queries", "keys", "values")

_DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
}
_ID, _LOGITS = "example_id", "logits"
_TOP, _TOP_IDS, _REST, _CLASSES = "top_logits", "top_ids", "rest_logsumexp", "classes"


def encode(example_id: str, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The record of one example. The same arrays give the same bytes."""
    named = {_ID: np.frombuffer(example_id.encode(), np.uint8), **arrays}
    return safetensors.numpy.save({k: np.ascontiguousarray(array) for k, array in named.items()})


def decode(payload: bytes) -> tuple[str, dict[str, np.ndarray]]:
    """The example id and the arrays of a record.

    Raises:
      ValueError: when the bytes are not a record.
    """
    try:
        arrays = {
            name: np.frombuffer(told["data"], _DTYPES[told["dtype"]]).reshape(told["shape"])
            for name, told in safetensors.deserialize(payload)
        }
        return bytes(arrays.pop(_ID)).decode(), arrays
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"not a record of a teacher cache: {error}") from error


def names_of(capture: Capture) -> list[tuple[str, int, str]]:
    """Kind, layer and record name of every token-level output of a capture."""
    return [
        (kind, layer, f"{kind}/{layer}")
        for kind in (*TOKENWISE, *SQUARE)
        for layer in getattr(capture, kind)
    ]


def batch_arrays(output: ModelOutput, capture: Capture) -> dict[str, np.ndarray]:
    """Logits [B, C] or [B, T, C] and what was captured of a batch, float32, by record name."""
    arrays = {_LOGITS: np.asarray(output.logits_BC, np.float32)}
    for kind, layer, name in names_of(capture):
        arrays[name] = np.asarray(getattr(output, kind)[layer], np.float32)
    return arrays


def example_arrays(
    batch: Mapping[str, np.ndarray],
    row: int,
    tokens: int,
    *,
    dtype: Dtype,
    top_k: int | None,
    example_id: str,
) -> dict[str, np.ndarray]:
    """What is kept of one row of ``batch_arrays``: real tokens, in ``dtype``; logits in float32.

    Raises:
      UserError: for a value that is not finite, in ``dtype`` or at all.
    """
    logits_C = batch[_LOGITS][row]
    if logits_C.ndim == 2:
        logits_C = logits_C[:tokens]
        top_k = None
    if not np.isfinite(logits_C).all():
        raise UserError(f"the teacher's logits of example {example_id!r} are not finite")
    wide = top_k is not None and len(logits_C) > top_k
    kept = keep_top(logits_C, top_k) if wide and top_k else {_LOGITS: logits_C}
    for name, array in batch.items():
        if name == _LOGITS:
            continue
        square = name.startswith(SQUARE)
        block = array[row, :, :tokens, :tokens] if square else array[row, :tokens]
        with np.errstate(over="ignore"):
            kept[name] = block.astype(dtype)
        if not np.isfinite(kept[name]).all():
            raise UserError(
                f"the teacher's {name} of example {example_id!r} has values that {dtype} cannot "
                "hold; keep the cache in float32"
            )
    return kept


def keep_top(logits_C: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """The ``k`` largest of more than ``k`` logits, and the log-sum-exp of the rest."""
    order_C = np.argsort(-logits_C, kind="stable")
    rest = logits_C[order_C[k:]].astype(np.float64)
    mass = rest.max() + math.log(np.exp(rest - rest.max()).sum())
    return {
        _TOP: logits_C[order_C[:k]],
        _TOP_IDS: order_C[:k].astype(np.int32),
        _REST: np.asarray([mass], np.float32),
        _CLASSES: np.asarray([len(logits_C)], np.int32),
    }


def dense_logits(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 [C] logits of a record.

    Where only the largest were kept, they are as the teacher said, and the others share their
    log-sum-exp evenly: the softmax has the teacher's probabilities on the kept classes and the
    teacher's mass, spread evenly, on the rest. At a temperature other than 1 the kept classes
    keep their ratios; the mass of the rest is then that of an even spread, not the teacher's.

    Raises:
      ValueError: when the arrays do not fit each other.
    """
    if _LOGITS in arrays:
        return arrays[_LOGITS]
    try:
        top, ids, rest = arrays[_TOP], arrays[_TOP_IDS], float(arrays[_REST][0])
        classes = int(arrays[_CLASSES][0])
        logits_C = np.full(classes, rest - math.log(classes - len(top)), np.float32)
        logits_C[ids] = top
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"a record without whole logits: {error}") from error
    return logits_C


def empty_logits(kept: np.ndarray, batch_size: int, length: int) -> np.ndarray:
    """float32 zeros for a batch of logits like ``kept``: [B, C], or [B, T, C] of every token."""
    lead = (batch_size, length) if kept.ndim == 2 else (batch_size,)
    return np.zeros((*lead, kept.shape[-1]), np.float32)


def tokens_of(name: str, kept: np.ndarray) -> tuple[int, ...]:
    """The sizes of an array's token axes: one, or two that agree for attention."""
    return kept.shape[1:] if name.startswith(SQUARE) else kept.shape[:1]


def padded_zeros(name: str, kept: np.ndarray, batch_size: int, length: int) -> np.ndarray:
    """float32 zeros for a batch of arrays like ``kept``: [B, T, ...], or [B, H, T, T]."""
    if name.startswith(SQUARE):
        return np.zeros((batch_size, kept.shape[0], length, length), np.float32)
    return np.zeros((batch_size, length, *kept.shape[1:]), np.float32)


def fill_tokens(kept: np.ndarray, name: str, out: np.ndarray) -> None:
    """Write one example's token-level array into its zeroed, padded place of a batch.

    Args:
      kept: [t, ...], or [H, t, t] for attention.
      out: float32 [T, ...] or [H, T, T], T at least t.
    """
    tokens = tokens_of(name, kept)[0]
    if name.startswith(SQUARE):
        out[:, :tokens, :tokens] = kept
    else:
        out[:tokens] = kept
