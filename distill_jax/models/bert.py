"""BERT for classification in Flax Linen: one module for teachers and students.

Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding". Layer norm after each residual sum, as in the paper; numbers agree with
``transformers``' ``BertForSequenceClassification``.

Shape suffixes: B batch, T tokens, D hidden size, H heads, K head size, F intermediate size,
C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.fields import check_fields
from distill_jax.core.types import Batch, ModelOutput, ModelShape, TokenRange, as_batch
from distill_jax.models.dropout import Dropout
from distill_jax.models.int8 import Int8Dense, Int8Embed, RoundedDense, RoundedEmbed
from distill_jax.models.named import gelu, gelu_tanh, layer_norm, softmax
from distill_jax.models.products import affine
from distill_jax.models.relative_positions import RelativeBias

Params = dict[str, Any]
"""Nested dictionaries of arrays, as Flax keeps them under ``"params"``."""


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "gelu_tanh": gelu_tanh,
    "relu": jax.nn.relu,
}
"""By the names of ``config.json``; ``gelu`` is the exact one, the others with tanh agree."""

HEAD_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "gelu": gelu,
}
"""Of the dense layer before the classes: BERT's, DistilBERT's, ELECTRA's."""

POOLINGS = ("pooler", "mean", "cls")
TOKENS = "tokens"
"""What is no pooling: the head reads every token."""
MAX_LAYERS, MAX_SIZE = 512, 2**31 - 1
"""Beyond any model there is: a damaged or hostile config is refused before it is worked on."""


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """What a BERT classifier is, apart from its weights.

    Attributes:
      pooling: what the head reads: ``pooler`` (dense and tanh on the [CLS] position, BERT's
        own), ``mean`` (mean over real tokens, as sentence-transformers do), ``cls`` (the [CLS]
        position as it is) or ``tokens`` (every token: logits are [B, T, C]).
      dropout: rate after the embeddings and after every attention and feed-forward block.
      attention_dropout: rate on the attention probabilities.
      classifier_dropout: rate before the head; None for the same as ``dropout``.
      arithmetic: of the layers and the word embeddings, one of ``ARITHMETIC``.

    What BERT's relatives do otherwise, see ``bert_kin``, is BERT's here for all.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    classifier_dropout: float | None = None
    initializer_range: float = 0.02
    pooling: str = "pooler"
    num_labels: int = 2
    arithmetic: ClassVar[str] = "float32"
    embedding_size: ClassVar[int | None] = None
    first_position: ClassVar[int] = 0
    has_types: ClassVar[bool] = True
    relative_buckets: ClassVar[int] = 0
    head_act: ClassVar[str] = "tanh"
    _from_zero: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.hidden_act not in ACTIVATIONS:
            raise unknown("hidden_act", self.hidden_act, ACTIVATIONS, where="in the BERT config")
        if self.pooling not in (*POOLINGS, TOKENS):
            raise unknown("pooling", self.pooling, POOLINGS, where="in the BERT config")
        for name in (each.name for each in dataclasses.fields(self) if each.type == "int"):
            most = MAX_LAYERS if name == "num_layers" else MAX_SIZE
            least = 0 if name in self._from_zero else 1
            if not least <= (value := getattr(self, name)) <= most:
                raise UserError(f"BERT config: {name} must be from {least} to {most}, got {value}.")
        self._check_heads()
        for name in ("dropout", "attention_dropout", "classifier_dropout"):
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate < 1:
                raise UserError(f"BERT config: {name} must be in [0, 1), got {rate}.")
        if not (0 <= self.layer_norm_eps < 1 and 0 <= self.initializer_range < MAX_SIZE):
            raise UserError(
                "BERT config: layer_norm_eps must be in [0, 1) and initializer_range not negative, "
                f"got {self.layer_norm_eps} and {self.initializer_range}."
            )

    def _check_heads(self) -> None:
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"BERT config: hidden_size {self.hidden_size} is not a multiple of "
                f"num_heads {self.num_heads}."
            )

    @property
    def attention_width(self) -> int:
        """Of the queries, keys and values of all heads together."""
        return self.hidden_size

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know of this model."""
        per_token = self.pooling == "tokens"
        sizes = self.num_layers, self.hidden_size, self.num_heads
        return ModelShape(*sizes, self.num_labels, per_token)

    @property
    def token_range(self) -> TokenRange:
        """What it has embeddings for."""
        positions = self.max_positions - self.first_position
        return TokenRange(self.vocab_size, self.type_vocab_size, positions)

    @property
    def reads_types(self) -> bool:
        """Whether the first text of a pair and the second are told apart by token types."""
        return True


class Bert(nn.Module):
    """BERT, or a relative of it, with a classification head.

    Attributes:
      config: sizes, rates, pooling.
      dtype: of the computation. Parameters are float32; so are the statistics of layer norms,
        the attention scores, their softmax and the logits, whatever ``dtype`` is.
      remat: compute a layer's inner activations again in the backward pass, keep its ends only.
    """

    config: BertConfig
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> ModelOutput:
        """Everything the model says of a batch; ``jit`` drops what the caller does not read.

        Values at positions of padding are finite and mean nothing; nothing at a real position
        depends on them.

        Args:
          batch: tokens [B, T] with their ``where``; labels are not read.
          train: dropout on; needs the rng stream ``"dropout"``.

        Returns:
          A complete ``ModelOutput``.

        Raises:
          UserError: T is over the config's ``max_positions``.
        """
        config = self.config
        output = encoded(config, self.dtype, batch, train=train, remat=self.remat)
        hidden_BTD = output.hidden_states[config.num_layers]
        pooled = hidden_BTD  # [B, T, D], or [B, D]
        if config.pooling != TOKENS:
            pooled = Pooling(config, self.dtype, name="pooling")(hidden_BTD, batch.where_BT)
        rate = config.dropout if config.classifier_dropout is None else config.classifier_dropout
        pooled = Dropout(rate)(pooled.astype(jnp.float32), train=train)
        head = Dense(config.num_labels, jnp.float32, config.initializer_range, name="classifier")
        return output.replace(logits_BC=head(pooled))  # type: ignore[attr-defined]


def encoded(
    config: BertConfig,
    dtype: Any,
    batch: Batch,
    *,
    train: bool,
    remat: bool = False,
    causal: bool = False,
) -> ModelOutput:
    """Embeddings and layers, called in a compact method of the module whose parts they become.

    Args:
      dtype, remat: as of ``Bert``.
      causal: no position looks at later ones.

    Returns:
      Hidden states and attention of all layers; no logits.
    """
    hidden_BTD = Embeddings(config, dtype, name="embeddings")(batch, train=train)
    output = ModelOutput(hidden_states={0: hidden_BTD})
    bias_1HTT = _relative_bias(config, hidden_BTD.shape[1])
    one_layer = nn.remat(Layer, static_argnums=(3,)) if remat else Layer
    for number in range(1, config.num_layers + 1):
        layer = one_layer(config, dtype, causal, name=f"layer_{number}")
        hidden_BTD, attention = layer(hidden_BTD, batch.where_BT, train, bias_1HTT)
        output.hidden_states[number] = hidden_BTD
        for kind, array in attention.items():
            getattr(output, kind)[number] = array
    return output


def _relative_bias(config: BertConfig, length: int) -> Array | None:
    """What MPNet adds to the scores of all layers; a part ``relative_bias`` of the parameters."""
    if not config.relative_buckets:
        return None
    std, heads = config.initializer_range, config.num_heads
    return RelativeBias(heads, config.relative_buckets, std, name="relative_bias")(length)


@partial(jax.jit, static_argnums=0)
def init_bert(config: BertConfig, rng: Array) -> Params:
    """Fresh float32 parameters of ``Bert(config)``: normal(0, initializer_range), zero biases.

    Args:
      config: hashable, so one compilation serves every seed.
      rng: a jax random key.
    """
    batch = as_batch(jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))
    return Bert(config).init(rng, batch)["params"]


class Embeddings(nn.Module):
    """Word, position and token type embeddings, summed and normalised: [B, T] -> [B, T, D].

    Where they are of another width than the layers (ELECTRA), a dense layer comes behind.
    """

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Array:
        config = self.config
        num_tokens, most = batch.input_ids_BT.shape[1], config.token_range.positions
        if num_tokens > most:
            raise UserError(
                f"a batch has {num_tokens} tokens a row; the model has positions for "
                f"{most}. Shorten the texts (max_length)."
            )
        width = config.embedding_size or config.hidden_size
        settings: dict[str, Any] = {
            "features": width,
            "dtype": self.dtype,
            "embedding_init": nn.initializers.normal(config.initializer_range),
        }
        embed = partial(nn.Embed, **settings)
        words = ARITHMETIC[config.arithmetic][1]
        sum_BTD = words(config.vocab_size, **settings, name="word")(batch.input_ids_BT)
        if config.has_types:
            types = embed(config.type_vocab_size, name="token_type")
            sum_BTD = sum_BTD + types(batch.token_type_ids_BT)
        positions_PD = embed(config.max_positions, name="position").embedding
        first = config.first_position
        position_1TD = positions_PD[None, first : first + num_tokens].astype(self.dtype)
        norm = LayerNorm(config.layer_norm_eps, self.dtype, name="norm")
        hidden_BTD = Dropout(config.dropout)(norm(sum_BTD + position_1TD), train=train)
        if width == config.hidden_size:
            return hidden_BTD
        return _dense(config, config.hidden_size, self.dtype, "project")(hidden_BTD)


class Layer(nn.Module):
    """One encoder layer: self-attention and feed-forward, each with residual and layer norm."""

    config: BertConfig
    dtype: Any
    causal: bool = False

    @nn.compact
    def __call__(
        self, hidden_BTD: Array, where_BT: Array, train: bool, bias_1HTT: Array | None = None
    ) -> tuple[Array, dict[str, Array]]:
        config = self.config
        dense = partial(_dense, config, dtype=self.dtype)
        norm = partial(LayerNorm, config.layer_norm_eps, self.dtype)
        drop = Dropout(config.dropout)

        context_BTD, attention = SelfAttention(config, self.dtype, self.causal, name="attention")(
            hidden_BTD, where_BT, train=train, bias_1HTT=bias_1HTT
        )
        attended_BTD = drop(
            dense(config.hidden_size, name="attention_output")(context_BTD), train=train
        )
        middle_BTD = norm(name="attention_norm")(hidden_BTD + attended_BTD)

        up_BTF = dense(config.intermediate_size, name="intermediate")(middle_BTD)
        down_BTD = dense(config.hidden_size, name="output")(ACTIVATIONS[config.hidden_act](up_BTF))
        down_BTD = drop(down_BTD, train=train)
        return norm(name="output_norm")(middle_BTD + down_BTD), attention


class SelfAttention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, eq. 1) without its output projection.

    Attributes:
      causal: no position looks at later ones.
    """

    config: BertConfig
    dtype: Any
    causal: bool = False

    @nn.compact
    def __call__(
        self,
        hidden_BTD: Array,
        where_BT: Array,
        *,
        train: bool,
        last_only: bool = False,
        bias_1HTT: Array | None = None,
        value_BTE: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """The context of every position, or of the last one alone, then [B, 1, D].

        Args:
          bias_1HTT: added to the scores, for relative positions.
          value_BTE: what values are made of, where that is not ``hidden_BTD``.
        """
        config = self.config
        heads, width = config.num_heads, config.attention_width
        size = width // heads
        B, T, _ = hidden_BTD.shape

        def project(name: str, rows_BTD: Array) -> Array:
            rows_BTW = _dense(config, width, self.dtype, name)(rows_BTD)
            return rows_BTW.reshape(B, -1, heads, size)

        query_BTHK = project("query", hidden_BTD[:, -1:] if last_only else hidden_BTD)
        key_BTHK = project("key", hidden_BTD)
        value_BTHK = project("value", hidden_BTD if value_BTE is None else value_BTE)
        scores_BHTT = jnp.einsum(
            "BTHK,BSHK->BHTS", query_BTHK, key_BTHK, preferred_element_type=jnp.float32
        ) * (size**-0.5)
        if bias_1HTT is not None:
            scores_BHTT = scores_BHTT + bias_1HTT
        # The least float32, not -inf: a row without any real token gets equal probabilities,
        # and neither values nor gradients become NaN. Elsewhere padding gets exactly 0.
        lowest = jnp.finfo(jnp.float32).min
        seen_B1TT = where_BT[:, None, None, :]
        if self.causal and not last_only:
            seen_B1TT = seen_B1TT & jnp.tril(jnp.ones((1, 1, T, T), bool))
        probs_BHTT = softmax(jnp.where(seen_B1TT, scores_BHTT, lowest))
        weights_BHTT = Dropout(config.attention_dropout)(probs_BHTT, train=train)
        context_BTHK = jnp.einsum(
            "BHTS,BSHK->BTHK",
            weights_BHTT.astype(self.dtype),
            value_BTHK,
            preferred_element_type=jnp.float32,
        ).astype(self.dtype)
        return context_BTHK.reshape(B, -1, width), {
            "attention_scores": scores_BHTT,
            "attention_probs": probs_BHTT,
            "queries": query_BTHK,
            "keys": key_BTHK,
            "values": value_BTHK,
        }


class Pooling(nn.Module):
    """One vector a row, [B, T, D] -> [B, D], as ``config.pooling`` says."""

    config: BertConfig
    dtype: Any

    @nn.compact
    def __call__(self, hidden_BTD: Array, where_BT: Array) -> Array:
        if self.config.pooling == "mean":
            return mean_of_tokens(hidden_BTD, where_BT)
        cls_BD = hidden_BTD[:, 0]
        if self.config.pooling == "cls":
            return cls_BD
        dense = Dense(cls_BD.shape[-1], self.dtype, self.config.initializer_range, name="dense")
        return HEAD_ACTIVATIONS[self.config.head_act](dense(cls_BD))


def mean_of_tokens(hidden_BTD: Array, where_BT: Array) -> Array:
    """The mean over real tokens, float32 [B, D]; 0 for a row without any."""
    where_BT1 = where_BT[:, :, None]
    total_BD = jnp.sum(hidden_BTD, axis=1, where=where_BT1, dtype=jnp.float32)
    return total_BD / jnp.maximum(jnp.sum(where_BT1, axis=1, dtype=jnp.float32), 1.0)


class Dense(nn.Module):
    """An affine map of the last axis, [..., D] -> [..., features], computed on one flat matrix.

    Unlike with ``nn.Dense``, the weight's gradient is then one plain matrix product, for which
    XLA on CPUs needs no transposed copy of the activations: a tenth of a training step.
    """

    features: int
    dtype: Any
    init_std: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        *lead, width = x.shape
        kernel_init = nn.initializers.normal(self.init_std)
        kernel_DF = self.param("kernel", kernel_init, (width, self.features), jnp.float32)
        bias_F = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        y_NF = affine(x.reshape(-1, width), kernel_DF, bias_F, self.dtype)
        return y_NF.reshape(*lead, self.features)


ARITHMETIC: dict[str, tuple[Any, Any]] = {
    "float32": (Dense, nn.Embed),
    "rounded": (RoundedDense, RoundedEmbed),
    "int8": (Int8Dense, Int8Embed),
    "int8_static": (partial(Int8Dense, activations="static"), Int8Embed),
    "int8_weights": (partial(Int8Dense, activations="float"), Int8Embed),
}
"""Layers and word embeddings: as they are; in float32, rounded as integers will be; in 8-bit
integers, see ``int8``. The head, which is the pooler too, is float32 in all."""


def _dense(config: BertConfig, features: int, dtype: Any, name: str) -> Any:
    layer = ARITHMETIC[config.arithmetic][0]
    return layer(features, dtype, config.initializer_range, name=name)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, mean and variance in float32, see ``named.layer_norm``."""

    epsilon: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale_D = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        bias_D = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return layer_norm(x, scale_D, bias_D, self.epsilon).astype(self.dtype)
