"""From a recommender's name to something that can be trained, asked and written to disk."""

from __future__ import annotations

import dataclasses
import re
from functools import cached_property, partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, RankingOutput
from distill_jax.models.bert import Params
from distill_jax.models.family import family_of, registered
from distill_jax.models.recommenders import (  # noqa: F401  being imported they are registered
    bert4rec,
    bpr_mf,
    gru4rec,
    lightgcn,
    sasrec,
)
from distill_jax.models.recommenders.sequence import Recommenders
from distill_jax.models.recommenders.text_items import ItemTexts, ItemVectors

_ITEMS = r"(?:-(?:(id|text|both)(\+vectors)?|(vectors)))?"
_SIZES = {
    True: re.compile(r"([1-9][0-9]?)x([1-9][0-9]{0,3})" + _ITEMS),
    False: re.compile(r"()([1-9][0-9]{0,3})()()()"),
}
"""What stands after the kind, of families with layers and without."""


@dataclasses.dataclass(frozen=True)
class ModelName:
    """A recommender by its name: ``sasrec-2x64``, ``gru4rec-1x32``, ``sasrec-2x64-both``,
    ``sasrec-2x64-text+vectors``, ``bpr_mf-32``, ``lightgcn-3x64``.

    Attributes:
      kind: of model.
      layers, width: its size.
      source: whence item vectors come: ``id``, ``text``, ``both`` or ``vectors`` that are given.
      given: whether given vectors are read, alone or beside the source.
    """

    kind: str
    layers: int
    width: int
    source: Literal["id", "text", "both", "vectors"] = "id"
    given: bool = False


def recommender_family(kind: str) -> Recommenders:
    """The family of a kind; raises ``KeyError`` where there is none."""
    return {family.name: family for family in registered(Recommenders)}[kind]


def parse_model(name: str) -> ModelName:
    """Reads a model's name.

    Raises:
      UserError: for anything else.
    """
    kind, _, rest = name.partition("-")
    families = registered(Recommenders)
    for family in families:
        found = _SIZES[family.layered].fullmatch(rest)
        if family.name == kind and found:
            source: Any = found[3] or found[5] or "id"
            given = bool(found[4] or found[5])
            return ModelName(kind, int(found[1] or 1), int(found[2]), source, given)
    names = (f"{each.name}-{'LAYERSx' * each.layered}WIDTH" for each in families)
    raise UserError(
        f"no recommender is called {name!r}; expected {' or '.join(names)}; after layers and width "
        "comes -text or -both for item vectors made of texts (sasrec-2x64-both), and -vectors or "
        "+vectors for those of a file (sasrec-2x64-text+vectors)."
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Recommender:
    """A model with the texts of its catalogue: what ``training.make_step`` takes for a module.

    Attributes:
      config: of the model.
      texts: of the items, for vectors made of text; of more items than it was trained on, too.
      dtype: in which the layers compute; parameters, queries and item vectors are float32.
    """

    config: Any
    texts: ItemTexts | None = None
    dtype: Any = jnp.float32

    @property
    def module(self) -> nn.Module:
        return family_of(self.config).build(self.config, self.dtype)

    @cached_property
    def in_use(self) -> Recommender:
        """What answers once training is over: the same, unless something is made of all users and
        items at once, which is then made once and for all."""
        config = family_of(self.config).in_use(self.config)
        return self if config is self.config else Recommender(config, dtype=self.dtype)

    def params_in_use(self, params: Params) -> Params:
        """Its parameters."""
        made: Params = family_of(self.config).params_in_use(self.config, params, self.texts)
        return made

    def computing_in(self, dtype: Any, remat: bool) -> Recommender:
        """The same, computing in another dtype.

        Raises:
          UserError: for a dtype that the model cannot compute in, and for ``remat``.
        """
        family_of(self.config).build(self.config, dtype, remat)
        return dataclasses.replace(self, dtype=dtype)

    def apply(
        self,
        variables: dict[str, Params],
        batch: HistoryBatch,
        *,
        train: bool = False,
        rngs: dict[str, Array] | None = None,
        items_ID: Array | None = None,
        last_only: bool = False,
    ) -> RankingOutput:
        """See ``HistoryModel``; models that save nothing by ``last_only`` say all of it, and those
        that are others in use are asked as such where item vectors are given."""
        if items_ID is not None and self.in_use is not self:
            used = {"params": self.params_in_use(variables["params"])}
            return self.in_use.apply(used, batch, train=train, rngs=rngs, items_ID=items_ID)
        less = {"last_only": True} if last_only and family_of(self.config).says_last else {}
        module: Any = self.module
        return module.apply(
            variables, batch, self.texts, items_ID, train=train, rngs=rngs or {}, **less
        )

    def init(self, rng: Array) -> Params:
        """Fresh float32 parameters, drawn from a jax random key."""
        return _init(self.config, rng, self.texts)

    def item_vectors(self, params: Params) -> Array:
        """[I, D] of all items whose texts are given; made once, they serve many batches."""
        if self.in_use is not self:
            return self.in_use.item_vectors(self.params_in_use(params))
        module = ItemVectors(self.config.items)
        return jnp.asarray(module.apply({"params": params.get("items", {})}, self.texts))


@partial(jax.jit, static_argnums=0)
def _init(config: Any, rng: Array, texts: ItemTexts | None) -> Params:
    ids_BT = jnp.ones((1, 1), jnp.int32)
    where_BT = jnp.ones((1, 1), bool)
    batch = HistoryBatch(jnp.zeros((1,), jnp.int32), ids_BT, where_BT, ids_BT, where_BT)
    return family_of(config).build(config).init(rng, batch, texts)["params"]
