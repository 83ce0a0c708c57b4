"""Two entities marked in a sentence, for the class of their relation.

"Entity marker (punct)" of Zhou and Chen 2022, "An Improved Baseline for Sentence-level Relation
Extraction", section 3.1, without types: the subject stands between ``@``, the object between ``#``,
which every vocabulary has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from distill_jax.core.errors import UserError
from distill_jax.data.labels import ClassColumn
from distill_jax.data.words import check_words

SUBJECT, OBJECT = "subject", "object"
MARKERS = {SUBJECT: "@", OBJECT: "#"}
"""Column of a span -> what stands before and behind it."""


@dataclass(frozen=True)
class RelationColumn(ClassColumn):
    """A class a row, whose text has two entities: the words, and where each of them is."""

    what: ClassVar[str] = "relations"

    def text(self, cells: Mapping[str, Any], column: str, where: str) -> Any:
        return marked(cells, column, where)


def marked(cells: Mapping[str, Any], column: str, where: str) -> str:
    """The text of a row, its two entities between their markers.

    Args:
      cells: of the row: its words, a list or text by spaces; ``subject`` and ``object``, each
        ``[first word, word after the last]``, counted from 0.
      column: of the words.
      where: its place, for errors.

    Raises:
      UserError: a span is missing, or not among the words, or they overlap.
    """
    value = cells[column]
    words = check_words(value.split() if isinstance(value, str) else value, where)
    spans = {name: _span(cells.get(name), name, len(words), where) for name in MARKERS}
    (first, second) = sorted(spans.values())
    if first[1] > second[0]:
        raise UserError(f"{where}: {SUBJECT} and {OBJECT} overlap; expected two entities.")
    told = list(words)
    for name, (start, stop) in sorted(spans.items(), key=lambda item: item[1], reverse=True):
        told[start:stop] = [MARKERS[name], *told[start:stop], MARKERS[name]]
    return " ".join(told)


def _span(value: Any, name: str, count: int, where: str) -> tuple[int, int]:
    whole = isinstance(value, Sequence) and len(value) == 2 and all(type(n) is int for n in value)
    if not whole or not 0 <= value[0] < value[1] <= count:
        raise UserError(
            f"{where}: {name!r} is {value!r:.40}; expected [first word, word after the last] of "
            f"{count} words, counted from 0."
        )
    return value[0], value[1]
