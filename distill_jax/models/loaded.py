"""A model as loaded, and what the folders of models have in common."""

from __future__ import annotations

import dataclasses
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
from distill_jax.core.fields import check_fields
from distill_jax.models.bert import Params
from distill_jax.models.hf_folder import CONFIG
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

    def __post_init__(self) -> None:
        check_fields(self)


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
    return {k: np.asarray(leaf, order="C") for k, leaf in flatten_dict(params, sep="/").items()}


def check_free(folder: Path) -> None:
    """Raises ``UserError`` for a folder with something in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose another folder.")


def check_names(label_names: Sequence[str], num_labels: int) -> None:
    """Raises ``UserError`` for label names that do not fit a head."""
    if (found := len(set(label_names))) != num_labels:
        raise UserError(f"{found} different label names for a head of {num_labels}.")


def read_params(folder: Path, init: Callable[[Array], Params]) -> Params:
    """The parameters in a folder, of the names and shapes that ``init`` draws.

    Raises:
      UserError: they are missing, damaged, or others.
    """
    flat = read_tensors(folder)
    template = flatten_dict(jax.eval_shape(init, jax.random.key(0)), sep="/")
    found, due = ({name: (x.shape, x.dtype) for name, x in t.items()} for t in (flat, template))
    if found != due:
        raise UserError(
            f"{folder / WEIGHTS} does not hold the parameters that {folder / CONFIG} asks for."
        )
    return unflatten_dict({name: jnp.asarray(array) for name, array in flat.items()}, sep="/")
