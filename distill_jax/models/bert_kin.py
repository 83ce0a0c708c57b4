"""BERT's relatives: DistilBERT, RoBERTa, XLM-R, ELECTRA, MPNet, and students of DistilBERT's shape.

They are BERT but for what a ``BertKinConfig`` says, and run as ``bert.Bert``. Numbers agree with
transformers' ``...ForSequenceClassification`` in evaluation. In training one thing differs:
RoBERTa, ELECTRA and MPNet have dropout before the dense layer of their head too; here it is after
it alone.

* Sanh et al. 2019, "DistilBERT": half of BERT's layers, no token types, ReLU in the head.
* Liu et al. 2019, "RoBERTa", and Conneau et al. 2020, "XLM-R": positions are counted from the one
  after the padding token's id; the second text of a pair is told by separators, not by types.
* Clark et al. 2020, "ELECTRA": embeddings narrower than the layers, GELU in the head.
* Song et al. 2020, "MPNet": relative positions too, see ``relative_positions``; no token types.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jax import Array

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.types import TokenRange
from distill_jax.models.bert import (
    HEAD_ACTIVATIONS,
    MAX_SIZE,
    Bert,
    BertConfig,
    Params,
    init_bert,
)
from distill_jax.models.family import register
from distill_jax.models.hf_architectures import Architecture, Modules
from distill_jax.models.hf_architectures import register as register_architecture
from distill_jax.models.hf_config import (
    OPTIONAL,
    POOLING_KEY,
    REQUIRED,
    SWITCHES,
    activation_to_hf,
    bert_to_hf,
    check_switches,
    config_of,
)
from distill_jax.models.hf_export import NAMED
from distill_jax.models.hf_family import HfClassifiers
from distill_jax.models.hf_weights import BUFFERS, LAYER_MODULES, bert_modules, layer_modules
from distill_jax.models.loaded import Loaded
from distill_jax.models.students import choose_layers, init_student

DISTILBERT = "distilbert"


@dataclasses.dataclass(frozen=True)
class BertKinConfig(BertConfig):
    """What a relative of BERT is.

    Attributes:
      architecture: which one, by the ``model_type`` of its ``config.json``.
      embedding_size: of the embeddings; None for the width of the layers.
      first_position: row of the position table that the first token has; those before are unused.
      has_types: whether there is a table of token types. With one of a single row, as without,
        the texts of a pair are not told apart by types.
      relative_buckets: of distances between tokens; 0 for no relative positions.
      head_act: of the dense layer before the classes, see ``HEAD_ACTIVATIONS``.
    """

    architecture: str = "roberta"
    embedding_size: int | None = None
    first_position: int = 0
    has_types: bool = True
    relative_buckets: int = 0
    head_act: str = "tanh"
    _from_zero = ("first_position", "relative_buckets")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_act not in HEAD_ACTIVATIONS:
            raise unknown("head_act", self.head_act, HEAD_ACTIVATIONS, where="in the BERT config")
        if self.architecture not in MODEL_TYPES:
            raise unknown("architecture", self.architecture, MODEL_TYPES)
        if self.embedding_size is not None and not 1 <= self.embedding_size <= MAX_SIZE:
            raise UserError(f"BERT config: embeddings of width {self.embedding_size} cannot be.")
        if self.first_position >= self.max_positions:
            raise UserError(
                f"BERT config: of {self.max_positions} positions {self.first_position} are unused."
            )

    @property
    def reads_types(self) -> bool:
        return self.has_types and self.type_vocab_size > 1

    @property
    def token_range(self) -> TokenRange:
        types = self.type_vocab_size if self.reads_types else 2  # read, and told apart by no row
        return TokenRange(self.vocab_size, types, self.max_positions - self.first_position)


def distilbert_config(teacher: BertConfig, pooling: str) -> BertKinConfig:
    """A DistilBERT of half the layers of a BERT."""
    fields = {each.name: getattr(teacher, each.name) for each in dataclasses.fields(BertConfig)}
    layers = max(1, teacher.num_layers // 2)
    fields |= {"num_layers": layers, "layer_norm_eps": 1e-12, "type_vocab_size": 2}
    fields |= {} if pooling == "teacher" else {"pooling": pooling}
    return BertKinConfig(**fields, architecture=DISTILBERT, has_types=False, head_act="relu")


class BertKin(HfClassifiers):
    """BERT's relatives as teachers, and ``distilbert`` as a student."""

    def claims(self, name: str) -> bool:
        return name == DISTILBERT

    def student(self, name: str, teacher: Any, **options: Any) -> BertKinConfig:
        if type(teacher) is not BertConfig:
            layers = max(1, teacher.shape.num_layers // 2)
            raise UserError(
                f"student {name!r} is made of a BERT's layers; of such a teacher take l{layers}, "
                "which has every other layer too"
            )
        config = distilbert_config(teacher, options.get("pooling", "teacher"))
        choose_layers(
            options.get("layers", "spread"),
            student_layers=config.num_layers,
            teacher_layers=teacher.num_layers,
        )
        return config

    def copies(self, name: str) -> bool:
        return True

    def init(self, config: Any, rng: Array) -> Params:
        return init_bert(config, rng)

    def start(self, name: str, teacher: Loaded, rng: Array, **options: Any) -> Params:
        """Layers of the teacher; the first text's type, which every token had, joins positions."""
        config = self.student(name, teacher.config, **options)
        params = init_student(
            f"l{config.num_layers}", teacher.config, teacher.params, rng, **options
        )
        embeddings = dict(params["embeddings"])
        types_XD = embeddings.pop("token_type")["embedding"]
        position_PD = embeddings["position"]["embedding"] + types_XD[:1]
        params = {**params, "embeddings": {**embeddings, "position": {"embedding": position_PD}}}
        if config.pooling == "pooler":  # BERT's has a tanh behind it, DistilBERT's a ReLU
            params["pooling"] = init_bert(config, rng)["pooling"]
        return params


_PLAIN_HEAD = {"classifier.dense": ("pooling", "dense"), "classifier.out_proj": ("classifier",)}
_KNOWN = {key: ours for key, ours in OPTIONAL.items() if key != POOLING_KEY}


def _bert_like(config: BertKinConfig) -> Modules:
    """Modules that are called as BERT's, with the head of RoBERTa and ELECTRA."""
    modules = bert_modules(config)
    own = {
        name: path for name, path in modules.items() if name not in ("pooler.dense", "classifier")
    }
    return {**own, "embeddings_project": ("embeddings", "project"), **_PLAIN_HEAD}


def _distilbert_modules(config: BertKinConfig) -> Modules:
    layer: Modules = {
        "attention.q_lin": ("attention", "query"),
        "attention.k_lin": ("attention", "key"),
        "attention.v_lin": ("attention", "value"),
        "attention.out_lin": ("attention_output",),
        "sa_layer_norm": ("attention_norm",),
        "ffn.lin1": ("intermediate",),
        "ffn.lin2": ("output",),
        "output_layer_norm": ("output_norm",),
    }
    return {
        **_embedding_modules(config),
        **layer_modules("transformer.layer", layer, config.num_layers),
        "pre_classifier": ("pooling", "dense"),
        "classifier": ("classifier",),
    }


def _mpnet_modules(config: BertKinConfig) -> Modules:
    attention: Modules = {
        "attention.attn.q": ("attention", "query"),
        "attention.attn.k": ("attention", "key"),
        "attention.attn.v": ("attention", "value"),
        "attention.attn.o": ("attention_output",),
        "attention.LayerNorm": ("attention_norm",),
    }
    layer = attention | {k: v for k, v in LAYER_MODULES.items() if not k.startswith("attention")}
    return {
        **_embedding_modules(config),
        **layer_modules("encoder.layer", layer, config.num_layers),
        "encoder.relative_attention_bias": ("relative_bias", "table"),
        **_PLAIN_HEAD,
    }


def _embedding_modules(config: BertKinConfig) -> Modules:
    found = bert_modules(config)
    return {name: path for name, path in found.items() if name.startswith("embeddings.")}


def _read(
    raw: Mapping[str, Any], where: str, *, architecture: str, first: str | int = 0, **fixed: Any
) -> BertKinConfig:
    """The config of a relative whose ``config.json`` has BERT's keys.

    Args:
      first: of the positions; ``padding``: the one after the padding token's id.
    """
    check_switches(raw, SWITCHES, where=where)
    if first == "padding":
        padding = raw.get("pad_token_id", 1)
        if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
            raise UserError(f"{where}: pad_token_id must be a whole number, not {padding!r}.")
        first = padding + 1
    return config_of(
        BertKinConfig,
        raw,
        REQUIRED,
        _KNOWN,
        where=where,
        architecture=architecture,
        first_position=first,
        **fixed,
    )


def _read_electra(raw: Mapping[str, Any], where: str) -> BertKinConfig:
    size = raw.get("embedding_size", 128)
    return _read(raw, where, architecture="electra", head_act="gelu", embedding_size=size)


def _read_mpnet(raw: Mapping[str, Any], where: str) -> BertKinConfig:
    check_switches(raw, {"relative_attention_num_buckets": (32, None)}, where=where)
    raw = {key: value for key, value in raw.items() if key != "type_vocab_size"}
    # Its padding token is 1 in its code, whatever config.json says; so are 32 buckets.
    kind: dict[str, Any] = {
        "architecture": "mpnet",
        "first": 2,
        "has_types": False,
        "relative_buckets": 32,
    }
    return _read(raw, where, **kind)


_DISTIL_REQUIRED = {
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "n_layers": "num_layers",
    "n_heads": "num_heads",
    "hidden_dim": "intermediate_size",
}
_DISTIL_OPTIONAL = {
    "max_position_embeddings": "max_positions",
    "activation": "hidden_act",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "seq_classif_dropout": "classifier_dropout",
    "initializer_range": "initializer_range",
}


def _read_distilbert(raw: Mapping[str, Any], where: str) -> BertKinConfig:
    return config_of(
        BertKinConfig,
        raw,
        _DISTIL_REQUIRED,
        _DISTIL_OPTIONAL,
        where=where,
        architecture=DISTILBERT,
        has_types=False,
        head_act="relu",
    )


def _distilbert_to_hf(config: BertKinConfig) -> dict[str, Any]:
    known = {**_DISTIL_REQUIRED, **_DISTIL_OPTIONAL}
    raw = {key: getattr(config, ours) for key, ours in known.items()}
    raw["activation"] = activation_to_hf(raw["activation"])
    if config.classifier_dropout is None:
        raw["seq_classif_dropout"] = config.dropout
    return raw


def _to_hf(config: BertKinConfig) -> dict[str, Any]:
    raw = bert_to_hf(config)
    if config.architecture in ("roberta", "xlm-roberta"):
        raw["pad_token_id"] = config.first_position - 1
    if config.architecture == "electra":
        raw["embedding_size"] = config.embedding_size or config.hidden_size
    if config.architecture == "mpnet":
        raw["relative_attention_num_buckets"] = config.relative_buckets
        del raw["type_vocab_size"]
    return raw


def _register(
    model_type: str,
    prefix: str,
    read: Callable[[Mapping[str, Any], str], BertKinConfig],
    modules: Callable[[Any], Modules],
    class_name: str,
    unused: str,
    **names: Any,
) -> Architecture:
    usual = {"classifier": "classifier.out_proj", "pooler": "classifier.dense", "raw": _to_hf}
    return register_architecture(
        Architecture(
            model_type=model_type,
            config_type=BertKinConfig,
            prefixes=(prefix,),
            config=read,
            modules=modules,
            init=init_bert,
            owns_pooler=True,
            unused=rf"{BUFFERS}|{unused}",
            class_name=f"{class_name}ForSequenceClassification",
            **{**usual, **names},
        )
    )


_ROBERTA = partial(_read, first="padding")
_LM = r"lm_head\..*|pooler\..*"
_ARCHITECTURES = (
    _register(
        DISTILBERT,
        "distilbert.",
        _read_distilbert,
        _distilbert_modules,
        "DistilBert",
        r"vocab_(transform|layer_norm|projector)\..*",
        classifier="classifier",
        pooler="pre_classifier",
        raw=_distilbert_to_hf,
    ),
    _register(
        "roberta",
        "roberta.",
        partial(_ROBERTA, architecture="roberta"),
        _bert_like,
        "Roberta",
        _LM,
    ),
    _register(
        "xlm-roberta",
        "roberta.",
        partial(_ROBERTA, architecture="xlm-roberta"),
        _bert_like,
        "XLMRoberta",
        _LM,
    ),
    _register(
        "electra",
        "electra.",
        _read_electra,
        _bert_like,
        "Electra",
        r"(discriminator_predictions|generator_predictions|generator_lm_head)\..*",
    ),
    _register(
        "mpnet",
        "mpnet.",
        _read_mpnet,
        _mpnet_modules,
        "MPNet",
        _LM,
    ),
)
MODEL_TYPES = BertKin.model_types = tuple(each.model_type for each in _ARCHITECTURES)

BERT_KIN = register(
    BertKin(
        "bert_kin",
        BertKinConfig,
        Bert,
        (DISTILBERT,),
        pools=True,
        tokens=True,
        elsewhere=NAMED,
        embeddings=("embeddings", "word", "embedding"),
    )
)
