"""What is known of the items of a table, and its users asked about validation and test."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from distill_jax.core.digests import digest_arrays
from distill_jax.core.errors import UserError
from distill_jax.core.files import home, user_path
from distill_jax.data.coverage import Coverage, in_words, unknown_below
from distill_jax.data.interactions import RankingSplit
from distill_jax.data.item_fields import Fields, read_item_fields
from distill_jax.engine.engine import Engine
from distill_jax.evaluation.among import (
    ItemScorer,
    metrics_among,
    others_of,
    ranks_among,
)
from distill_jax.evaluation.recommend import RankingReport, Scorer, evaluate
from distill_jax.models.recommenders.text_items import ItemTexts
from distill_jax.tables.evidence import SAMPLED_RANK, pack_numbers
from distill_jax.tasks.recommendation.build import (
    ENCODER,
    item_vectors_of_file,
    item_vectors_of_texts,
)
from distill_jax.tasks.recommendation.cells import RecommenderCell
from distill_jax.teachers.item_texts import MAX_TOKENS, TextSpace

CUTS = (10, 20)
LIST = 20
"""Items of a list in ``fidelity@20``."""


@dataclass(frozen=True)
class TestAmong:
    """The test split's figures among a few items.

    Attributes:
      metrics: for the ledger.
      evidence: for tests over users.
    """

    __test__ = False  # not for pytest

    metrics: dict[str, float] = field(default_factory=dict)
    evidence: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The data of a table and what is made of it once.

    Attributes:
      engine: gives the folder of the runs, the display, and whether to stop.
      item_vectors: a file of them, or None.
      item_features: a table of the items' fields, or None.
      first: the catalogue that this one has grown from in the end: texts and vectors are scaled as
        there, fields numbered.
    """

    engine: Engine
    split: RankingSplit
    item_vectors: str | None = None
    item_features: str | None = None
    first: Catalogue | None = None

    @property
    def root(self) -> Catalogue:
        """The one that all have grown from."""
        return self.first or self

    @property
    def _items_first(self) -> int | None:
        return self.first.split.data.num_items if self.first else None

    @functools.cached_property
    def _texts(self) -> tuple[ItemTexts, TextSpace, Coverage]:
        say = self.engine.reporter.say
        say("reading the items' texts")
        space = self.first.texts[1] if self.first else None
        found = item_vectors_of_texts(self.split.data.item_texts, home(), space)
        for line in in_words({"items": found[-1]}, MAX_TOKENS, flag="no flag changes that"):
            say(f"data: {line}")
        return found

    @property
    def texts(self) -> tuple[ItemTexts, TextSpace]:
        """Vectors of the items' texts; made when a model wants them."""
        return self._texts[:2]

    @property
    def unknown(self) -> list[str]:
        """What is said below a table of items' tokens that the encoder does not know."""
        read = "_texts" in self.__dict__
        return unknown_below({"items": self._texts[-1]}, ENCODER) if read else []

    @functools.cached_property
    def given(self) -> np.ndarray:
        """float32 [I, V], the vectors of the file; read when a model wants them.

        Raises:
          UserError: where there is no such file.
        """
        if self.item_vectors is None:
            raise UserError("a model reads vectors of items: give a file (--item-vectors FILE).")
        path, names = user_path(self.item_vectors), self.split.data.item_names
        vectors_IV, notes = item_vectors_of_file(path, names, self._items_first)
        for note in notes:
            self.engine.reporter.say(f"note: {note}")
        return vectors_IV

    @functools.cached_property
    def given_digest(self) -> str:
        """Of the content of ``given``."""
        return digest_arrays({"given": self.given})

    @functools.cached_property
    def fields(self) -> Fields:
        """The items' fields; read when a model wants them.

        Raises:
          UserError: where there is no such table.
        """
        if self.item_features is None:
            raise UserError("a model reads fields of items: give a table (--item-features FILE).")
        path, names = user_path(self.item_features), self.split.data.item_names
        found = read_item_fields(path, names, self._items_first)
        for note in found.notes:
            self.engine.reporter.say(f"note: {note}")
        return found

    def test(self, scorer: Scorer) -> RankingReport:
        """The test split, read once a run."""
        return evaluate(
            scorer, self.split, "test", ks=CUTS, list_length=LIST, on_batch=self.engine.check_stop
        )

    def test_among(self, cell: RecommenderCell, scorer: ItemScorer) -> TestAmong:
        """The same among a few items, where the cell asks for that."""
        if not cell.setup.among:
            return TestAmong()
        others_UN = others_of(self.split, cell.setup.among, cell.seed)
        check_stop = self.engine.check_stop
        ranks_E = ranks_among(scorer, self.split, self.split.test, others_UN, check_stop)
        metrics = {f"test/{name}": value for name, value in metrics_among(ranks_E).items()}
        return TestAmong(metrics, {SAMPLED_RANK: pack_numbers(ranks_E)})
