"""What there is at a moment, before new interactions come: a student, who taught it, a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from distill_jax.engine.engine import Engine
from distill_jax.models.recommenders.build import Recommender
from distill_jax.tables.ledger import Ledger
from distill_jax.tasks.recommendation.catalogue import Catalogue
from distill_jax.tasks.recommendation.words_since import Words
from distill_jax.training.state import Params


@dataclass(frozen=True, eq=False)
class Known:
    """A teacher at one moment and what it said.

    Attributes:
      params: of the whole catalogue.
      among: it speaks of the first so many items alone.
    """

    params: Params
    digest: str
    words: Words
    among: int


@dataclass(frozen=True, eq=False)
class First:
    """A student of the first moment.

    Attributes:
      params: of the whole catalogue.
      among: it knows the first so many items alone.
    """

    hash: str
    params: Params
    among: int


class Begun(Protocol):
    """A finished run, as what an update begins with."""

    def catalogue(self, engine: Engine) -> Catalogue:
        """What it was trained on."""

    def first(self, student: Recommender, ledger: Ledger) -> First:
        """The student; rows of what was there go to the ledger.

        Args:
          student: of the grown catalogue.
        """

    def teacher(self, engine: Engine, teacher: Recommender, ledger: Ledger) -> Known:
        """Who taught it.

        Args:
          teacher: of the grown catalogue.
        """
