"""The few types that everything speaks: ``Batch``, outputs, ``Capture``, ``ModelShape``."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

import jax.numpy as jnp
from flax import struct
from jax import Array

LayerArrays = dict[int, Array]
"""Arrays by layer number; 0 is the embeddings (hidden states only), 1 the first layer."""

_BY_LAYER = (
    "hidden_states",
    "attention_scores",
    "attention_probs",
    "queries",
    "keys",
    "values",
)


class Examples:
    """Arrays of one step, a row an example.

    Attributes:
      example_ids_B: int32 [B], -1 for a row of padding.
    """

    example_ids_B: Array

    @property
    def where_B(self) -> Array:
        """bool [B], True for real examples."""
        return self.example_ids_B >= 0


@struct.dataclass
class Batch(Examples):
    """The arrays of one step. A row of padding has example id -1 and no real token.

    Attributes:
      example_ids_B: int32 [B], the example's row in its tokenised split, -1 for padding.
      input_ids_BT: int32 [B, T], token ids.
      token_type_ids_BT: int32 [B, T], 0 for the first segment, 1 for the second.
      where_BT: bool [B, T], True for real tokens.
      labels_B: int32 [B], the class; any value where ``label_where_B`` is False.
      label_where_B: bool [B], True for examples that have a label (False: transfer set).
      pixels_BHWC: float32 [B, height, width, channels] for images, None for text. A batch of
        images has T = 1, token ids 0.
      targets: what is to be predicted where that is no class, as its kind of task says: float32
        [B, ...], or int32 [B, T] or [B, ...] with negative numbers where nothing is asked; None
        for classes. Values mean nothing where ``label_where_B`` is False.
    """

    example_ids_B: Array
    input_ids_BT: Array
    token_type_ids_BT: Array
    where_BT: Array
    labels_B: Array
    label_where_B: Array
    pixels_BHWC: Array | None = None
    targets: Array | None = None


def as_batch(
    ids_BT: Array,
    where_BT: Array,
    types_BT: Array | None = None,
    pixels_BHWC: Array | None = None,
) -> Batch:
    """Inputs alone, without ids or labels."""
    zeros_B = jnp.zeros(ids_BT.shape[:1], jnp.int32)
    return Batch(
        example_ids_B=zeros_B,
        input_ids_BT=ids_BT,
        token_type_ids_BT=jnp.zeros_like(ids_BT) if types_BT is None else types_BT,
        where_BT=where_BT,
        labels_B=zeros_B,
        label_where_B=jnp.zeros(ids_BT.shape[:1], bool),
        pixels_BHWC=pixels_BHWC,
    )


@dataclasses.dataclass(frozen=True)
class TokenRange:
    """Where the numbers of inputs end: those that a model has embeddings for, or a table holds.

    An image is one token, 0.

    Attributes:
      tokens, types, positions: token ids, token types and positions are below these.
    """

    tokens: int = 1
    types: int = 1
    positions: int = 1


class Output:
    """What any model says of a batch; a pytree whose leaves have a row an example.

    Attributes:
      SHARED: names of the fields that are said once for all examples instead.
    """

    SHARED: ClassVar[tuple[str, ...]] = ()

    @property
    def scores(self) -> Array | None:
        """What outputs are compared by, an array of examples first; -inf where silent."""
        raise NotImplementedError

    def split_shared(self) -> tuple[Self, dict[str, Any]]:
        """The output without what it shares, and that."""
        shared = {name: getattr(self, name) for name in self.SHARED}
        return self.with_shared(dict.fromkeys(self.SHARED)), shared

    def with_shared(self, shared: dict[str, Any]) -> Self:
        """The inverse of ``split_shared``."""
        return self.replace(**shared)  # type: ignore[attr-defined]


@struct.dataclass
class ModelOutput(Output):
    """What a model says of a batch; the same for teacher and student, live or cached.

    Layers are keyed by number: hidden state 0 is the embeddings, layer 1 is the first
    transformer layer everywhere. Under ``jit``, what nobody reads is never computed.

    Attributes:
      logits_BC: [B, C]; [B, T, C] of a model whose head reads every token.
      hidden_states: layer -> [B, T, D], keys 0..L.
      attention_scores: layer -> [B, H, T, T], scaled, before the mask and the softmax.
      attention_probs: layer -> [B, H, T, T], after mask and softmax, before dropout.
      queries, keys, values: layer -> [B, T, H, D/H].
      heard_B: bool [B], False where a teacher says nothing of an example and is not to be listened
        to; None: it speaks of all.
    """

    logits_BC: Array | None = None
    hidden_states: LayerArrays = struct.field(default_factory=dict)
    attention_scores: LayerArrays = struct.field(default_factory=dict)
    attention_probs: LayerArrays = struct.field(default_factory=dict)
    queries: LayerArrays = struct.field(default_factory=dict)
    keys: LayerArrays = struct.field(default_factory=dict)
    values: LayerArrays = struct.field(default_factory=dict)
    heard_B: Array | None = None

    @property
    def scores(self) -> Array | None:
        """See ``Output.scores``."""
        return self.logits_BC


@dataclasses.dataclass(frozen=True)
class Capture:
    """Which parts of a ``ModelOutput`` are wanted, as sorted layer numbers per kind."""

    hidden_states: tuple[int, ...] = ()
    attention_scores: tuple[int, ...] = ()
    attention_probs: tuple[int, ...] = ()
    queries: tuple[int, ...] = ()
    keys: tuple[int, ...] = ()
    values: tuple[int, ...] = ()

    def select(self, output: ModelOutput) -> ModelOutput:
        """The wanted parts of ``output`` (the logits always)."""
        parts: dict[str, Any] = {
            kind: {layer: getattr(output, kind)[layer] for layer in getattr(self, kind)}
            for kind in _BY_LAYER
        }
        return ModelOutput(logits_BC=output.logits_BC, heard_B=output.heard_B, **parts)

    def __or__(self, other: Capture) -> Capture:
        return Capture(
            **{
                kind: tuple(sorted({*getattr(self, kind), *getattr(other, kind)}))
                for kind in _BY_LAYER
            }
        )


@dataclasses.dataclass(frozen=True)
class ModelShape:
    """What an objective has to know of a model: layers, widths, attention heads, classes, and
    whether outputs are one a token instead of one an example."""

    num_layers: int
    hidden_size: int
    num_heads: int
    num_labels: int
    per_token: bool = False
