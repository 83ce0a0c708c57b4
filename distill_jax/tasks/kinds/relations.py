"""The relation of two entities in a sentence, a class: ``--task relations``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from distill_jax.core.errors import UserError
from distill_jax.data.conll import WORDS
from distill_jax.data.labels import LabelColumn
from distill_jax.data.relations import MARKERS, OBJECT, SUBJECT, RelationColumn, marked
from distill_jax.data.table import TextDataset, TextTable
from distill_jax.evaluation.answers import TEXT, ClassForm, Fields, Form
from distill_jax.tasks.kinds.classes import TEMPERATURE, Classes
from distill_jax.tasks.kinds.kind import Calibrated, Described, Kind, register
from distill_jax.tasks.kinds.tags import check_single, with_usual_columns

RELATION = "relation"
_PLACE = "[first word, word after the last], counted from 0; marks it where the text does not"


class Relations(Classes):
    """What ``Classes`` is, of sentences with two marked entities."""

    name = "relations"
    what = "relations"

    @property
    def augments(self) -> bool:
        """No: copies would lose the marks of the entities."""
        return False

    def labels(self, data: Described) -> LabelColumn:
        return RelationColumn()

    def load(self, data: Described) -> TextDataset:
        check_single(data, "relations")
        return super().load(with_usual_columns(data, label=RELATION))

    def load_more(self, data: Described, name: str) -> TextDataset:
        if not name.startswith("files:"):
            raise UserError(f"data {name!r} has no relations: give files with --more-texts files:")
        return super().load_more(with_usual_columns(data, label=RELATION), name)

    def load_new(
        self, data: Described, label_names: tuple[str, ...]
    ) -> tuple[dict[str, TextTable], tuple[str, ...]]:
        check_single(data, "relations")
        return super().load_new(with_usual_columns(data, label=RELATION), label_names)

    def saved(self, fitted: Any, calibrated: Calibrated) -> dict[str, Any]:
        return {name: value for name, value in calibrated.items() if math.isfinite(value)}

    def form(self, saved: Mapping[str, Any], names: tuple[str, ...], tokenizer_file: Path) -> Form:
        return RelationForm(names, float(saved.get(TEMPERATURE, 1.0)))

    def keep(self, folder: Path, fitted: Any, calibrated: Calibrated) -> None:
        """As other kinds, with a file that says that texts are marked."""
        super().keep(folder, fitted, calibrated)
        Kind.keep(self, folder, fitted, calibrated)


@dataclass(frozen=True)
class RelationForm(ClassForm):
    """Classes of sentences whose entities are marked, or said to be somewhere."""

    beside: ClassVar[Fields] = {
        SUBJECT: (list[int], f"where the subject is: {_PLACE}"),
        OBJECT: (list[int], f"where the object is: {_PLACE}"),
    }

    def asked(self, pairs: bool) -> dict[str, str]:
        return {TEXT: "sentence, its subject between two @ and its object between two #"}

    @property
    def reading(self) -> str:
        return (
            "The subject stands between two `@` in the text, the object between two `#`. "
            f"{super().reading}"
        )

    def text_of(self, cells: Mapping[str, Any], column: str) -> str:
        if any(name in cells for name in MARKERS):
            return marked({**cells, WORDS: cells.get(column)}, WORDS, "the input")
        text = super().text_of(cells, column)
        words = text.split()
        if text.strip() and any(words.count(marker) < 2 for marker in MARKERS.values()):
            raise UserError(
                f"{text!r:.60} does not mark two entities: '@ Emma @ lives in # York #', or words "
                "with the columns subject and object"
            )
        return text


register(Relations())
