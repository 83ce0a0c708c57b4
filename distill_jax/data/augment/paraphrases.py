"""Whole texts out of the user's file: back-translations, paraphrases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.data.augment.base import Augment, Draw, Tools, Words, register, words_of
from distill_jax.data.file_formats import place, read_cells

ID, TEXT = "id", "text"


@register
@dataclass(frozen=True)
class Paraphrases(Augment):
    """Copy k of an example is the k-th text that the file has for its id; without one, none.

    Attributes:
      file: CSV, TSV, JSONL, Parquet ... with the columns ``id`` and ``text``, a row a paraphrase.
    """

    kind: ClassVar[str] = "paraphrases"
    pairs: ClassVar[bool] = False

    file: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.file:
            raise UserError("paraphrases needs a file: paraphrases(file='translated.csv')")

    def check(self, tools: Tools) -> None:
        read_paraphrases(user_path(self.file))

    def change_all(
        self,
        texts: Sequence[Words],
        draws: Sequence[Draw],
        ids: Sequence[str],
        copy: int,
        tools: Tools,
    ) -> list[Words | None]:
        known = read_paraphrases(user_path(self.file))
        if not known.keys() & set(ids):
            example, given = next(iter(ids)), next(iter(known))
            raise UserError(
                f"paraphrases: no id in {self.file} is one of a training example; there it is "
                f"{given!r}, in the data {example!r}"
            )
        found = []
        for example in ids:
            own = known.get(example, ())
            found.append(words_of(own[copy - 1]) if len(own) >= copy else None)
        return found


@lru_cache(maxsize=4)
def read_paraphrases(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Id -> its texts, in the order of the file.

    Raises:
      UserError: there is no such file, a column is missing, or a text is empty.
    """
    if not path.is_file():
        raise UserError(f"no paraphrases at {path}")
    found: dict[str, list[str]] = {}
    for number, cells in read_cells(path):
        for column in (ID, TEXT):
            if column not in cells:
                raise UserError(f"{place(path, number)}: paraphrases need a column {column!r}")
        text = cells[TEXT]
        if not isinstance(text, str) or not words_of(text):
            raise UserError(f"{place(path, number)}: no text")
        found.setdefault(str(cells[ID]), []).append(text)
    if not found:
        raise UserError(f"{path} has no paraphrases")
    return {example: tuple(texts) for example, texts in found.items()}
