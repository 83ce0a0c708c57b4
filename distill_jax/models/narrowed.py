"""A narrow student's start from a wider teacher: its embeddings in fewer dimensions, or the parts
of its layers that carry most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.models.bert import BertConfig, Params


def embeddings_from(params: Params, source: Params) -> Params:
    """A student's parameters with the embeddings of a wider encoder, projected to its width.

    Word embeddings are centred and projected to their first principal directions; positions and
    token types go along the same directions, or are copied where they are as wide as the source's.
    It tells what a student gains from the teacher's words alone.

    Args:
      params: with embeddings as a BERT's, of the source's vocabulary, narrower or as wide.
      source: of the wider encoder.

    Raises:
      UserError: where vocabularies, positions or widths do not fit.
    """
    wide, narrow = source["embeddings"], params["embeddings"]
    tables = [name for name in ("word", "position", "token_type") if name in narrow]
    shapes = {
        name: (wide[name]["embedding"].shape, narrow[name]["embedding"].shape)
        for name in tables
        if name in wide
    }
    for theirs, ours in shapes.values():
        if theirs[0] != ours[0] or theirs[1] < ours[1]:
            raise UserError(
                f"embeddings of shape {ours} cannot start from {theirs}: expected as many rows, "
                "and at most the width."
            )
    # In double precision: rounding differs between kinds of CPUs, and what is trained with it.
    words_VW = np.asarray(wide["word"]["embedding"], np.float64)
    centred_VW = words_VW - words_VW.mean(axis=0)[None, :]
    _, directions_WW = np.linalg.eigh(centred_VW.T @ centred_VW)  # ascending
    width = shapes["word"][1][1]
    directions_WD = directions_WW[:, ::-1][:, :width]
    projected = {"word": centred_VW @ directions_WD}
    for name, (theirs, ours) in shapes.items():
        table = np.asarray(wide[name]["embedding"], np.float32)
        if name == "word" or (theirs[1] != words_VW.shape[1] and theirs != ours):
            continue
        projected[name] = table @ directions_WD if ours[1] == width else table
    found = {
        name: {"embedding": jnp.asarray(table, jnp.float32)} for name, table in projected.items()
    }
    return params | {"embeddings": narrow | found}


def check_embeddings(name: str, config: Any, teacher: Any) -> None:
    """Raises ``UserError`` for a student with wider embeddings than its teacher, or others.

    Args:
      name: of the student, for errors.
      config, teacher: of families with embeddings of words, and as wide as they say.
    """
    ours, theirs = (each.embedding_size or each.hidden_size for each in (config, teacher))
    if ours > theirs:
        raise UserError(
            f"student {name!r} has embeddings of {ours} and would start from its teacher's, which "
            f"have {theirs}"
        )
    if config.max_positions != teacher.max_positions:
        raise UserError(
            f"student {name!r} has {config.max_positions} positions, its teacher "
            f"{teacher.max_positions}: its embeddings cannot start from the teacher's"
        )


def truncated(
    config: BertConfig,
    fresh: Params,
    teacher: BertConfig,
    params: Params,
    layers: Sequence[int],
) -> Params:
    """A narrower student made of the most important units of a BERT's layers.

    One set of hidden units for the whole model, and of each layer the best heads, whole, and the
    best feed-forward neurons. Without data, importance is what the weights say, see
    ``hidden_importance``, ``head_importance`` and ``neuron_importance``; the classifier is drawn.

    Args:
      config: of the student, which ``check_widths`` allows.
      fresh: its parameters as drawn, for what is not taken.
      teacher, params: the BERT.
      layers: of the teacher, from 1, one for each of the student's.
    """
    own = [params[f"layer_{layer}"] for layer in layers]
    units_D = _best(hidden_importance(params["embeddings"]["norm"], own), config.hidden_size)
    made: dict[str, Any] = {**fresh}
    for number, layer in enumerate(own, start=1):
        heads_H = _best(head_importance(layer, teacher.num_heads), config.num_heads)
        size = teacher.attention_width // teacher.num_heads
        columns_K = (heads_H[:, None] * size + np.arange(size)[None]).reshape(-1)
        neurons_F = _best(neuron_importance(layer), config.intermediate_size)
        made[f"layer_{number}"] = _cut_layer(layer, units_D, columns_K, neurons_F)
    embeddings = params["embeddings"]
    if "project" in embeddings:  # the tables are as wide as they were, what reads them is not
        same = {key: embeddings[key] for key in embeddings if key != "project"}
        made["embeddings"] = {**same, "project": _cut(embeddings["project"], None, units_D)}
    else:
        made["embeddings"] = {
            key: {leaf: jnp.asarray(np.asarray(x)[..., units_D]) for leaf, x in part.items()}
            for key, part in embeddings.items()
        }
    if "pooling" in fresh and "pooling" in params:
        made["pooling"] = {"dense": _cut(params["pooling"]["dense"], units_D, units_D)}
    return _copied(made)


def hidden_importance(norm: Params, layers: Sequence[Params]) -> np.ndarray:
    """Of the hidden units, [D]: how much of what reads them they make, if they were unrelated.

    Behind a layer norm a unit's mean square is ``scale^2 + bias^2``; what it adds to all units that
    read it is that times its squared weights there, summed over all norms.
    """
    total_D = np.zeros(np.shape(norm["scale"]))
    for layer in layers:
        attention = [layer["attention"][part] for part in ("query", "key", "value")]
        total_D += _power(norm) * sum(_row_squares(each) for each in attention)
        total_D += _power(layer["attention_norm"]) * _row_squares(layer["intermediate"])
        norm = layer["output_norm"]
    return total_D + _power(norm)


def head_importance(layer: Params, heads: int) -> np.ndarray:
    """Of a layer's heads, [H]: the norm of their values' weights times that of what reads them."""
    values_H = _column_squares(layer["attention"]["value"]).reshape(heads, -1).sum(axis=1)
    return np.sqrt(
        values_H * _row_squares(layer["attention_output"]).reshape(heads, -1).sum(axis=1)
    )


def neuron_importance(layer: Params) -> np.ndarray:
    """Of a layer's feed-forward neurons, [F], in the same way."""
    return np.sqrt(_column_squares(layer["intermediate"]) * _row_squares(layer["output"]))


def check_widths(name: str, config: BertConfig, teacher: BertConfig) -> None:
    """Raises ``UserError`` for a student that is wider somewhere, or whose heads are of another
    size; ``name`` is for errors."""
    pairs = {
        "hidden units": (config.hidden_size, teacher.hidden_size),
        "heads": (config.num_heads, teacher.num_heads),
        "feed-forward neurons": (config.intermediate_size, teacher.intermediate_size),
    }
    for what, (ours, theirs) in pairs.items():
        if ours > theirs:
            raise UserError(
                f"student {name!r} has {ours} {what} and would be cut out of a teacher of {theirs}"
            )
    size = teacher.attention_width // teacher.num_heads
    if config.attention_width // config.num_heads != size:
        heads = max(1, config.hidden_size // size)
        raise UserError(
            f"student {name!r} has heads of size {config.attention_width // config.num_heads}, the "
            f"teacher of {size}, and heads are cut out whole: take "
            f"{config.num_layers}x{heads * size}x{heads}"
        )


def _cut_layer(
    layer: Params, units_D: np.ndarray, columns_K: np.ndarray, neurons_F: np.ndarray
) -> Params:
    attention = {
        part: _cut(layer["attention"][part], units_D, columns_K)
        for part in ("query", "key", "value")
    }
    norms = {
        part: {key: leaf[units_D] for key, leaf in layer[part].items()}
        for part in ("attention_norm", "output_norm")
    }
    return {
        "attention": attention,
        "attention_output": _cut(layer["attention_output"], columns_K, units_D),
        "intermediate": _cut(layer["intermediate"], units_D, neurons_F),
        "output": _cut(layer["output"], neurons_F, units_D),
        **norms,
    }


def _cut(dense: Params, rows: np.ndarray | None, columns: np.ndarray) -> Params:
    kernel = np.asarray(dense["kernel"])
    kernel = kernel if rows is None else kernel[rows]
    return {"kernel": kernel[:, columns], "bias": np.asarray(dense["bias"])[columns]}


def _copied(node: Any) -> Any:
    """True copies, float32: a donated step deletes the student's arrays, not the teacher's."""
    if isinstance(node, dict):
        return {key: _copied(each) for key, each in node.items()}
    return jnp.array(node, jnp.float32, copy=True)


def _best(importance: np.ndarray, count: int) -> np.ndarray:
    """The most important, in their order; of equals the first."""
    return np.sort(np.argsort(-importance, kind="stable")[:count])


def _power(norm: Params) -> np.ndarray:
    scale, bias = (np.asarray(norm[key], np.float64) for key in ("scale", "bias"))
    return scale**2 + bias**2


def _row_squares(dense: Params) -> np.ndarray:
    return (np.asarray(dense["kernel"], np.float64) ** 2).sum(axis=1)


def _column_squares(dense: Params) -> np.ndarray:
    return (np.asarray(dense["kernel"], np.float64) ** 2).sum(axis=0)
