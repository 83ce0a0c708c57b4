"""MobileBERT: layers as wide as a large teacher's outside, and narrow inside.

Sun et al. 2020, "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices": each layer
begins with a bottleneck and ends with one back, so that its feature maps are as wide as its
teacher's; four feed-forward networks are stacked; layer norm is replaced by an affine map that
depends on no statistics (section 3.4.2); embeddings are narrow, and each token's layers read its
neighbours' too. Numbers agree with transformers' ``MobileBertForSequenceClassification``, in
evaluation, as that answers each text alone: behind the last token, where transformers puts the
padding token's embedding in a batch with longer texts, here are zeros.

Shape suffixes: as in ``bert``; N width of the bottleneck, E of the embeddings.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.fields import check_fields
from distill_jax.core.types import Batch, ModelOutput, ModelShape, TokenRange, as_batch
from distill_jax.models.bert import (
    ACTIVATIONS,
    MAX_LAYERS,
    MAX_SIZE,
    POOLINGS,
    TOKENS,
    Dense,
    Params,
    Pooling,
    SelfAttention,
)
from distill_jax.models.dropout import Dropout
from distill_jax.models.family import family_of, register
from distill_jax.models.hf_architectures import Architecture, Modules
from distill_jax.models.hf_architectures import register as register_architecture
from distill_jax.models.hf_config import (
    OPTIONAL,
    POOLING_KEY,
    REQUIRED,
    SWITCHES,
    activation_to_hf,
    check_switches,
    config_of,
)
from distill_jax.models.hf_export import NAMED
from distill_jax.models.hf_family import HfClassifiers
from distill_jax.models.hf_weights import BUFFERS, layer_modules
from distill_jax.models.loaded import Loaded
from distill_jax.models.narrowed import check_embeddings, embeddings_from


@dataclasses.dataclass(frozen=True)
class MobileBertConfig:
    """What a MobileBERT is, apart from its weights; as ``BertConfig`` but for these.

    Attributes:
      hidden_size: of the feature maps between layers.
      bottleneck_size: inside a layer, a multiple of the heads.
      intermediate_size: of each feed-forward network.
      embedding_size: of the embeddings of words, three of which make a token's.
      feed_forwards: stacked in each layer.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    bottleneck_size: int
    embedding_size: int = 128
    feed_forwards: int = 4
    max_positions: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "relu"
    dropout: float = 0.0
    attention_dropout: float = 0.1
    classifier_dropout: float | None = None
    initializer_range: float = 0.02
    pooling: str = "pooler"
    num_labels: int = 2
    arithmetic: ClassVar[str] = "float32"
    head_act: ClassVar[str] = "tanh"
    reads_types: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        if self.hidden_act not in ACTIVATIONS:
            raise unknown("hidden_act", self.hidden_act, ACTIVATIONS, where="in the MobileBERT")
        if self.pooling not in (*POOLINGS, TOKENS):
            raise unknown("pooling", self.pooling, POOLINGS, where="in the MobileBERT config")
        for name in (each.name for each in dataclasses.fields(self) if each.type == "int"):
            most = MAX_LAYERS if name in ("num_layers", "feed_forwards") else MAX_SIZE
            if not 1 <= (value := getattr(self, name)) <= most:
                raise UserError(f"MobileBERT: {name} must be from 1 to {most}, got {value}.")
        if self.bottleneck_size % self.num_heads:
            raise UserError(
                f"MobileBERT: a bottleneck of {self.bottleneck_size} is not a multiple of "
                f"{self.num_heads} heads."
            )
        for name in ("dropout", "attention_dropout", "classifier_dropout"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate < 1:
                raise UserError(f"MobileBERT: {name} must be in [0, 1), got {rate}.")
        if not 0 <= self.initializer_range < MAX_SIZE:
            raise UserError(f"MobileBERT: initializer_range {self.initializer_range} cannot be.")

    @property
    def attention_width(self) -> int:
        """Of the queries, keys and values of all heads together."""
        return self.bottleneck_size

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know of this model."""
        sizes = self.num_layers, self.hidden_size, self.num_heads
        return ModelShape(*sizes, self.num_labels, self.pooling == TOKENS)

    @property
    def token_range(self) -> TokenRange:
        """What it has embeddings for."""
        return TokenRange(self.vocab_size, self.type_vocab_size, self.max_positions)


class MobileBert(nn.Module):
    """MobileBERT with a classification head.

    Attributes:
      config: sizes, rates, pooling.
      dtype: of the computation; the attention scores, their softmax and the logits are float32.
    """

    config: MobileBertConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ModelOutput:
        """Everything the model says of a batch, as of ``Bert``.

        Args:
          batch: tokens [B, T] with their ``where``; labels are not read.
          train: dropout on; needs the rng stream ``"dropout"``.

        Raises:
          UserError: T is over the config's ``max_positions``.
        """
        config: Any = self.config
        hidden_BTD = Embeddings(config, self.dtype, name="embeddings")(batch, train=train)
        output = ModelOutput(hidden_states={0: hidden_BTD})
        for number in range(1, config.num_layers + 1):
            layer = Layer(config, self.dtype, name=f"layer_{number}")
            hidden_BTD, attention = layer(hidden_BTD, batch.where_BT, train=train)
            output.hidden_states[number] = hidden_BTD
            for kind, array in attention.items():
                getattr(output, kind)[number] = array
        pooled = hidden_BTD  # [B, T, D], or [B, D]
        if config.pooling != TOKENS:
            pooled = Pooling(config, self.dtype, name="pooling")(hidden_BTD, batch.where_BT)
        rate = config.dropout if config.classifier_dropout is None else config.classifier_dropout
        pooled = Dropout(rate)(pooled.astype(jnp.float32), train=train)
        head = Dense(config.num_labels, jnp.float32, config.initializer_range, name="classifier")
        return output.replace(logits_BC=head(pooled))  # type: ignore[attr-defined]


class Embeddings(nn.Module):
    """Three words' embeddings made one, with position and token type: [B, T] -> [B, T, D]."""

    config: MobileBertConfig
    dtype: Any

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Array:
        config = self.config
        length = batch.input_ids_BT.shape[1]
        if length > config.max_positions:
            raise UserError(
                f"a batch has {length} tokens a row; the model has positions for "
                f"{config.max_positions}. Shorten the texts (max_length)."
            )
        init = nn.initializers.normal(config.initializer_range)
        embed = partial(nn.Embed, dtype=self.dtype, embedding_init=init)
        word_BTE = embed(config.vocab_size, config.embedding_size, name="word")(batch.input_ids_BT)
        word_BTE = jnp.where(batch.where_BT[:, :, None], word_BTE, jnp.zeros((), self.dtype))
        around_BTE = jnp.pad(word_BTE, ((0, 0), (1, 1), (0, 0)))
        three = [around_BTE[:, 2 : 2 + length], word_BTE, around_BTE[:, :length]]
        project = Dense(config.hidden_size, self.dtype, config.initializer_range, name="project")
        hidden_BTD = project(jnp.concatenate(three, axis=-1))
        positions = embed(config.max_positions, config.hidden_size, name="position").embedding
        hidden_BTD = hidden_BTD + positions[None, :length].astype(self.dtype)
        types = embed(config.type_vocab_size, config.hidden_size, name="token_type")
        hidden_BTD = NoNorm(self.dtype, name="norm")(hidden_BTD + types(batch.token_type_ids_BT))
        return Dropout(config.dropout)(hidden_BTD, train=train)


class Layer(nn.Module):
    """One layer: two bottlenecks in, attention, stacked feed-forward networks, one bottleneck out.

    Queries and keys read a bottleneck of their own, values the whole feature map.
    """

    config: MobileBertConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden_BTD: Array, where_BT: Array, *, train: bool
    ) -> tuple[Array, dict[str, Array]]:
        config: Any = self.config
        dense = partial(Dense, dtype=self.dtype, init_std=config.initializer_range)
        norm = partial(NoNorm, self.dtype)

        def bottleneck(name: str) -> Array:
            narrow_BTN = dense(config.bottleneck_size, name=name)(hidden_BTD)
            return norm(name=f"{name}_norm")(narrow_BTN)

        inside_BTN, shared_BTN = bottleneck("bottleneck"), bottleneck("attention_bottleneck")
        context_BTN, attention = SelfAttention(config, self.dtype, name="attention")(
            shared_BTN, where_BT, train=train, value_BTE=hidden_BTD
        )
        attended_BTN = dense(config.bottleneck_size, name="attention_output")(context_BTN)
        inside_BTN = norm(name="attention_norm")(attended_BTN + inside_BTN)
        for number in range(1, config.feed_forwards + 1):
            up_BTF = dense(config.intermediate_size, name=f"intermediate_{number}")(inside_BTN)
            act_BTF = ACTIVATIONS[config.hidden_act](up_BTF)
            down_BTN = dense(config.bottleneck_size, name=f"output_{number}")(act_BTF)
            inside_BTN = norm(name=f"output_norm_{number}")(down_BTN + inside_BTN)
        wide_BTD = Dropout(config.dropout)(
            dense(config.hidden_size, name="back")(inside_BTN), train=train
        )
        return norm(name="back_norm")(wide_BTD + hidden_BTD), attention


class NoNorm(nn.Module):
    """``x * scale + bias`` along the last axis, in place of a layer norm."""

    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale_D = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias_D = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        vector = (1,) * (x.ndim - 1) + (-1,)
        scaled = x.astype(jnp.float32) * scale_D.reshape(vector) + bias_D.reshape(vector)
        return scaled.astype(self.dtype)


@partial(jax.jit, static_argnums=0)
def init_mobilebert(config: MobileBertConfig, rng: Array) -> Params:
    """Fresh float32 parameters, one compilation for every seed."""
    batch = as_batch(jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))
    return MobileBert(config).init(rng, batch)["params"]


_NAME = re.compile(r"mobilebert(?:-([1-9]\d{0,2})(?:x([1-9]\d{0,5}))?)?")


class MobileBerts(HfClassifiers):
    """Students whose feature maps are as wide as their teacher's, and MobileBERT as a teacher."""

    model_types = ("mobilebert",)

    def claims(self, name: str) -> bool:
        return name.split("-")[0] == self.name

    def student(self, name: str, teacher: Any, **options: Any) -> MobileBertConfig:
        """Layers as many as the teacher's, a bottleneck of a quarter of its width, unless named."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise unknown("student", name, self.names)
        shape, own = teacher.shape, teacher.token_range
        if not shape.num_heads:
            raise UserError(
                f"student {name!r} has feature maps and attention as its teacher has, and a "
                f"{family_of(teacher).name} has no attention"
            )
        heads = shape.num_heads
        size = int(found[2]) if found[2] else heads * max(1, round(shape.hidden_size / 4 / heads))
        if size % heads:
            raise UserError(
                f"student {name!r}: a bottleneck of {size} is not a multiple of the teacher's "
                f"{heads} heads"
            )
        pooling = options.get("pooling", "teacher")
        return MobileBertConfig(
            own.tokens,
            shape.hidden_size,
            int(found[1]) if found[1] else shape.num_layers,
            heads,
            4 * size,
            size,
            min(128, shape.hidden_size),
            max_positions=own.positions,
            type_vocab_size=own.types,
            pooling=getattr(teacher, "pooling", "pooler") if pooling == "teacher" else pooling,
            num_labels=shape.num_labels,
        )

    def init(self, config: Any, rng: Array) -> Params:
        return init_mobilebert(config, rng)

    def check_narrowed(self, what: str, name: str, teacher: Any, **options: Any) -> None:
        if what != "embeddings":
            super().check_narrowed(what, name, teacher, **options)
        check_embeddings(name, self.student(name, teacher, **options), teacher)

    def narrowed(self, what: str, name: str, teacher: Loaded, rng: Array, **options: Any) -> Params:
        fresh = init_mobilebert(self.student(name, teacher.config, **options), rng)
        return embeddings_from(fresh, teacher.params)


_REQUIRED = {**REQUIRED, "intra_bottleneck_size": "bottleneck_size"}
_OPTIONAL = {
    **{key: ours for key, ours in OPTIONAL.items() if key not in (POOLING_KEY, "layer_norm_eps")},
    "embedding_size": "embedding_size",
    "num_feedforward_networks": "feed_forwards",
}
_SWITCHES: dict[str, tuple[Any, ...]] = {
    **SWITCHES,
    "trigram_input": (True, None),
    "use_bottleneck": (True, None),
    "use_bottleneck_attention": (False, None),
    "key_query_shared_bottleneck": (True, None),
    "normalization_type": ("no_norm", None),
    "classifier_activation": (True, False, None),
}


def _read(raw: Mapping[str, Any], where: str) -> MobileBertConfig:
    check_switches(raw, _SWITCHES, where=where)
    pooling = "cls" if raw.get("classifier_activation") is False else "pooler"
    return config_of(MobileBertConfig, raw, _REQUIRED, _OPTIONAL, where=where, pooling=pooling)


def _to_hf(config: MobileBertConfig) -> dict[str, Any]:
    raw = {key: getattr(config, ours) for key, ours in {**_REQUIRED, **_OPTIONAL}.items()}
    raw["hidden_act"] = activation_to_hf(raw["hidden_act"])
    switches = {key: values[0] for key, values in _SWITCHES.items()}
    return {**switches, **raw, "classifier_activation": config.pooling == "pooler"}


def _modules(config: MobileBertConfig) -> Modules:
    last = config.feed_forwards
    layer: Modules = {
        "bottleneck.input.dense": ("bottleneck",),
        "bottleneck.input.LayerNorm": ("bottleneck_norm",),
        "bottleneck.attention.dense": ("attention_bottleneck",),
        "bottleneck.attention.LayerNorm": ("attention_bottleneck_norm",),
        "attention.self.query": ("attention", "query"),
        "attention.self.key": ("attention", "key"),
        "attention.self.value": ("attention", "value"),
        "attention.output.dense": ("attention_output",),
        "attention.output.LayerNorm": ("attention_norm",),
        "intermediate.dense": (f"intermediate_{last}",),
        "output.dense": (f"output_{last}",),
        "output.LayerNorm": (f"output_norm_{last}",),
        "output.bottleneck.dense": ("back",),
        "output.bottleneck.LayerNorm": ("back_norm",),
    }
    for number in range(1, last):
        block = f"ffn.{number - 1}"
        layer[f"{block}.intermediate.dense"] = (f"intermediate_{number}",)
        layer[f"{block}.output.dense"] = (f"output_{number}",)
        layer[f"{block}.output.LayerNorm"] = (f"output_norm_{number}",)
    return {
        "embeddings.word_embeddings": ("embeddings", "word"),
        "embeddings.position_embeddings": ("embeddings", "position"),
        "embeddings.token_type_embeddings": ("embeddings", "token_type"),
        "embeddings.embedding_transformation": ("embeddings", "project"),
        "embeddings.LayerNorm": ("embeddings", "norm"),
        **layer_modules("encoder.layer", layer, config.num_layers),
        "pooler.dense": ("pooling", "dense"),
        "classifier": ("classifier",),
    }


register_architecture(
    Architecture(
        model_type="mobilebert",
        config_type=MobileBertConfig,
        prefixes=("mobilebert.",),
        config=_read,
        raw=_to_hf,
        modules=_modules,
        init=init_mobilebert,
        classifier="classifier",
        pooler="pooler.dense",
        owns_pooler=False,
        unused=rf"{BUFFERS}|cls\..*",
        class_name="MobileBertForSequenceClassification",
        poolings=("pooler", "cls"),
    )
)

MOBILEBERTS = register(
    MobileBerts(
        "mobilebert",
        MobileBertConfig,
        MobileBert,
        ("mobilebert", "mobilebert-LAYERS", "mobilebert-LAYERSxBOTTLENECK (mobilebert-4x96)"),
        pools=True,
        tokens=True,
        elsewhere=NAMED,
        embeddings=("embeddings", "word", "embedding"),
    )
)
