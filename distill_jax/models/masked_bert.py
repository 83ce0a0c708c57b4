"""BERT as a masked language model, as ``transformers``' ``BertForMaskedLM`` computes it.

Devlin et al. 2019, section 3.1. The logits of a position are its hidden state after a dense layer,
the activation and a layer norm, times the word embeddings, plus a bias; of the positions that are
asked for alone.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.files import atomic_folder, save_tensors
from distill_jax.core.language_types import LanguageBatch
from distill_jax.core.types import ModelOutput
from distill_jax.models import hf_config, hf_folder, hf_weights
from distill_jax.models.bert import ACTIVATIONS, BertConfig, Dense, LayerNorm, Params, encoded
from distill_jax.models.family import register
from distill_jax.models.hf_tokenizer import (
    TOKENIZER,
    TOKENIZER_CONFIG,
    load_tokenizer,
    special_tokens,
)
from distill_jax.models.hf_weights import Entry
from distill_jax.models.language import (
    LanguageConfig,
    LanguageModels,
    asked_states,
    tied_logits,
    words_of,
)
from distill_jax.models.loaded import Loaded, TextInputs, check_free, model_digest

HEAD = "mlm"
_PREDICTIONS = "cls.predictions."
_TIED = f"{_PREDICTIONS}decoder.weight"
_PREFIXES = ("bert.", "backbone.")
_UNUSED = ("cls.seq_relationship.", "pooler.", "classifier.", "embeddings.position_ids")


@dataclasses.dataclass(frozen=True)
class MaskedBertConfig(LanguageConfig):
    """What a masked BERT is, apart from its weights. Without a pooler: the pooling is that of
    classifiers that start from it."""

    asks: ClassVar[str] = "masked"
    pooling: str = "mean"


class MaskedBert(nn.Module):
    """A masked language model; fields as of ``Bert``."""

    config: MaskedBertConfig
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, batch: LanguageBatch, *, train: bool = False) -> ModelOutput:
        """Logits [B, P, V] of what is asked, hidden states and attention of all positions."""
        config = self.config
        output = encoded(config, self.dtype, batch, train=train, remat=self.remat)
        asked_BPD = asked_states(output.hidden_states[config.num_layers], batch)
        logits_BPV = MaskedHead(config, self.dtype, name=HEAD)(asked_BPD, words_of(self))
        return output.replace(logits_BC=logits_BPV)  # type: ignore[attr-defined]


class MaskedHead(nn.Module):
    """From hidden states [B, P, D] to logits [B, P, V]."""

    config: MaskedBertConfig
    dtype: Any

    @nn.compact
    def __call__(self, hidden_BPD: Array, words_VD: Array) -> Array:
        config = self.config
        dense = Dense(config.hidden_size, self.dtype, config.initializer_range, name="dense")
        made_BPD = ACTIVATIONS[config.hidden_act](dense(hidden_BPD))
        made_BPD = LayerNorm(config.layer_norm_eps, self.dtype, name="norm")(made_BPD)
        bias_V = self.param("bias", nn.initializers.zeros, (config.vocab_size,), jnp.float32)
        return tied_logits(made_BPD, words_VD, self.dtype) + bias_V[None, None, :]


def head_table(config: BertConfig) -> tuple[Entry, ...]:
    """The parameters of the head, by the names that ``BertForMaskedLM`` has for them."""
    width, transform = config.hidden_size, f"{_PREDICTIONS}transform."
    dense, norm = (HEAD, "dense"), (HEAD, "norm")
    return (
        Entry(f"{transform}dense.weight", (*dense, "kernel"), (width, width), transposed=True),
        Entry(f"{transform}dense.bias", (*dense, "bias"), (width,), transposed=False),
        Entry(f"{transform}LayerNorm.weight", (*norm, "scale"), (width,), transposed=False),
        Entry(f"{transform}LayerNorm.bias", (*norm, "bias"), (width,), transposed=False),
        Entry(f"{_PREDICTIONS}bias", (HEAD, "bias"), (config.vocab_size,), transposed=False),
    )


def masked_table(config: MaskedBertConfig) -> tuple[Entry, ...]:
    """Every parameter of ``MaskedBert(config)`` with its Hugging Face name."""
    fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(BertConfig)}
    bert = hf_weights.weight_table(BertConfig(**{**fields, "pooling": "mean", "num_labels": 2}))
    encoder = tuple(entry for entry in bert if entry.path[0] != "classifier")
    return encoder + head_table(config)


class MaskedBerts(LanguageModels):
    """BERTs that say hidden words, in folders that ``BertForMaskedLM`` opens."""

    def save(
        self, folder: Path, config: Any, params: Params, tokenizer_file: Path, max_length: int
    ) -> None:
        check_free(folder)
        raw = hf_config.config_to_hf(dataclasses.replace(config, pooling="pooler"), None)
        raw = {key: value for key, value in raw.items() if key not in ("id2label", "label2id")}
        raw |= {
            "architectures": ["BertForMaskedLM"],
            "tie_word_embeddings": True,
            hf_config.POOLING_KEY: config.pooling,  # of classifiers made of it: it has no pooler
        }
        tokens = {
            "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
            "model_max_length": min(max_length, config.max_positions),
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            **special_tokens(load_tokenizer(tokenizer_file)),
        }
        with atomic_folder(folder) as scratch:
            hf_config.write_json(scratch / hf_folder.CONFIG, raw)
            hf_config.write_json(scratch / TOKENIZER_CONFIG, tokens)
            shutil.copyfile(tokenizer_file, scratch / TOKENIZER)
            _write(scratch / hf_weights.WEIGHTS, config, params)

    def load(self, reference: str, *, seed: int = 0) -> Loaded:
        folder = hf_folder.find_folder(reference)
        file = folder / hf_folder.CONFIG
        if not file.is_file():
            raise UserError(f"{folder} has no {hf_folder.CONFIG}.")
        bert = hf_config.config_from_hf(hf_config.read_json(file), where=str(file))
        fields = {f.name: getattr(bert, f.name) for f in dataclasses.fields(BertConfig)}
        config = MaskedBertConfig(**{**fields, "pooling": "mean", "num_labels": 2})
        tensors = hf_weights.read_tensors(folder)
        tensors = hf_weights.standard_names(tensors, _PREFIXES, where=str(folder))
        tensors, notes = _of_masked(tensors, folder)
        tokenizer = hf_folder.find_tokenizer(folder, vocab_size=config.vocab_size)
        params, fresh = self._params(config, tensors, seed, where=str(folder))
        if fresh:
            notes += ("it has no head of a masked language model: one is drawn",)
        return Loaded(
            config=config,
            params=params,
            tokenizer_file=tokenizer.file,
            digest=model_digest(config, params),
            label_names=None,
            fresh=fresh,
            notes=(*notes, *tokenizer.notes),
            inputs=TextInputs(),
        )

    def _params(
        self, config: MaskedBertConfig, tensors: Mapping[str, np.ndarray], seed: int, *, where: str
    ) -> tuple[Params, tuple[str, ...]]:
        """The parameters, and what of them was drawn."""
        head = {entry.hf_name for entry in head_table(config)}
        table = masked_table(config)
        fresh = not head & tensors.keys()
        if fresh:
            table = tuple(entry for entry in table if entry.hf_name not in head)
        flat: dict[Any, Any] = hf_weights.params_from_tensors(table, tensors, where=where)
        if fresh:
            drawn = flatten_dict(self.init(config, jax.random.key(seed)))
            flat |= {path: leaf for path, leaf in drawn.items() if path[0] == HEAD}
        params = unflatten_dict({path: jnp.asarray(leaf) for path, leaf in flat.items()})
        return params, (HEAD,) if fresh else ()


def _write(file: Path, config: MaskedBertConfig, params: Params) -> None:
    leaves = flatten_dict(params)
    tensors = {}
    for entry in masked_table(config):
        array = np.asarray(leaves[entry.path], np.float32)
        prefix = "" if entry.hf_name.startswith("cls.") else "bert."
        array = array.T if entry.transposed else array
        tensors[prefix + entry.hf_name] = np.ascontiguousarray(array)
    save_tensors(file, tensors, metadata={"format": "pt"})


def _of_masked(
    tensors: Mapping[str, np.ndarray], folder: Path
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The tensors that a masked language model has, and what is said of the others.

    Raises:
      UserError: for a head whose word embeddings are its own.
    """
    unused = [name for name in tensors if name.startswith(_UNUSED)]
    kept = {name: array for name, array in tensors.items() if name not in unused}
    tied = kept.pop(_TIED, None)
    words = kept.get("embeddings.word_embeddings.weight")
    if tied is not None and (words is None or not np.array_equal(tied, words)):
        raise UserError(
            f"{folder}: {_TIED} is not the word embeddings; supported are heads that share them."
        )
    bias = kept.pop(f"{_PREDICTIONS}decoder.bias", None)
    if bias is not None:
        kept.setdefault(f"{_PREDICTIONS}bias", bias)
    shown = ", ".join(sorted({name.split(".")[0] for name in unused}))
    return kept, (f"not used: {shown}",) if unused else ()


MASKED_BERTS = register(MaskedBerts("masked_bert", MaskedBertConfig, MaskedBert))
