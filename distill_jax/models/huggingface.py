"""BERT checkpoints as Hugging Face lays them out: read into our parameters, and written back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder
from distill_jax.models import hf_config, hf_folder, hf_weights
from distill_jax.models.bert import BertConfig, Params


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model as loaded.

    Attributes:
      config: sizes, pooling, number of classes.
      params: float32, for ``Bert(config).apply({"params": params}, ...)``.
      tokenizer_file: a ``tokenizer.json``.
      digest: of the config and of every parameter's content.
      label_names: the classes the head was trained for, in order; None where the head is fresh
        or the checkpoint does not say.
      fresh: parts that were not in the checkpoint and were drawn by seed: ``classifier``,
        ``pooler``.
      notes: what was left out of the checkpoint and why, a line each.
    """

    config: BertConfig
    params: Params
    tokenizer_file: Path
    digest: str
    label_names: tuple[str, ...] | None
    fresh: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load_pretrained(
    reference: str | Path,
    *,
    pooling: str | None = None,
    num_labels: int | None = None,
    fresh_classifier: bool = False,
    fresh_pooler: bool = False,
    seed: int = 0,
    home: Path | None = None,
) -> Pretrained:
    """Load a BERT checkpoint with safetensors weights; no pickle is read and no code is run.

    Args:
      reference: a local folder, or an id on the Hugging Face hub.
      pooling: ``pooler``, ``mean`` or ``cls``; None for what the checkpoint was saved with
        (``pooler`` where it does not say).
      num_labels: classes of the task; None for those of the checkpoint's head, 2 without one.
      fresh_classifier: leave the checkpoint's head out and draw a new one.
      fresh_pooler: draw the pooler if the checkpoint has none; otherwise that is an error.
      seed: of everything drawn.
      home: where a ``tokenizer.json`` made from ``vocab.txt`` is kept.

    Raises:
      UserError: an unsupported or damaged file; a key that is unknown, missing or of a wrong
        shape; a head with another number of classes.
    """
    folder = hf_folder.find_folder(reference)
    config_file = folder / hf_folder.CONFIG
    if not config_file.is_file():
        raise UserError(f"{folder} has no {hf_folder.CONFIG}.")
    raw = hf_config.read_json(config_file)
    config = hf_config.config_from_hf(raw, where=str(config_file))
    tensors = hf_weights.standard_names(hf_weights.read_tensors(folder), where=str(folder))
    tensors, ignored = hf_weights.split_ignored(tensors)
    notes = [f"not used: {_summary(ignored)}"] if ignored else []

    config = dataclasses.replace(config, pooling=pooling or config.pooling)
    fresh = []
    if config.pooling != "pooler":
        unused = [name for name in tensors if name.startswith("pooler.")]
        notes += [f"pooler not used with pooling={config.pooling!r}"] if unused else []
        tensors = {name: tensors[name] for name in tensors if name not in unused}
    elif not any(name.startswith("pooler.") for name in tensors):
        if not fresh_pooler:
            raise UserError(
                f"{folder} has no pooler weights; use pooling='mean' or 'cls' "
                "(or fresh_pooler=True for one drawn at random)."
            )
        fresh.append("pooler")

    config, head_is_fresh = _choose_head(config, tensors, num_labels, fresh_classifier, folder)
    if head_is_fresh:
        dropped = [name for name in tensors if name.startswith("classifier.")]
        notes += ["the checkpoint's classifier was replaced by a fresh one"] if dropped else []
        tensors = {name: tensors[name] for name in tensors if name not in dropped}
        fresh.append("classifier")
    else:
        hf_config.check_single_label(raw, where=str(config_file))

    params = _complete(config, tensors, fresh, seed, where=str(folder))
    label_names = hf_config.label_names_from_hf(raw, where=str(config_file))
    return Pretrained(
        config=config,
        params=params,
        tokenizer_file=hf_folder.find_tokenizer(folder, vocab_size=config.vocab_size, home=home),
        digest=params_digest(config, params),
        label_names=None if head_is_fresh else label_names,
        fresh=tuple(sorted(fresh)),
        notes=tuple(notes),
    )


def save_pretrained(
    folder: Path,
    config: BertConfig,
    params: Params,
    tokenizer_file: Path,
    label_names: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Write a folder that ``transformers`` and ``load_pretrained`` open, whole or not at all.

    Returns:
      Notes for the user: what ``transformers`` does not know of this model.

    Raises:
      UserError: the folder exists and is not empty, or the label names do not fit the head.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose another folder.")
    if label_names is not None and len(set(label_names)) != config.num_labels:
        raise UserError(
            f"{len(set(label_names))} different label names for a head of {config.num_labels}."
        )
    raw = hf_config.config_to_hf(config, label_names)
    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
        "model_max_length": config.max_positions,
        **special,
    }
    with atomic_folder(folder) as scratch:
        _write_json(scratch / hf_folder.CONFIG, raw)
        _write_json(scratch / "tokenizer_config.json", tokenizer_config)
        shutil.copyfile(tokenizer_file, scratch / hf_folder.TOKENIZER)
        hf_weights.write_tensors(scratch / hf_weights.WEIGHTS, config, params)
    if config.pooling == "pooler":
        return ()
    return (
        f"transformers has no class for pooling={config.pooling!r}: it opens the encoder; the "
        f"pooling is recorded in config.json as {hf_config.POOLING_KEY}.",
    )


def params_digest(config: BertConfig, params: Params) -> str:
    """Content digest of a model: its config, and every parameter's name, shape and bytes."""
    arrays = {"/".join(path): np.asarray(leaf) for path, leaf in flatten_dict(params).items()}
    return digest({"config": config, "params": digest_arrays(arrays)})


def _choose_head(
    config: BertConfig,
    tensors: Mapping[str, np.ndarray],
    num_labels: int | None,
    fresh_classifier: bool,
    folder: Path,
) -> tuple[BertConfig, bool]:
    """The config with its number of classes, and whether the head has to be drawn."""
    weight = tensors.get("classifier.weight")
    if weight is None or fresh_classifier:
        # Without a trained head, id2label is transformers' default and says nothing.
        return dataclasses.replace(config, num_labels=num_labels or 2), True
    found = weight.shape[0]
    if num_labels is not None and num_labels != found:
        raise UserError(
            f"the classifier of {folder} has {found} classes, the task has {num_labels}; "
            "use fresh_classifier=True to train a new head."
        )
    return dataclasses.replace(config, num_labels=found), False


def _complete(
    config: BertConfig,
    tensors: Mapping[str, np.ndarray],
    fresh: Sequence[str],
    seed: int,
    *,
    where: str,
) -> Params:
    """All parameters: the checkpoint's, and the ``fresh`` parts drawn by ``seed``."""
    table = hf_weights.weight_table(config)
    normal = nn.initializers.normal(config.initializer_range)
    here = tuple(entry for entry in table if entry.hf_name.split(".")[0] not in fresh)
    flat: dict[Any, Any] = {}
    for i, entry in enumerate(entry for entry in table if entry not in here):
        draw = nn.initializers.zeros if entry.path[-1] == "bias" else normal
        flat[entry.path] = draw(jax.random.fold_in(jax.random.key(seed), i), entry.shape)
    flat |= hf_weights.params_from_tensors(here, tensors, where=where)
    return unflatten_dict({path: jnp.asarray(leaf) for path, leaf in flat.items()})


def _summary(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
