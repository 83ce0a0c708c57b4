"""Families of language models: how one is called, drawn, saved and loaded; see ``family``."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.language_types import LanguageBatch, least_batch
from distill_jax.core.types import ModelShape
from distill_jax.models.bert import BertConfig, Params
from distill_jax.models.family import Family
from distill_jax.models.loaded import Loaded
from distill_jax.models.students import parse_preset

_WIDTH = re.compile(r"([1-9]\d*)x([1-9]\d*)")
HEAD_SIZE = 64
"""Of the heads of a model whose name says none, as BERT has them."""


@dataclasses.dataclass(frozen=True)
class LanguageConfig(BertConfig):
    """What a language model on BERT's layers is, apart from its weights.

    Attributes:
      asks: the question that it answers, ``masked`` or ``next``.
    """

    asks: ClassVar[str] = ""

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know of this model: its classes are its tokens."""
        return dataclasses.replace(super().shape, num_labels=self.vocab_size)


@dataclasses.dataclass(frozen=True)
class LanguageModels(Family):
    """A family of language models: they read a ``LanguageBatch`` and say logits of what it asks."""

    @property
    def asks(self) -> str:
        """See ``LanguageConfig``."""
        return self.config_type.asks  # type: ignore[attr-defined]

    def sized(self, name: str, *, vocab_size: int, positions: int) -> Any:
        """The config of a model that starts by chance.

        Args:
          name: ``tiny``, ``LAYERSxWIDTHxHEADS``, or ``LAYERSxWIDTH`` with heads of ``HEAD_SIZE``.

        Raises:
          UserError: for any other.
        """
        layers, width, heads = _sizes(name)
        return self.config_type(vocab_size, width, layers, heads, 4 * width, positions)

    def init(self, config: Any, rng: Array) -> Params:
        """Fresh float32 parameters, drawn from a jax random key."""
        return _drawn(self.module, config, rng)

    def save(
        self, folder: Path, config: Any, params: Params, tokenizer_file: Path, max_length: int
    ) -> None:
        """Fill an empty folder that ``load`` opens.

        Args:
          max_length: tokens that texts were cut at.
        """
        raise NotImplementedError

    def load(self, reference: str, *, seed: int = 0) -> Loaded:
        """A model of the family, in a folder or wherever ``find_folder`` finds it.

        Args:
          seed: of parts that are not there.

        Raises:
          UserError: there is none, or it is damaged.
        """
        raise NotImplementedError


def tied_logits(hidden_BPD: Array, words_VD: Array, dtype: Any) -> Array:
    """Logits [B, P, V] of all tokens: products with their embeddings, float32.

    One flat product, for the reason that ``bert.Dense`` has.
    """
    B, P, width = hidden_BPD.shape
    rows_ND = hidden_BPD.reshape(B * P, width).astype(dtype)
    logits_NV = jnp.einsum(
        "ND,VD->NV", rows_ND, words_VD.astype(dtype), preferred_element_type=jnp.float32
    )
    return logits_NV.reshape(B, P, words_VD.shape[0])


def asked_states(hidden_BTD: Array, batch: LanguageBatch) -> Array:
    """The hidden states [B, P, D] where a token is asked for."""
    positions_BP = batch.positions_BP
    assert positions_BP is not None, "a batch of a language model asks for tokens"
    return jnp.take_along_axis(hidden_BTD, positions_BP[:, :, None], axis=1)


def words_of(module: nn.Module) -> Array:
    """The embeddings [V, D] of a module that called ``bert.encoded``."""
    return module.variables["params"]["embeddings"]["word"]["embedding"]


def _sizes(name: str) -> tuple[int, int, int]:
    if short := _WIDTH.fullmatch(name):
        layers, width = int(short[1]), int(short[2])
        if width > HEAD_SIZE and width % HEAD_SIZE:
            raise UserError(
                f"size {name!r}: width {width} is no multiple of {HEAD_SIZE}; name the heads too, "
                "LAYERSxWIDTHxHEADS"
            )
        return layers, width, max(1, width // HEAD_SIZE)
    preset = parse_preset(name)
    if preset.hidden_size is None or preset.num_heads is None:
        raise UserError(
            f"size {name!r} is a student of its teacher's layers; a language model starts by "
            "chance: LAYERSxWIDTH (4x256), LAYERSxWIDTHxHEADS or tiny"
        )
    return preset.num_layers, preset.hidden_size, preset.num_heads


@partial(jax.jit, static_argnums=(0, 1))
def _drawn(module: Any, config: Any, rng: Array) -> Params:
    return module(config).init(rng, least_batch())["params"]
