"""What the families of recommenders have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

from distill_jax.models.family import Family
from distill_jax.models.recommenders.text_items import ItemConfig


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
