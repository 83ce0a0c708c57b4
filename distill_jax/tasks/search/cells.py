"""What a cell of search students is: data, teacher, student, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from distill_jax.core.digests import digest, fields_that_count
from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.engine.cell import Cell
from distill_jax.training.optimizer import OptimizerConfig

RECIPE = 1
"""Raised when the same cell would come out differently than before, so that old rows retire."""


@dataclass(frozen=True)
class SearchDataConfig:
    """Which queries and products.

    Attributes:
      name: ``icon_search``, ``esci:FOLDER`` or ``pairs:FOLDER``.
      locale, version: of ESCI alone.
      label_fraction: share of the training queries whose judgements are used; the others are
        transfer set.
      query_length, item_length: tokens after which a text is cut.
    """

    name: str = "icon_search"
    locale: str = "us"
    version: str = "small"
    label_fraction: float = 0.5
    query_length: int = 16
    item_length: int = 16

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.label_fraction <= 1:
            raise UserError(f"the label fraction must be in (0, 1], not {self.label_fraction}")
        if min(self.query_length, self.item_length) < 4:
            raise UserError("queries and products need at least 4 tokens")


@dataclass(frozen=True)
class SearchTraining:
    """How a model of search is trained.

    Attributes:
      steps: optimiser steps.
      evaluations: how often the validation split is looked at, evenly spread.
      batch_size: queries a step.
      list_size: products in a query's list.
    """

    steps: int = 300
    evaluations: int = 3
    batch_size: int = 32
    list_size: int = 8
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.steps, self.evaluations, self.batch_size) < 1 or self.list_size < 2:
            raise UserError(
                "steps, evaluations and batch size must be at least 1, a list at least 2 products"
            )


@dataclass(frozen=True)
class SearchTeacherConfig:
    """A cross-encoder that starts from a pretrained encoder and learns from the labels.

    Attributes:
      name: ``minilm-l6``, a local folder, or a hub id of a BERT sentence encoder. Without any
        training it is the retriever that finds the candidates.
      candidates: products a query that the teacher is asked about.
      prior_scale: the cross-encoder's output is added to so many times the encoder's cosine.
      training: of the cross-encoder, by ``ce`` over lists.
    """

    name: str = "minilm-l6"
    candidates: int = 16
    prior_scale: float = 5.0
    training: SearchTraining = field(
        default_factory=lambda: SearchTraining(
            steps=200, evaluations=2, batch_size=16, optimizer=OptimizerConfig(learning_rate=1e-4)
        )
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.candidates < self.training.list_size:
            raise UserError("a query needs at least as many candidates as its list has products")
        if not 0 < self.prior_scale < 1e3:
            raise UserError(f"the prior's scale must be above 0, not {self.prior_scale}")


@dataclass(frozen=True)
class SearchSetup:
    """What a cell of search students is.

    Attributes:
      student: size of a tower, as of other students: ``2x64x2``, ``l2`` ...
      start: ``words``: embeddings projected from the pretrained encoder's, the rest random;
        ``random``: all of it. A copied student (``l2``) starts from the encoder's layers.
      shared: one tower for both sides.
      similarity: of vectors, see ``TwoTowerConfig``. Untrained towers tell products apart by
        cosine; in inner products their common part drowns the rest.
      in_batch: lists go on with the batch's other first products.
      hears: ``teacher``; ``shuffled``: its scores, given to other candidates of the same query.
      transfer: whether queries without judgements are learnt from; only a teacher speaks there.
    """

    Training: ClassVar[type] = SearchTraining

    data: SearchDataConfig = field(default_factory=SearchDataConfig)
    teacher: SearchTeacherConfig = field(default_factory=SearchTeacherConfig)
    student: str = "2x64x2"
    start: Literal["words", "random"] = "words"
    shared: bool = True
    similarity: Literal["dot", "cosine"] = "cosine"
    in_batch: bool = True
    hears: Literal["teacher", "shuffled"] = "teacher"
    transfer: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def settled(self, cell: SearchCell) -> SearchCell:
        """The cell as it is: its objective counts as it was written.

        Raises:
          UserError: for lists that are longer than there are candidates.
        """
        if cell.training.list_size > self.teacher.candidates:
            raise UserError(
                f"a list of {cell.training.list_size} products cannot come from "
                f"{self.teacher.candidates} candidates"
            )
        return cell

    def identity(self, cell: SearchCell) -> dict[str, Any]:
        """All that decides the run."""
        return {"recipe": RECIPE, "kind": "search", **cell.counted()}


SearchCell = Cell[SearchSetup]


def teacher_hash(data_digest: str, encoder_digest: str, config: SearchTeacherConfig) -> str:
    """The identity of a trained teacher. What it is called does not count, its content does."""
    known = fields_that_count(dataclasses.replace(config, name=""))
    return digest(
        {
            "recipe": RECIPE,
            "kind": "search-teacher",
            "data": data_digest,
            "encoder": encoder_digest,
            **known,
        }
    )
