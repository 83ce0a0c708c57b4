"""Hugging Face's names of BERT's weights and ours, and safetensors files in between."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError, safe_open

from distill_jax.core.errors import UserError, nearest
from distill_jax.core.files import save_tensors
from distill_jax.models.bert import BertConfig, Params, init_bert
from distill_jax.models.hf_architectures import (
    Architecture,
    Modules,
    architecture_of,
    register,
)
from distill_jax.models.hf_config import OWN, bert_to_hf, config_from_hf, read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")

ANSWERS = "qa_outputs."
"""How the weights of a ``hf_config.QUESTIONS`` head begin."""
BUFFERS = r"embeddings\.(position_ids|token_type_ids)"
"""Known and of no use to a classifier, as are the heads of pretraining."""

LAYER_MODULES = {
    "attention.self.query": ("attention", "query"),
    "attention.self.key": ("attention", "key"),
    "attention.self.value": ("attention", "value"),
    "attention.output.dense": ("attention_output",),
    "attention.output.LayerNorm": ("attention_norm",),
    "intermediate.dense": ("intermediate",),
    "output.dense": ("output",),
    "output.LayerNorm": ("output_norm",),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One weight: its name there (without prefix), its path and shape here.

    ``torch.nn.Linear`` keeps [out, in], we keep [in, out]: those are ``transposed``.
    """

    hf_name: str
    path: tuple[str, ...]
    shape: tuple[int, ...]
    transposed: bool

    @property
    def hf_shape(self) -> tuple[int, ...]:
        """Shape in the checkpoint."""
        return self.shape[::-1] if self.transposed else self.shape


def bert_modules(config: BertConfig) -> Modules:
    """Names and paths of BERT's modules; those that a config does not use are among them."""
    modules: Modules = {
        "embeddings.word_embeddings": ("embeddings", "word"),
        "embeddings.position_embeddings": ("embeddings", "position"),
        "embeddings.token_type_embeddings": ("embeddings", "token_type"),
        "embeddings.LayerNorm": ("embeddings", "norm"),
        "pooler.dense": ("pooling", "dense"),
        "classifier": ("classifier",),
    }
    return modules | layer_modules("encoder.layer", LAYER_MODULES, config.num_layers)


def layer_modules(prefix: str, modules: Modules, layers: int) -> Modules:
    """The modules of all layers, from those of one; checkpoints count layers from 0."""
    return {
        f"{prefix}.{number - 1}.{name}": (f"layer_{number}", *path)
        for number in range(1, layers + 1)
        for name, path in modules.items()
    }


def weight_table(config: Any) -> tuple[Entry, ...]:
    """Every parameter of a model with its Hugging Face name; shapes are the model's own.

    What the config does not use, a pooler say, is not there.
    """
    architecture = architecture_of(config)
    name_of = {path: name for name, path in architecture.modules(config).items()}
    shapes = jax.eval_shape(lambda rng: architecture.init(config, rng), jax.random.key(0))
    entries = []
    for path, leaf in flatten_dict(shapes).items():
        suffix = "bias" if path[-1] == "bias" else "weight"
        hf_name = f"{name_of[path[:-1]]}.{suffix}"
        entries.append(Entry(hf_name, path, leaf.shape, transposed=path[-1] == "kernel"))
    return tuple(entries)


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder's ``model.safetensors``, or of the shards its index names.

    Floats become float32.

    Raises:
      UserError: no such file, only pickled weights, a damaged file, or a missing shard.
    """
    found = (read_safetensors(file) for file in _weight_files(folder))
    return {name: array for tensors in found for name, array in tensors.items()}


def read_safetensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, floats as float32; a ``UserError`` where it is damaged."""
    try:
        with safe_open(file, framework="numpy") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged or not a safetensors file: {error}.") from error
    floats = {k for k, array in tensors.items() if jnp.issubdtype(array.dtype, jnp.floating)}
    return {k: x.astype(np.float32) if k in floats else x for k, x in tensors.items()}


def standard_names(
    tensors: Mapping[str, Any], prefixes: Sequence[str], *, where: str
) -> dict[str, Any]:
    """Tensors by today's names without prefix; old ``gamma``/``beta`` become weight and bias.

    Raises:
      UserError: two keys become one name.
    """
    result: dict[str, Any] = {}
    for key, tensor in tensors.items():
        name = key
        for prefix in prefixes:
            name = name.removeprefix(prefix)
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
        if name in result:
            raise UserError(f"{where} has {name!r} under two names, one of them {key!r}.")
        result[name] = tensor
    return result


def one_head(tensors: Mapping[str, Any], classifier: str) -> dict[str, Any]:
    """The tensors with the head of a model that finds answers by the name of every other head.

    Args:
      classifier: that name.
    """
    return {
        f"{classifier}.{name.removeprefix(ANSWERS)}" if name.startswith(ANSWERS) else name: array
        for name, array in tensors.items()
    }


def split_unused(tensors: Mapping[str, Any], unused: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tensors of an encoder and its head, and the names of those known to be of no use.

    Args:
      unused: a pattern of such names.
    """
    ignored = tuple(sorted(name for name in tensors if re.fullmatch(unused, name)))
    return {name: tensors[name] for name in tensors if name not in ignored}, ignored


def params_from_tensors(
    table: tuple[Entry, ...], tensors: Mapping[str, np.ndarray], *, where: str
) -> dict[tuple[str, ...], np.ndarray]:
    """Parameters by path, every entry of ``table`` and nothing else.

    Raises:
      UserError: a key unknown, missing or of a wrong shape; it is named.
    """
    known = {entry.hf_name: entry for entry in table}
    missing = [name for name in known if name not in tensors]
    strangers = sorted(set(tensors) - set(known))
    if strangers:
        guess = nearest(strangers[0], missing or known)
        hint = f" Nearest known key: {guess!r}." if guess else ""
        more = f" (and {len(strangers) - 1} more)" if len(strangers) > 1 else ""
        raise UserError(f"{where} has an unknown key {strangers[0]!r}{more}.{hint}")
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"{where} lacks the key {missing[0]!r}{more}.")
    params = {}
    for name, entry in known.items():
        array = tensors[name]
        if array.shape != entry.hf_shape or array.dtype != np.float32:
            raise UserError(
                f"{where}: {name!r} is {array.dtype} {list(array.shape)}, config.json asks "
                f"for float {list(entry.hf_shape)}."
            )
        params[entry.path] = array.T if entry.transposed else array
    return params


def write_tensors(file: Path, config: Any, params: Params) -> None:
    """Save parameters as transformers' classifier names them, or the class in
    ``modeling_distill_jax`` where a BERT's pooling is not its own."""
    architecture = architecture_of(config)
    leaves = flatten_dict(params)
    tensors = {}
    for entry in weight_table(config):
        array = np.asarray(leaves[entry.path], np.float32)
        prefix = architecture.prefix_of(entry.hf_name)
        if config.pooling not in OWN and prefix == "bert.":
            prefix = "backbone."
        tensors[prefix + entry.hf_name] = np.ascontiguousarray(
            array.T if entry.transposed else array
        )
    save_tensors(file, tensors, metadata={"format": "pt"})


BERT = register(
    Architecture(
        model_type="bert",
        config_type=BertConfig,
        prefixes=("bert.", "backbone."),
        config=lambda raw, where: config_from_hf(raw, where=where),
        raw=bert_to_hf,
        modules=bert_modules,
        init=init_bert,
        classifier="classifier",
        pooler="pooler.dense",
        owns_pooler=False,
        unused=rf"{BUFFERS}|cls\..*",
        class_name="BertForSequenceClassification",
    )
)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        names = {*map(str, weight_map.values())} if isinstance(weight_map, dict) else set()
        if not names:
            raise UserError(f"{folder / INDEX} has no weight_map from keys to files.")
        for name in sorted(names):
            if Path(name).name != name or not (folder / name).is_file():
                raise UserError(f"{folder / INDEX} names {name!r}, which is not in the folder.")
        return [folder / name for name in sorted(names)]
    pickled = sorted(file.name for glob in _PICKLES for file in folder.glob(glob))
    if pickled:
        raise UserError(
            f"{folder} has {pickled[0]} but no {WEIGHTS}; pickled weights can run code and are "
            f"not read. {_conversion(folder)}"
        )
    raise UserError(
        f"{folder} has no {WEIGHTS} (nor {INDEX}). If there are pickled weights: "
        f"{_conversion(folder)}"
    )


def _conversion(folder: Path) -> str:
    """How pickled weights are converted, with the head and the tokeniser they have."""
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    listed = config.get("architectures")
    first = str(listed[0]) if isinstance(listed, list) and listed else ""
    name = first if first.isidentifier() else "AutoModel"
    return (
        f"Convert once where torch is installed: from transformers import AutoTokenizer, {name}; "
        f"{name}.from_pretrained({str(folder)!r}).save_pretrained(NEW_FOLDER); "
        f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained(NEW_FOLDER)."
    )
