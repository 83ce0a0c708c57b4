"""Checkpoints as Hugging Face lays them out: read into our parameters, and written back.

Of BERT here; of its relatives by the files that register them, see ``hf_architectures``.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Mapping, Sequence
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
from distill_jax.models.bert import Params
from distill_jax.models.hf_architectures import (
    Architecture,
    architecture_in,
    architecture_of,
)
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
    """A BERT, or a relative of it, as loaded, for ``Bert(config).apply({"params": params}, ...)``;
    other kinds have other modules, see ``build.build_model``."""

    config: Any
    tokenizer_file: Path


def load_pretrained(
    reference: str | Path,
    *,
    pooling: str | None = None,
    num_labels: int | None = None,
    fresh_classifier: bool = False,
    seed: int = 0,
    home: Path | None = None,
    model_types: Collection[str] | None = ("bert",),
    heads: Collection[str] | None = None,
) -> Pretrained:
    """Load a checkpoint with safetensors weights; no pickle is read and no code is run.

    Args:
      reference: a local folder, or an id on the Hugging Face hub.
      pooling: ``pooler`` (drawn where the checkpoint has none), ``mean`` or ``cls``; None for what
        the checkpoint was saved with (the pooler it has where it does not say).
      num_labels: classes of the task; None for those of the checkpoint's head, 2 without one.
      fresh_classifier: leave the checkpoint's head out and draw a new one.
      seed: of everything drawn.
      home: where a ``tokenizer.json`` made from ``vocab.txt`` is kept.
      model_types: the kinds that will do; None for all that are registered.
      heads: kinds of trained heads that will do, see ``hf_config.check_head``; None for those of
        one class, and of models of ours whatever they say.

    Raises:
      UserError: an unsupported or damaged file; a key that is unknown, missing or of a wrong
        shape; a head with another number of classes.
    """
    folder = hf_folder.find_folder(reference)
    config_file = folder / hf_folder.CONFIG
    if not config_file.is_file():
        raise UserError(f"{folder} has no {hf_folder.CONFIG}.")
    raw = hf_config.flat(hf_config.read_json(config_file), str(config_file))
    kind = architecture_in(raw, where=str(config_file), allowed=model_types)
    config = kind.config(raw, str(config_file))
    tensors = hf_weights.read_tensors(folder)
    tensors = hf_weights.standard_names(tensors, kind.prefixes, where=str(folder))
    tensors = hf_weights.one_head(tensors, kind.classifier)
    tensors, ignored = hf_weights.split_unused(tensors, kind.unused)
    notes = [f"not used: {_summary(ignored)}"] if ignored else []

    tokenizer = hf_folder.find_tokenizer(folder, vocab_size=config.vocab_size, home=home)
    notes += tokenizer.notes
    config = dataclasses.replace(config, pooling=pooling or config.pooling)
    if kind.owns_pooler and (fresh_classifier or config.pooling != "pooler"):
        tensors = _without_head(kind, tensors, notes)
    tensors, pooler_is_fresh = _choose_pooler(kind, config, tensors, pooling, folder, notes)
    config, head_is_fresh = _choose_head(
        kind, config, tensors, num_labels, fresh_classifier, folder
    )
    if head_is_fresh:
        tensors = _without(f"{kind.classifier}.", tensors, notes, _REPLACED)
    elif (folder / hf_folder.TASK).is_file():
        pass  # who opens such a folder reads that file
    elif heads is None:
        hf_config.check_single_label(raw, where=str(config_file))
    else:
        hf_config.check_head(raw, heads, where=str(config_file))
    fresh = ["pooler"] * pooler_is_fresh + ["classifier"] * head_is_fresh

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
    config: Any,
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
    raw = _config_to_hf(config, label_names)
    if inputs.pairs is not None:
        raw[hf_config.PAIRS_KEY] = inputs.pairs
    positions = config.token_range.positions
    max_length = min(inputs.max_length or positions, positions)
    types = ["token_type_ids"] if config.reads_types else []
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
        "model_max_length": max_length,
        "model_input_names": ["input_ids", *types, "attention_mask"],
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


_REPLACED = "the checkpoint's classifier was replaced by a fresh one"


def _config_to_hf(config: Any, label_names: Sequence[str] | None) -> dict[str, Any]:
    """``config.json``; of a BERT whose pooling is not its own as ``hf_config`` has it."""
    kind = architecture_of(config)
    if kind is hf_weights.BERT:
        return hf_config.config_to_hf(config, label_names)
    labels = hf_config.labels_to_hf(label_names, config.num_labels)
    head = {"model_type": kind.model_type, "architectures": [kind.class_name]}
    return {**head, **kind.raw(config), **labels}


def _max_length(folder: Path, config: Any) -> int | None:
    """``model_max_length`` where the folder has it and the model has as many positions."""
    file = folder / TOKENIZER_CONFIG
    said = hf_config.read_json(file).get("model_max_length") if file.is_file() else None
    if isinstance(said, bool) or not isinstance(said, int) or said < 1:
        return None
    return min(said, config.token_range.positions)


Tensors = dict[str, np.ndarray]


def _without(start: str, tensors: Tensors, notes: list[str], told: str) -> Tensors:
    """The tensors whose names begin otherwise; where some did not, a note says so."""
    dropped = [name for name in tensors if name.startswith(start)]
    if dropped and told not in notes:
        notes.append(told)
    return {name: tensors[name] for name in tensors if name not in dropped}


def _without_head(kind: Architecture, tensors: Tensors, notes: list[str]) -> Tensors:
    """The tensors without a head of several layers, which go together."""
    for name in (kind.classifier, kind.pooler):
        tensors = _without(f"{name}.", tensors, notes, _REPLACED)
    return tensors


def _choose_pooler(
    kind: Architecture,
    config: Any,
    tensors: Tensors,
    pooling: str | None,
    folder: Path,
    notes: list[str],
) -> tuple[Tensors, bool]:
    """The tensors without a pooler that is not used, and whether one has to be drawn."""
    name = f"{kind.pooler}."
    if config.pooling != "pooler":
        told = f"pooler not used with pooling={config.pooling!r}"
        return _without(name, tensors, notes, told), False
    missing = not any(each.startswith(name) for each in tensors)
    if kind.owns_pooler:  # half a head is a damaged one
        return tensors, missing and f"{kind.classifier}.weight" not in tensors
    if missing and pooling is None:
        raise UserError(
            f"{folder} has no pooler weights. --teacher-pooling (in Python: pooling=) mean or "
            "cls does without; pooler draws one at random, to be fine-tuned."
        )
    return tensors, missing


def _choose_head(
    kind: Architecture,
    config: Any,
    tensors: Mapping[str, np.ndarray],
    num_labels: int | None,
    fresh_classifier: bool,
    folder: Path,
) -> tuple[Any, bool]:
    """The config with its number of classes, and whether the head has to be drawn."""
    weight = tensors.get(f"{kind.classifier}.weight")
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
    config: Any,
    tensors: Mapping[str, np.ndarray],
    fresh: Sequence[str],
    seed: int,
    *,
    where: str,
) -> Params:
    """All parameters: the checkpoint's, and the ``fresh`` parts drawn by ``seed``."""
    table = hf_weights.weight_table(config)
    normal = nn.initializers.normal(config.initializer_range)
    drawn = {_PARTS[name] for name in fresh}
    here = tuple(entry for entry in table if entry.path[0] not in drawn)
    flat: dict[Any, Any] = {}
    for i, entry in enumerate(entry for entry in table if entry not in here):
        draw = nn.initializers.zeros if entry.path[-1] == "bias" else normal
        flat[entry.path] = draw(jax.random.fold_in(jax.random.key(seed), i), entry.shape)
    flat |= hf_weights.params_from_tensors(here, tensors, where=where)
    return unflatten_dict({path: jnp.asarray(leaf) for path, leaf in flat.items()})


_PARTS = {"pooler": "pooling", "classifier": "classifier"}


def _summary(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
