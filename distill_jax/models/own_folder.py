"""A model as loaded, and the house's own folder: ``config.json`` and parameters by our names."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, save_tensors
from distill_jax.models.bert import Params
from distill_jax.models.hf_config import read_json
from distill_jax.models.hf_folder import CONFIG, check_tokenizer
from distill_jax.models.hf_tokenizer import TOKENIZER
from distill_jax.models.hf_weights import WEIGHTS, read_tensors


@dataclasses.dataclass(frozen=True)
class TextInputs:
    """What texts a model was trained on, as far as its folder says.

    Attributes:
      max_length: tokens after which they are cut.
      pairs: whether each example is a pair of texts.
    """

    max_length: int | None = None
    pairs: bool | None = None


UNSAID = TextInputs()


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A classifier as loaded.

    Attributes:
      config: what it is, apart from its weights; see ``family.ModelConfig``.
      params: float32.
      tokenizer_file: a ``tokenizer.json``; None for models of images.
      digest: of the config and of every parameter's content.
      label_names: the classes the head was trained for, in order; None where the head is fresh
        or the folder does not say.
      fresh: parts that were drawn by seed: ``classifier``, ``pooler``, ``all of it``.
      notes: what was left out of a checkpoint and why, a line each.
      inputs: what texts it was trained on.
    """

    config: Any
    params: Params
    tokenizer_file: Path | None
    digest: str
    label_names: tuple[str, ...] | None
    fresh: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    inputs: TextInputs = UNSAID


def model_digest(config: Any, params: Params) -> str:
    """Content digest of a model: its config, and every parameter's name, shape and bytes."""
    return digest({"config": config, "params": digest_arrays(flat_arrays(params))})


def flat_arrays(params: Params) -> dict[str, np.ndarray]:
    """Parameters by name, ``layer/kernel``."""
    flat = flatten_dict(params, sep="/")
    return {name: np.ascontiguousarray(leaf) for name, leaf in flat.items()}


def check_free(folder: Path) -> None:
    """Raises ``UserError`` for a folder with something in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose another folder.")


def check_names(label_names: Sequence[str], num_labels: int) -> None:
    """Raises ``UserError`` for label names that do not fit a head."""
    if (found := len(set(label_names))) != num_labels:
        raise UserError(f"{found} different label names for a head of {num_labels}.")


def save_own(
    folder: Path,
    kind: str,
    config: Any,
    params: Params,
    label_names: Sequence[str],
    tokenizer_file: Path | None = None,
    inputs: TextInputs = UNSAID,
) -> None:
    """Write a folder that ``load_own`` opens, whole or not at all.

    Raises:
      UserError: the folder exists and is not empty, or the label names do not fit the head.
    """
    check_free(folder)
    check_names(label_names, config.num_labels)
    raw: dict[str, Any] = {
        "model_type": kind,
        **dataclasses.asdict(config),
        "label_names": list(label_names),
        "digest": model_digest(config, params),
    }
    if tokenizer_file is not None:
        raw["inputs"] = dataclasses.asdict(inputs)
    with atomic_folder(folder) as scratch:
        text = json.dumps(raw, indent=2, ensure_ascii=False)
        (scratch / CONFIG).write_text(text + "\n", encoding="utf-8")
        save_tensors(scratch / WEIGHTS, flat_arrays(params))
        if tokenizer_file is not None:
            shutil.copyfile(tokenizer_file, scratch / TOKENIZER)


def load_own(
    folder: Path, kind: str, config_type: Any, init: Callable[[Any, Array], Params]
) -> Loaded:
    """Read what ``save_own`` wrote, and verify it against the digest written with it.

    Args:
      init: draws the parameters of a config.

    Raises:
      UserError: a file is missing, damaged, changed, or not of this kind.
    """
    where = folder / CONFIG
    raw = read_json(where)
    if raw.pop("model_type", None) != kind:
        raise UserError(f"{where} is not of a {kind} saved by distill_jax.")
    try:
        names, expected = tuple(map(str, raw.pop("label_names"))), raw.pop("digest")
        inputs = TextInputs(**raw.pop("inputs", {}))
        config = config_type(**{k: tuple(v) if type(v) is list else v for k, v in raw.items()})
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{where} is damaged: {error}") from error
    if len(names) != config.num_labels:
        raise UserError(f"{where}: {len(names)} label names for a head of {config.num_labels}.")
    params = read_params(folder, lambda rng: init(config, rng))
    found = model_digest(config, params)
    if found != expected:
        raise UserError(f"{folder} is damaged: its content has changed since it was saved.")
    tokenizer = folder / TOKENIZER if (folder / TOKENIZER).is_file() else None
    if tokenizer is not None:
        check_tokenizer(tokenizer, config.token_range.tokens)
    return Loaded(config, params, tokenizer, found, names, inputs=inputs)


def read_params(folder: Path, init: Callable[[Array], Params]) -> Params:
    """The parameters in a folder, of the names and shapes that ``init`` draws.

    Raises:
      UserError: they are missing, damaged, or others.
    """
    flat = read_tensors(folder)
    template = flatten_dict(jax.eval_shape(init, jax.random.key(0)), sep="/")
    if {name: x.shape for name, x in flat.items()} != {n: x.shape for n, x in template.items()}:
        raise UserError(
            f"{folder / WEIGHTS} does not hold the parameters that {folder / CONFIG} asks for."
        )
    return unflatten_dict({name: jnp.asarray(array) for name, array in flat.items()}, sep="/")
