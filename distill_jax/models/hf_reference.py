"""What ``transformers`` computes from a folder, in numpy, from the files alone.

``BertForSequenceClassification`` and ``BertForTokenClassification`` of transformers 5
(``models/bert/modeling_bert.py``: embeddings, encoder layers with layer norm after each residual
sum, pooler, classifier) in evaluation mode, and ``modeling_distill_jax.py`` for other poolings.
Nothing of our model, its parameters' names or its reader is used: a folder that answers as it
should is known to do so elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf, softmax

_GELU = {
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
}
_TOKENS = "BertForTokenClassification"
_TANH = ("gelu_new", "gelu_pytorch_tanh")


def reference_logits(
    folder: Path,
    input_ids_BT: np.ndarray,
    token_type_ids_BT: np.ndarray,
    attention_mask_BT: np.ndarray,
) -> np.ndarray:
    """Logits [B, C], float32, of the model in ``folder``; [B, T, C] where its head reads tokens."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    own = raw["model_type"] == "bert"
    bert, name = (raw, "bert") if own else (raw["bert"], "backbone")
    hidden_BTD = _encode(
        bert, tensors, name, input_ids_BT, token_type_ids_BT, attention_mask_BT.astype(bool)
    )
    if raw.get("architectures") == [_TOKENS]:
        return _linear(tensors, "classifier", hidden_BTD)
    if own:
        pooled_BD = np.tanh(_linear(tensors, "bert.pooler.dense", hidden_BTD[:, 0]))
    elif raw["pooling"] == "cls":
        pooled_BD = hidden_BTD[:, 0]
    else:
        mask_BT1 = attention_mask_BT.astype(np.float32)[:, :, None]
        pooled_BD = (hidden_BTD * mask_BT1).sum(1) / np.maximum(mask_BT1.sum(1), 1)
    return _linear(tensors, "classifier", pooled_BD)


def _encode(
    bert: dict[str, Any],
    tensors: dict[str, np.ndarray],
    name: str,
    input_ids_BT: np.ndarray,
    token_type_ids_BT: np.ndarray,
    where_BT: np.ndarray,
) -> np.ndarray:
    rows, length = input_ids_BT.shape
    heads = bert["num_attention_heads"]
    act, epsilon = _activation(bert["hidden_act"]), bert["layer_norm_eps"]

    def norm(module: str, x: np.ndarray) -> np.ndarray:
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        scale, bias = tensors[f"{module}.weight"], tensors[f"{module}.bias"]
        return (x - mean) / np.sqrt(variance + epsilon) * scale + bias

    def split(x_BTD: np.ndarray) -> np.ndarray:
        return x_BTD.reshape(rows, length, heads, -1).transpose(0, 2, 1, 3)

    embeddings = f"{name}.embeddings"
    x_BTD = (
        tensors[f"{embeddings}.word_embeddings.weight"][input_ids_BT]
        + tensors[f"{embeddings}.token_type_embeddings.weight"][token_type_ids_BT]
        + tensors[f"{embeddings}.position_embeddings.weight"][None, :length]
    )
    x_BTD = norm(f"{embeddings}.LayerNorm", x_BTD)
    for number in range(bert["num_hidden_layers"]):
        layer = f"{name}.encoder.layer.{number}"
        query, key, value = (
            split(_linear(tensors, f"{layer}.attention.self.{part}", x_BTD))
            for part in ("query", "key", "value")
        )
        scores_BHTT = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
        scores_BHTT = np.where(where_BT[:, None, None], scores_BHTT, np.finfo(np.float32).min)
        context_BTD = (
            (softmax(scores_BHTT, axis=-1) @ value).transpose(0, 2, 1, 3).reshape(x_BTD.shape)
        )
        attended = _linear(tensors, f"{layer}.attention.output.dense", context_BTD)
        x_BTD = norm(f"{layer}.attention.output.LayerNorm", attended + x_BTD)
        up = act(_linear(tensors, f"{layer}.intermediate.dense", x_BTD))
        x_BTD = norm(
            f"{layer}.output.LayerNorm", _linear(tensors, f"{layer}.output.dense", up) + x_BTD
        )
    return x_BTD


def _linear(tensors: dict[str, np.ndarray], module: str, x: np.ndarray) -> np.ndarray:
    return x @ tensors[f"{module}.weight"].T + tensors[f"{module}.bias"]


def _activation(name: str) -> Callable[[np.ndarray], np.ndarray]:
    if name in _TANH:
        return lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return _GELU[name]
