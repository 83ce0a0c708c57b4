"""What recommenders share: their families, items looked up, padding, positions."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.core.ranking_types import HistoryBatch, Question, RankingOutput
from distill_jax.core.types import ModelShape
from distill_jax.models.bert import BertConfig, Params
from distill_jax.models.family import Family
from distill_jax.models.recommenders.protocol import Trained
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts, ItemVectors


@dataclasses.dataclass(frozen=True)
class Recommenders(Family):
    """Models that read a ``HistoryBatch`` and say a ``RankingOutput``.

    Attributes:
      layered: whether a name says how many layers: ``sasrec-2x64``, but ``bpr_mf-32``.
      says_last: whether the module can be asked with ``last_only``.
    """

    layered: bool = True
    says_last: bool = False

    def fitted(self, items: ItemConfig, **sizes: Any) -> Any:
        """The config for a catalogue, of those sizes that the family knows."""
        known = {field.name for field in dataclasses.fields(self.config_type)}
        return self.config_type(items, **{k: v for k, v in sizes.items() if k in known})

    def constants(self, texts: ItemTexts | None, split: Trained) -> ItemTexts | None:
        """What its models know of a catalogue and are not trained: texts, and perhaps more that
        the training part says."""
        return texts

    def check_constants(self, config: Any, texts: ItemTexts | None) -> None:
        """Raises ``ValueError`` for constants read from a file that such a model cannot have."""

    def in_use(self, config: Any) -> Any:
        """The config of what a model is once training is over: the same, or one of another family
        that gives the same scores with less work."""
        return config

    def params_in_use(self, config: Any, params: Params, texts: ItemTexts | None) -> Params:
        """The parameters of that."""
        return params


class CatalogueConfig:
    """What the configs of all recommenders tell others; their labels are the items."""

    items: Any
    num_layers: Any
    knows_users: ClassVar[bool] = False
    """Whether users of the training have vectors of their own, by number."""

    @property
    def hidden_size(self) -> int:
        return self.items.hidden_size

    @property
    def num_items(self) -> int:
        return self.items.num_items

    @property
    def shape(self) -> ModelShape:
        """What objectives have to know of this model."""
        heads = getattr(self, "num_heads", 1)
        return ModelShape(self.num_layers, self.hidden_size, heads, self.num_items)


@dataclasses.dataclass(frozen=True)
class SequenceConfig(CatalogueConfig):
    """What every model that reads a sequence of items is told.

    Attributes:
      items: how items become vectors, of the model's width.
      num_layers: blocks, or recurrent layers.
      max_length: positions it can tell apart; older items are left out.
      dropout: rate after the embeddings and in every layer.
    """

    items: ItemConfig
    num_layers: int = 2
    max_length: int = 200
    dropout: float = 0.2

    task: ClassVar[Question] = "next"

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.num_layers, self.max_length) < 1 or not 0 <= self.dropout < 1:
            raise UserError(
                f"{type(self).__name__}: num_layers and max_length are at least 1 and dropout is "
                f"in [0, 1), not {self.num_layers}, {self.max_length} and {self.dropout}."
            )


def block_config(config: Any, intermediate_size: int, act: str) -> BertConfig:
    """The blocks of ``models.bert`` at the sizes of a recommender (its vocabulary is not used)."""
    return BertConfig(
        vocab_size=1,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        intermediate_size=intermediate_size,
        max_positions=config.max_length,
        hidden_act=act,
        layer_norm_eps=config.layer_norm_eps,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        initializer_range=config.items.initializer_range,
    )


class HistoryModel(nn.Module):
    """A recommender as a module; each kind has its own ``say``.

    Attributes:
      config: a ``CatalogueConfig``.
    """

    config: Any

    @nn.compact
    def __call__(
        self,
        batch: HistoryBatch,
        texts: ItemTexts | None = None,
        items_ID: Array | None = None,
        *,
        train: bool = False,
        **how: bool,
    ) -> RankingOutput:
        """Everything the model says of a batch; values at padding are finite and mean nothing.

        Args:
          batch: histories [B, T].
          texts: of the items, where their vectors are made of text.
          items_ID: item vectors made before, so that nothing is encoded again.
          train, how: see ``say``.
        """
        if items_ID is None:
            items_ID = ItemVectors(self.config.items, name="items")(texts)
        return self.say(batch, items_ID, train=train, **how)

    def say(self, batch: HistoryBatch, items_ID: Array, *, train: bool) -> RankingOutput:
        """The same, of item vectors that are there.

        Args:
          train: dropout on; needs the rng stream ``"dropout"``.
        """
        raise NotImplementedError

    def item_bias(self, items_ID: Array) -> Array:
        """[I], learned; 0 of items that came after the training."""
        num_items = self.config.num_items
        bias_I = self.param("item_bias", nn.initializers.zeros, (num_items,), jnp.float32)
        return jnp.pad(bias_I, (0, items_ID.shape[0] - num_items))


class Inputs(nn.Module):
    """The vectors of a history's items plus those of their positions, [B, T, D], 0 at padding.

    Positions are counted from the newest item, so that padding changes nothing.

    Attributes:
      config: the model's.
      scale: factor of the item vectors.
      positions: whether there are position vectors.
      hidden_item: whether items may be hidden (number I + 1), and have a vector for that.
    """

    config: SequenceConfig
    scale: float = 1.0
    positions: bool = True
    hidden_item: bool = False

    @nn.compact
    def __call__(self, batch: HistoryBatch, items_ID: Array) -> Array:
        config = self.config
        init = nn.initializers.normal(config.items.initializer_range)
        T = batch.item_ids_BT.shape[1]
        if config.max_length < T and self.positions:
            raise UserError(
                f"histories of {T} items; the model has positions for {config.max_length}."
            )
        hidden_BTD = look_up(items_ID, batch.item_ids_BT)
        if self.hidden_item:
            hidden_D = self.param("hidden_item", init, (config.hidden_size,), jnp.float32)
            is_hidden_BT1 = (batch.item_ids_BT == items_ID.shape[0] + 1)[..., None]
            hidden_BTD = jnp.where(is_hidden_BT1, hidden_D[None, None], hidden_BTD)
        hidden_BTD = hidden_BTD * self.scale
        if self.positions:
            shape = (config.max_length, config.hidden_size)
            positions_PD = self.param("position_embedding", init, shape, jnp.float32)
            hidden_BTD = hidden_BTD + positions_PD[None, config.max_length - T :]
        return jnp.where(batch.where_BT[..., None], hidden_BTD, 0)


def look_up(items_ID: Array, item_ids: Array) -> Array:
    """Item vectors by number + 1, [...] -> [..., D]; any vector where there is no such item."""
    return items_ID[jnp.clip(item_ids - 1, 0, items_ID.shape[0] - 1)]
