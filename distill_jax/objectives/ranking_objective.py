"""The objective of a recommender: like ``resolve.ResolvedObjective``, over positions and items."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import HistoryBatch, Negatives, RankingCapture, RankingOutput
from distill_jax.core.top_items import Wanted
from distill_jax.core.types import ModelShape
from distill_jax.losses.numeric import floats, number
from distill_jax.objectives import ranking_distillation_terms as _teachers_losses
from distill_jax.objectives import ranking_hidden_terms as _hidden_losses
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.ranking_distillation_terms import wanted_of
from distill_jax.objectives.ranking_terms import Kind, RankingTerm, RankingVocabulary, Scores
from distill_jax.objectives.schedules import value_at
from distill_jax.objectives.terms import Objective, format_value

LOADED = _teachers_losses, _hidden_losses
"""They make their losses known on import."""


class _WithPlugins(RankingVocabulary):
    """The library's losses, and the user's that can be read here."""

    def names(self) -> tuple[str, ...]:
        return (*super().names(), *_teachers_losses.names_of_users())

    def lookup(self, name: str) -> Kind:
        return _teachers_losses.kind_of_user(name) or super().lookup(name)


VOCABULARY = _WithPlugins()
ROWS_ON_CPU = 512
"""Queries whose logits over all items are held at a time: in a processor's cache, for catalogues
of some thousand items."""
MOST_LOGITS = 2**29
"""Elsewhere so many are held at a time, 2 GiB."""


@dataclasses.dataclass(frozen=True)
class ResolvedRankingTerm:
    """A term of the text, fitted.

    Attributes:
      label: unique in the objective.
      name: the loss.
      dynamics: the names of its numbers.
      term: what computes it.
    """

    label: str
    name: str
    dynamics: tuple[str, ...]
    term: RankingTerm

    @property
    def random(self) -> bool:
        """Whether its numbers hold a draw of each step."""
        return self.term.random

    @property
    def structure(self) -> str:
        """As text, numbers replaced by #."""
        facts = [f"{key}=#" for key in self.dynamics]
        facts += [f"{key}={format_value(value)}" for key, value in self.term.options]
        return f"#*{self.name}({', '.join([*facts, *self.term.structure])})"


@dataclasses.dataclass(frozen=True)
class RankingObjective:
    """An objective fitted to a student and perhaps a teacher.

    Two are equal, and hash alike, when they compile to the same program.

    Attributes:
      rows: see ``losses.catalogue.catalogue_logsumexp``.
      unseen: items that no training interaction names, where a term asks for them.
    """

    objective: Objective = dataclasses.field(compare=False)
    student: ModelShape
    teacher: ModelShape | None
    terms: tuple[ResolvedRankingTerm, ...]
    rows: int | None
    unseen: tuple[int, ...] = ()

    def trained_on(self, counts_I: np.ndarray) -> RankingObjective:
        """The objective for a training part with so many interactions an item."""
        if not any(own.term.trained_only for own in self.terms):
            return self
        unseen = tuple(np.flatnonzero(counts_I == 0).tolist())
        return dataclasses.replace(self, unseen=unseen)

    @property
    def structure(self) -> str:
        """Canonical text of the static part; equal texts mean the same compiled program."""
        return " + ".join(term.structure for term in self.terms)

    @property
    def student_capture(self) -> RankingCapture:
        """What the objective needs of the student's output."""
        capture = RankingCapture()
        for own in self.terms:
            capture = capture | own.term.capture
        return capture

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at a teacher."""
        return any(own.term.needs_teacher for own in self.terms)

    @property
    def wanted(self) -> Wanted:
        """What it reads of a teacher."""
        return wanted_of(own.term for own in self.terms)

    @property
    def negatives(self) -> Negatives | None:
        """What a feed has to draw, see ``data.histories.Draws``."""
        return next((n for own in self.terms if (n := own.term.negatives)), None)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided, for people; a line a term."""
        return tuple(f"{own.label}: {'; '.join(n)}" for own in self.terms if (n := own.term.notes))

    def init_params(self, rng: Array) -> dict[str, Any]:
        """The losses' own parameters by term label, float32; {} when no term has any."""
        every = {
            own.label: own.term.init_params(jax.random.fold_in(rng, index))
            for index, own in enumerate(self.terms)
        }
        return {label: params for label, params in every.items() if params}

    def numbers(self, step: int, total_steps: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        """Weights and hyperparameters at a step, see ``ResolvedObjective.numbers``."""
        share = min(max(step / max(total_steps, 1), 0.0), 1.0)
        numbers: dict[str, dict[str, Any]] = {}
        for own, source in zip(self.terms, self.objective.terms, strict=True):
            given, allowed = dict(source.options), VOCABULARY.options(own.name)
            values = {key: given.get(key, allowed[key].default) for key in own.dynamics}
            values["weight"] = source.weight
            numbers[own.label] = {k: np.float32(value_at(v, share)) for k, v in values.items()}
            if own.term.random:
                numbers[own.label]["draw"] = np.asarray([seed, step], np.uint32)
        return numbers

    def __call__(
        self,
        params: Mapping[str, Any],
        numbers: Mapping[str, Mapping[str, Any]],
        student: RankingOutput,
        teacher: Any,
        batch: HistoryBatch,
    ) -> tuple[Array, dict[str, tuple[Array, Array]]]:
        """The objective's value on a batch.

        Returns:
          ``total = sum_i weight_i * sum_i / max(count_i, 1)``, sums and counts over the positions
          that a term looks at, and ``{label: (sum, count)}``.
        """
        scores = Scores(student, batch, self.rows, self.unseen)
        parts: dict[str, tuple[Array, Array]] = {}
        totals = []
        for own in self.terms:
            where = own.term.where(batch, teacher)
            values = own.term.values(params.get(own.label, {}), numbers[own.label], scores, teacher)
            total = jnp.sum(jnp.where(where, values, 0))
            count = jnp.sum(where, dtype=total.dtype)
            parts[own.label] = total, count
            totals.append(
                number(numbers[own.label]["weight"], total) * total / jnp.maximum(count, 1)
            )
        first, *rest = floats(*totals)
        return sum(rest, start=first), parts


def parse_ranking(text: str) -> Objective:
    """Reads the objective of a recommender, e.g. ``"full_softmax(label_smoothing=0.1)"``.

    Raises:
      UserError: with the column of the mistake and the nearest name that exists.
    """
    return parse(text, VOCABULARY)


def resolve_ranking(
    objective: Objective | str,
    student: ModelShape,
    teacher: ModelShape | None = None,
    *,
    positions: int,
    rows: int | None = None,
) -> RankingObjective:
    """Fits an objective to a recommender.

    Args:
      objective: parsed by ``parse_ranking``, or its text.
      student, teacher: shapes; ``num_labels`` is the number of items.
      positions: of a batch, B * T; decides whether the softmax over all items is cut.
      rows: of such a cut; chosen where it is None.

    Raises:
      UserError: if a term cannot be computed, before any step is taken.
    """
    objective = parse_ranking(objective) if isinstance(objective, str) else objective
    terms = []
    for label, source in zip(objective.labels, objective.terms, strict=True):
        kind = VOCABULARY.lookup(source.name)
        given = {key: option.default for key, option in kind.options.items()} | dict(source.options)
        statics = {key: v for key, v in given.items() if not kind.options[key].dynamic}
        dynamics = tuple(sorted(key for key in given if kind.options[key].dynamic))
        try:
            term = kind.bind(statics, student, teacher)
            if term.needs_teacher and teacher is None:
                raise UserError("this loss needs a teacher, and there is none.")
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        terms.append(ResolvedRankingTerm(label, source.name, dynamics, term))
    if len({n for own in terms if (n := own.term.negatives)}) > 1:
        raise UserError(
            f"{objective}: its losses want different numbers of negatives; a batch has one set."
        )
    chosen = rows or _rows(positions, student.num_labels)
    return RankingObjective(objective, student, teacher, tuple(terms), chosen)


def _rows(positions: int, num_items: int) -> int | None:
    if jax.default_backend() == "cpu":
        return ROWS_ON_CPU
    return None if positions * num_items <= MOST_LOGITS else max(MOST_LOGITS // num_items, 1)
