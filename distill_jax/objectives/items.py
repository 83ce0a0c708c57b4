"""A recommender's outputs: a catalogue of items, and what a teacher says of it at every position.

``resolve_ranking`` fits an objective to them. A loss finds its reader by its feed; how a new feed
is read is one line in ``READERS``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from distill_jax.core.ranking_types import Negatives, RankingCapture
from distill_jax.core.top_items import Wanted
from distill_jax.core.types import ModelShape
from distill_jax.objectives.drawn_readers import DrawnList, Hints
from distill_jax.objectives.expert_feeds import ExpertFeed, HintFeed
from distill_jax.objectives.feeds import (
    Feed,
    LogitFeed,
    RankingFeed,
    RelaxedFeed,
    SampledFeed,
    Shape,
    TargetFeed,
)
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.item_logit_readers import RankedList, TopLogits
from distill_jax.objectives.item_readers import ItemReader, SampledItems, Scores, WholeCatalogue
from distill_jax.objectives.item_vector_readers import Entities, Experts, HiddenVectors
from distill_jax.objectives.layer_feeds import ExampleFeed, HiddenFeed
from distill_jax.objectives.outputs import Outputs, Statics
from distill_jax.objectives.readers import Options
from distill_jax.objectives.registry import Spec
from distill_jax.objectives.resolve import ResolvedObjective, resolve
from distill_jax.objectives.terms import Objective, Option

READERS: dict[type[Feed], type[ItemReader]] = {
    TargetFeed: WholeCatalogue,
    SampledFeed: SampledItems,
    LogitFeed: TopLogits,
    RankingFeed: RankedList,
    RelaxedFeed: DrawnList,
    HiddenFeed: HiddenVectors,
    ExampleFeed: Entities,
    ExpertFeed: Experts,
    HintFeed: Hints,
}
ROWS_ON_CPU, BLOCK_ON_CPU = 512, 4096
"""Queries and items whose logits are held at a time on a processor, 8 MiB: what its cache holds."""
WHOLE_ON_CPU = 2**24
"""Rows have all their items at once up to so many logits, 64 MiB: what had been done always."""
ROWS, BLOCK = 4096, 2**15
"""Elsewhere, 512 MiB."""
MOST_LOGITS = 2**29
"""There all logits are made at once up to so many, 2 GiB."""


@dataclasses.dataclass(frozen=True)
class Items(Outputs):
    """What recommenders say, ``RankingOutput``, and their teachers, ``TopItems``.

    Attributes:
      rows, block: see ``losses.catalogue.catalogue_logsumexp``.
      unseen: items that no training interaction names, where a term asks for them.
      num_items: of the student's catalogue; None for those that its outputs have.
    """

    name: ClassVar[str] = "items"
    rows: int | None = None
    block: int | None = None
    unseen: tuple[int, ...] = ()
    num_items: int | None = None

    @property
    def student_capture(self) -> RankingCapture:
        return RankingCapture()

    @property
    def teacher_capture(self) -> Wanted:
        return Wanted()

    def options_of(self, feed: Feed) -> Mapping[str, Option]:
        return _reader_of(feed).options_of(feed)

    def statics(self, spec: Spec, given: Options) -> Statics:
        own = {key for key, option in spec.own.items() if not option.dynamic}
        return tuple((key, given[key]) for key in sorted({*own, *self.options_of(spec.feed)}))

    def fit(self, spec: Spec, given: Options, student: ModelShape, teacher: Shape) -> ItemReader:
        own = tuple((key, given[key]) for key in sorted(self.options_of(spec.feed)))
        widths = student.hidden_size, teacher.hidden_size if teacher else 0
        reader = _reader_of(spec.feed)(spec.feed, own, widths)
        reader.check(student.num_labels)
        return reader

    def seed(self, term: int, teacher: int) -> int:
        return term + 1000 * teacher

    def said(self, output: Any, batch: Any) -> Scores:
        return Scores(output, batch, self.rows, self.block, self.unseen, self.num_items)


def _reader_of(feed: Feed) -> type[ItemReader]:
    """The reader of a feed, or of the nearest kind above it."""
    return next(READERS[kind] for kind in type(feed).__mro__ if kind in READERS)


def parse_ranking(text: str) -> Objective:
    """Reads the objective of a recommender, e.g. ``"full_softmax(label_smoothing=0.1)"``.

    Raises:
      UserError: with the column of the mistake and the nearest name that exists.
    """
    return parse(text, Items())


def resolve_ranking(
    objective: Objective | str,
    student: ModelShape,
    teacher: ModelShape | Sequence[ModelShape] | None = None,
    *,
    positions: int,
    rows: int | None = None,
    block: int | None = None,
) -> ResolvedObjective:
    """Fits an objective to a recommender.

    Args:
      objective: parsed by ``parse_ranking``, or its text.
      student, teacher: shapes; ``num_labels`` is the number of items.
      positions: of a batch, B * T; decides whether the softmax over all items is cut.
      rows, block: of such a cut; chosen by size where rows is None.

    Raises:
      UserError: if a term cannot be computed, before any step is taken.
    """
    tile = (rows, block) if rows else tile_of(positions, student.num_labels)
    outputs = Items(*tile, num_items=student.num_labels)
    return resolve(objective, student, teacher, outputs)


def negatives_of(objective: ResolvedObjective) -> Negatives | None:
    """What a feed has to draw for an objective, see ``data.histories.Draws``.

    A batch has one set of negatives: a loss that wants fewer than another looks at the first ones.
    """
    wanted = _negatives(objective)
    if not wanted:
        return None
    per: Any = "position" if any(each.per == "position" for each in wanted) else "row"
    return Negatives(max(each.count for each in wanted), per)


def trained_on(objective: ResolvedObjective, counts_I: np.ndarray) -> ResolvedObjective:
    """The objective for a training part with so many interactions an item."""
    if not any(reader.trained_only for reader in _readers(objective)):
        return objective
    unseen = tuple(np.flatnonzero(counts_I == 0).tolist())
    assert isinstance(objective.outputs, Items)
    outputs = dataclasses.replace(objective.outputs, unseen=unseen)
    return dataclasses.replace(objective, outputs=outputs)


def looks_at_named(objective: ResolvedObjective) -> bool:
    """Whether an objective looks at no items but those that a batch and its teacher name."""
    return all(reader.of_named for reader in _readers(objective))


def _readers(objective: ResolvedObjective) -> list[Any]:
    return [reader for term in objective.terms for reader in term.readers]


def _negatives(objective: ResolvedObjective) -> set[Negatives]:
    return {wanted for reader in _readers(objective) if (wanted := reader.negatives)}


def tile_of(positions: int, num_items: int) -> tuple[int | None, int | None]:
    """Rows and items of which logits are held at a time; see ``catalogue_logsumexp``."""
    if jax.default_backend() == "cpu":
        if ROWS_ON_CPU * num_items <= WHOLE_ON_CPU:
            return ROWS_ON_CPU, None
        return min(positions, ROWS_ON_CPU), BLOCK_ON_CPU
    if positions * num_items <= MOST_LOGITS:
        return None, None
    return min(positions, ROWS), min(num_items, BLOCK)
