"""How a column of labels is read: one ``LabelColumn`` a kind of what is predicted.

A reader (``files``, ``tfds_source``) hands over cells as they stand; what comes back are the names
of a model's outputs and two columns of a ``TextTable``: ``labels_N``, the class, or 0 where there
is no class but a label, or -1; and ``targets``, for what is no class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.classes import check_classes, class_order, label_word, settle
from distill_jax.data.table import TextDataset, label_array

Columns = tuple[np.ndarray | None, Any]
"""``labels_N`` and ``targets`` of a ``TextTable``."""
Place = Callable[[int], str]
"""(row) -> its file and line, for errors."""


@dataclass(frozen=True)
class LabelColumn(ABC):
    """How labels are read. Frozen, so that it can be compared.

    Attributes:
      least: names that a data set needs at the least.
      what: labels are called, for people.
      whose: who has the labels that are known, for errors.
    """

    least: ClassVar[int] = 2
    what: ClassVar[str] = "labels"
    whose: str = field(default="train", kw_only=True)

    @abstractmethod
    def read(self, cells: Mapping[str, Any], column: str, where: str) -> Any | None:
        """The label of a row; None where there is none.

        Args:
          cells: of the row, by column.
          column: of ``--label``.
          where: its place, for errors.

        Raises:
          UserError: for a cell that holds no such label.
        """

    def text(self, cells: Mapping[str, Any], column: str, where: str) -> Any:
        """The text of a row; for labels of words the cell may hold a list of them.

        Args:
          cells: of the row, by column.
          column: of the text.
          where: its place, for errors.
        """
        return cells[column]

    def of_built_in(self, dataset: TextDataset) -> TextDataset:
        """A data set that comes with the package, with such labels.

        Raises:
          UserError: it has none.
        """
        raise UserError(f"data {dataset.name!r} has no {self.what}: give files with --data files:")

    def settled(self, labels: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """The labels of every split, once all of them were read."""
        return dict(labels)

    @abstractmethod
    def names(
        self,
        labels: Sequence[Any],
        column: str,
        where: str,
        named: tuple[str, ...] | None,
        notes: list[str],
    ) -> tuple[str, ...]:
        """What the outputs of a model are called, in order.

        Args:
          labels: of train, None where a row has none.
          where: the file, for errors.
          named: as the file's schema has them; None where it has none.
          notes: what may be a slip is added.

        Raises:
          UserError: where they cannot be learnt.
        """

    @abstractmethod
    def columns(self, labels: Sequence[Any], names: tuple[str, ...], place: Place) -> Columns:
        """The labels of a split as columns of its table.

        Raises:
          UserError: for a label that train does not have.
        """


@dataclass(frozen=True)
class ClassColumn(LabelColumn):
    """One class a row: a word or a whole number."""

    def of_built_in(self, dataset: TextDataset) -> TextDataset:
        return dataset

    def read(self, cells: Mapping[str, Any], column: str, where: str) -> str | None:
        return label_word(cells.get(column), f"{where}: column {column!r}")

    def settled(self, labels: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        return settle(labels)

    def names(
        self,
        labels: Sequence[Any],
        column: str,
        where: str,
        named: tuple[str, ...] | None,
        notes: list[str],
    ) -> tuple[str, ...]:
        counts = Counter(label for label in labels if label is not None)
        if len(counts) < self.least:
            found = ", ".join(f"{x:.60}" for x in counts) or "none"
            raise UserError(f"{where}: expected at least two different labels, found {found}.")
        if named is None:
            notes += check_classes(counts, f"{where.rpartition('/')[2]}, column {column!r}")
        return class_order(counts, named)

    def columns(self, labels: Sequence[Any], names: tuple[str, ...], place: Place) -> Columns:
        known = set(names)
        for row, label in enumerate(labels):
            if label is not None and label not in known:
                where = f"in {place(row)}, which {self.whose} does not have"
                raise unknown("label", label, names, where=where)
        return (None if not any(labels) else label_array(labels, names)), None


CLASSES = ClassColumn()
