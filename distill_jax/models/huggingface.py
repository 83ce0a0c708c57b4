"""BERT checkpoints as Hugging Face lays them out: read into our parameters, and written back."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder
from distill_jax.models import hf_config, hf_folder, hf_weights
from distill_jax.models.bert import BertConfig, Params
from distill_jax.models.hf_card import model_card
from distill_jax.models.hf_tokenizer import (
    TOKENIZER,
    TOKENIZER_CONFIG,
    load_tokenizer,
    special_tokens,
)
from distill_jax.models.loaded import (
    UNSAID,
    Loaded,
    TextInputs,
    check_free,
    check_names,
    model_digest,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained(Loaded):
    """A BERT as loaded, for ``Bert(config).apply({"params": params}, ...)``."""

    config: BertConfig
    tokenizer_file: Path


def load_pretrained(
    reference: str | Path,
    *,
    pooling: str | None = None,
    num_labels: int | None = None,
    fresh_classifier: bool = False,
    seed: int = 0,
    home: Path | None = None,
) -> Pretrained:
    """Load a BERT checkpoint with safetensors weights; no pickle is read and no code is run.

    Args:
      reference: a local folder, or an id on the Hugging Face hub.
      pooling: ``pooler`` (drawn where the checkpoint has none), ``mean`` or ``cls``; None for what
        the checkpoint was saved with (the pooler it has where it does not say).
      num_labels: classes of the task; None for those of the checkpoint's head, 2 without one.
      fresh_classifier: leave the checkpoint's head out and draw a new one.
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

    tokenizer = hf_folder.find_tokenizer(folder, vocab_size=config.vocab_size, home=home)
    notes += tokenizer.notes
    config = dataclasses.replace(config, pooling=pooling or config.pooling)
    fresh = []
    if config.pooling != "pooler":
        unused = [name for name in tensors if name.startswith("pooler.")]
        notes += [f"pooler not used with pooling={config.pooling!r}"] if unused else []
        tensors = {name: tensors[name] for name in tensors if name not in unused}
    elif not any(name.startswith("pooler.") for name in tensors):
        if pooling is None:
            raise UserError(
                f"{folder} has no pooler weights. --teacher-pooling (in Python: pooling=) mean or "
                "cls does without; pooler draws one at random, to be fine-tuned."
            )
        fresh.append("pooler")

    config, head_is_fresh = _choose_head(config, tensors, num_labels, fresh_classifier, folder)
    if head_is_fresh:
        dropped = [name for name in tensors if name.startswith("classifier.")]
        notes += ["the checkpoint's classifier was replaced by a fresh one"] if dropped else []
        tensors = {name: tensors[name] for name in tensors if name not in dropped}
        fresh.append("classifier")
    elif not (folder / hf_folder.TASK).is_file():  # who opens such a folder reads that file
        hf_config.check_single_label(raw, where=str(config_file))

    params = _complete(config, tensors, fresh, seed, where=str(folder))
    label_names = hf_config.label_names_from_hf(raw, where=str(config_file))
    return Pretrained(
        config=config,
        params=params,
        tokenizer_file=tokenizer.file,
        digest=model_digest(config, params),
        label_names=None if head_is_fresh else label_names,
        fresh=tuple(sorted(fresh)),
        notes=tuple(notes),
        inputs=TextInputs(
            _max_length(folder, config), hf_config.pairs_from_hf(raw, where=str(config_file))
        ),
    )


def save_pretrained(
    folder: Path,
    config: BertConfig,
    params: Params,
    tokenizer_file: Path,
    label_names: Sequence[str] | None = None,
    inputs: TextInputs = UNSAID,
) -> None:
    """Write a folder that ``transformers`` and ``load_pretrained`` open, whole or not at all.

    Both give the same logits. Where the pooling is not BERT's own, ``transformers`` does so with
    the code in the folder and refuses to without; its README.md says how.

    Args:
      inputs: what the model was trained on; goes into its files.

    Raises:
      UserError: the folder exists and is not empty, the label names do not fit the head, or it
        cannot be written.
    """
    check_free(folder)
    if label_names is not None:
        check_names(label_names, config.num_labels)
    raw = hf_config.config_to_hf(config, label_names)
    if inputs.pairs is not None:
        raw[hf_config.PAIRS_KEY] = inputs.pairs
    max_length = min(inputs.max_length or config.max_positions, config.max_positions)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
        "model_max_length": max_length,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **special_tokens(load_tokenizer(tokenizer_file)),
    }
    with atomic_folder(folder) as scratch:
        hf_config.write_json(scratch / hf_folder.CONFIG, raw)
        hf_config.write_json(scratch / TOKENIZER_CONFIG, tokenizer_config)
        shutil.copyfile(tokenizer_file, scratch / TOKENIZER)
        hf_weights.write_tensors(scratch / hf_weights.WEIGHTS, config, params)
        if config.pooling not in hf_config.OWN:
            code = f"{hf_config.CODE}.py"
            shutil.copyfile(Path(__file__).with_name(code), scratch / code)
        if label_names is not None:
            card = model_card(config, label_names, max_length, pairs=bool(inputs.pairs))
            (scratch / "README.md").write_text(card, encoding="utf-8")


def _max_length(folder: Path, config: BertConfig) -> int | None:
    """``model_max_length`` where the folder has it and the model has as many positions."""
    file = folder / TOKENIZER_CONFIG
    said = hf_config.read_json(file).get("model_max_length") if file.is_file() else None
    if isinstance(said, bool) or not isinstance(said, int) or said < 1:
        return None
    return min(said, config.max_positions)


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
            f"the classifier of {folder} has {found} classes, the task has {num_labels}; without "
            "--no-fine-tune (in Python: fresh_classifier=True) a new head is trained."
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
