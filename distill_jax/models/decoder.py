"""A small decoder: the next token from those before it.

Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training" (GPT): BERT's
layers, each layer norm after the residual sum, in which no position looks at later ones, and logits
that are products with the word embeddings. The layers are those of ``bert``, so an encoder-decoder
is one file with both, and attention from one to the other.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, save_tensors, user_path
from distill_jax.core.language_types import LanguageBatch
from distill_jax.core.types import ModelOutput
from distill_jax.models.bert import Params, encoded
from distill_jax.models.family import register
from distill_jax.models.hf_config import read_json, write_json
from distill_jax.models.hf_folder import CONFIG, check_tokenizer
from distill_jax.models.hf_tokenizer import TOKENIZER
from distill_jax.models.hf_weights import WEIGHTS
from distill_jax.models.language import (
    LanguageConfig,
    LanguageModels,
    asked_states,
    tied_logits,
    words_of,
)
from distill_jax.models.loaded import (
    Loaded,
    TextInputs,
    check_free,
    flat_arrays,
    model_digest,
    read_params,
)

MODEL_TYPE = "distill_jax_decoder"


@dataclasses.dataclass(frozen=True)
class DecoderConfig(LanguageConfig):
    """What a decoder is, apart from its weights."""

    asks: ClassVar[str] = "next"


class Decoder(nn.Module):
    """A causal language model; fields as of ``Bert``."""

    config: DecoderConfig
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, batch: LanguageBatch, *, train: bool = False) -> ModelOutput:
        """Logits [B, P, V] of the tokens that follow the positions asked for."""
        config = self.config
        output = encoded(config, self.dtype, batch, train=train, remat=self.remat, causal=True)
        asked_BPD = asked_states(output.hidden_states[config.num_layers], batch)
        logits_BPV = tied_logits(asked_BPD, words_of(self), self.dtype)
        return output.replace(logits_BC=logits_BPV)  # type: ignore[attr-defined]


class Decoders(LanguageModels):
    """Decoders, in folders of our own."""

    def save(
        self, folder: Path, config: Any, params: Params, tokenizer_file: Path, max_length: int
    ) -> None:
        check_free(folder)
        raw = {
            "model_type": MODEL_TYPE,
            **dataclasses.asdict(config),
            "digest": model_digest(config, params),
            "inputs": {"max_length": max_length},
        }
        with atomic_folder(folder) as scratch:
            write_json(scratch / CONFIG, raw)
            save_tensors(scratch / WEIGHTS, flat_arrays(params))
            shutil.copyfile(tokenizer_file, scratch / TOKENIZER)

    def load(self, reference: str, *, seed: int = 0) -> Loaded:
        folder = user_path(reference)
        where = folder / CONFIG
        if not where.is_file():
            raise UserError(f"{folder} has no {CONFIG}: expected the folder of a decoder.")
        raw = read_json(where)
        if raw.pop("model_type", None) != MODEL_TYPE:
            raise UserError(f"{where} is not of a {MODEL_TYPE}.")
        try:
            expected, inputs = raw.pop("digest"), TextInputs(**raw.pop("inputs", {}))
            config = DecoderConfig(**raw)
        except (KeyError, TypeError, UserError) as error:
            raise UserError(f"{where} is damaged: {error}") from error
        params = read_params(folder, lambda rng: self.init(config, rng))
        if (found := model_digest(config, params)) != expected:
            raise UserError(f"{folder} is damaged: its content has changed since it was saved.")
        tokenizer = folder / TOKENIZER
        check_tokenizer(tokenizer, config.vocab_size)
        return Loaded(config, params, tokenizer, found, None, inputs=inputs)


DECODERS = register(Decoders("decoder", DecoderConfig, Decoder))
