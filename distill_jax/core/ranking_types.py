"""What recommenders read and say: ``HistoryBatch``, ``RankingOutput``, ``RankingCapture``."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

import jax.numpy as jnp
from flax import struct
from jax import Array

from distill_jax.core.types import Examples, LayerArrays, Output

PADDING_ITEM = 0
"""In ``item_ids_BT``, where item number i is written i + 1."""


Question = Literal["next", "hidden", "any"]
"""What a model is asked: the item that follows each item, hidden items, or any of the user's."""


@struct.dataclass
class HistoryBatch(Examples):
    """Histories of one step, left-padded: the newest item stands at T - 1.

    Attributes:
      example_ids_B: int32 [B], the user's number, -1 for a row of padding.
      item_ids_BT: int32 [B, T], item number + 1; 0 is padding, I + 1 a hidden item (BERT4Rec).
      where_BT: bool [B, T], True for items of the history.
      targets_BT: int32 [B, T], the item number (from 0) to be said at each position: the item that
        follows, or the hidden one. Any value where ``target_where_BT`` is False.
      target_where_BT: bool [B, T], True for positions that have a target.
      negatives_BTN: int32 [B, T, N] or [B, 1, N] (the same for a whole row), item numbers sampled
        for losses that do not look at all items; None where no loss wants any.
      later_B: int32 [B], how many targets of the user come after those of its row; None where all
        rows end with the newest.
      rows_BC: int32 [B, C], of the whole catalogue, one after another: the items that the numbers
        here mean, where they are of a smaller one (``models.recommenders.occurring_items``).
      kinds_BT: int32 [B, T], of which kind of feedback each item of the history is (0 for what is
        recommended); None where there is one kind.
      target_kinds_BT: int32 [B, T], of which kind the target is: what each position is asked. None
        where there is one kind, or all are asked for kind 0.
      fields_BTC: int32 [B, T, C], numbers of the fields of each event of the history (how long it
        was looked at), 0 where unknown; None where the data has none.
      target_weights_BT: float32 [B, T], how much a position counts; None where all do alike.
    """

    example_ids_B: Array
    item_ids_BT: Array
    where_BT: Array
    targets_BT: Array
    target_where_BT: Array
    negatives_BTN: Array | None = None
    later_B: Array | None = None
    rows_BC: Array | None = None
    kinds_BT: Array | None = None
    target_kinds_BT: Array | None = None
    target_weights_BT: Array | None = None
    fields_BTC: Array | None = None


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Items that a user did not take in training, drawn for losses that do not look at all.

    Attributes:
      count: N of them, uniform.
      per: drawn for each position anew, or once for all positions of a row.
    """

    count: int
    per: Literal["position", "row"] = "position"


@struct.dataclass
class RankingOutput(Output):
    """What a recommender says of a batch; logits are ``queries @ items.T + bias``, made on demand.

    Attributes:
      queries_BTD: [B, T, D], what is multiplied with the item vectors, a query a position.
      items_ID: [I, D], item vectors; row i is item number i.
      item_bias_I: [I] or None.
      hidden_states: layer -> [B, T, D]; 0 is the embeddings.
      users_UD: [U, D], what all users ask with, of a model that knows them by number; else None.
    """

    SHARED: ClassVar[tuple[str, ...]] = ("items_ID", "item_bias_I", "users_UD")

    queries_BTD: Array
    items_ID: Array
    item_bias_I: Array | None = None
    hidden_states: LayerArrays = struct.field(default_factory=dict)
    users_UD: Array | None = None

    @property
    def scores(self) -> Array:
        """See ``Output.scores``: of all items, after the newest of each history."""
        return scores_last(self)


@dataclasses.dataclass(frozen=True)
class RankingCapture:
    """Which hidden states of a ``RankingOutput`` are wanted, as sorted layer numbers."""

    hidden_states: tuple[int, ...] = ()

    def select(self, output: RankingOutput) -> RankingOutput:
        """The wanted parts of ``output`` (queries and items always)."""
        wanted = {layer: output.hidden_states[layer] for layer in self.hidden_states}
        return output.replace(hidden_states=wanted)  # type: ignore[attr-defined]

    def __or__(self, other: RankingCapture) -> RankingCapture:
        return RankingCapture(tuple(sorted({*self.hidden_states, *other.hidden_states})))


def logits_at(output: RankingOutput, items: Array) -> Array:
    """Logits of chosen items at every position: [B, T, N] or [B, 1, N] -> float32 [B, T, N].

    Args:
      items: int32 item numbers, in range; [B, 1, N] are scored at every position of their row.
    """
    bias = 0.0 if output.item_bias_I is None else output.item_bias_I[items]
    return inner(output.queries_BTD, output.items_ID[items]) + bias


def inner(queries_BTD: Array, vectors: Array) -> Array:
    """Inner products with vectors [B, T, N, D] or [B, 1, N, D], float32 [B, T, N]."""
    if vectors.shape[1] == 1:
        spec, vectors = "BTD,BND->BTN", vectors[:, 0]
    else:
        spec = "BTD,BTND->BTN"
    return jnp.einsum(spec, queries_BTD, vectors, preferred_element_type=jnp.float32)


def all_logits(output: RankingOutput, queries_XD: Array) -> Array:
    """Logits of all items for some queries, [..., D] -> float32 [..., I]."""
    logits = jnp.einsum(
        "...D,ID->...I", queries_XD, output.items_ID, preferred_element_type=jnp.float32
    )
    if output.item_bias_I is None:
        return logits
    lead = (1,) * (logits.ndim - 1)
    return logits + output.item_bias_I.astype(jnp.float32).reshape(*lead, -1)


def scores_last(output: RankingOutput) -> Array:
    """Logits of all items after the newest item of each history, float32 [B, I]."""
    return all_logits(output, output.queries_BTD[:, -1])
