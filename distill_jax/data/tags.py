"""Tags of words in BIO form (Ramshaw and Marcus 1995): read, checked, put in order.

``B-TYPE`` begins an entity, ``I-TYPE`` goes on with it, ``O`` is outside of all.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import ne
from typing import Any, ClassVar

import numpy as np

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.classes import label_word
from distill_jax.data.conll import WORDS
from distill_jax.data.labels import Columns, LabelColumn, Place
from distill_jax.data.table import NO_LABEL, TextDataset
from distill_jax.data.words import check_words

OUTSIDE = "O"
_TAG = re.compile(r"[BI]-\S+")
FORMS = "O, B-TYPE (an entity begins) and I-TYPE (it goes on)"


def read_tag(text: str, where: str) -> tuple[str, bool]:
    """A tag, and whether it is the first of several.

    Where annotators' tags are joined by commas (``B-group,B-product``, as in the test file of WNUT
    2017), the first counts.

    Args:
      where: its place, for errors.

    Raises:
      UserError: it is no tag of BIO.
    """
    first, comma, rest = text.partition(",")
    if comma and encodable(text) and all(_is_tag(each) for each in (first, *rest.split(","))):
        return first, True
    if not _is_tag(text) or not encodable(text):
        raise UserError(f"{where}: unknown tag {text!r:.60}; allowed: {FORMS}.")
    return text, False


def encodable(text: str) -> bool:
    """Whether UTF-8 can hold a text; JSON may spell halves of characters."""
    return not any("\ud800" <= each <= "\udfff" for each in text)


def _is_tag(text: str) -> bool:
    return text == OUTSIDE or _TAG.fullmatch(text) is not None


def type_of(tag: str) -> str:
    """The type of a tag; "" outside."""
    return tag[2:]


def repaired(tags: Sequence[str]) -> tuple[tuple[str, ...], int]:
    """Tags in which every entity begins with B, and how many I had to become one.

    An I that follows O, or an entity of another type, goes on with nothing: ``conlleval`` counts
    an entity from there, and so does this.
    """
    told, count, before = [], 0, ""
    for tag in tags:
        if tag.startswith("I-") and type_of(tag) != before:
            tag, count = f"B-{type_of(tag)}", count + 1
        told.append(tag)
        before = type_of(tag)
    return tuple(told), count


def tag_order(tags: Iterable[str]) -> tuple[str, ...]:
    """Every tag that a model of these may say: O, then B and I of each type, types sorted."""
    types = sorted({type_of(tag) for tag in tags} - {""})
    return (OUTSIDE, *(f"{prefix}-{each}" for each in types for prefix in "BI"))


@dataclass(frozen=True)
class TagColumn(LabelColumn):
    """A tag a word: a list of words and a list of tags as long, or both as text, by spaces.

    Attributes:
      words: the column of the words.
    """

    what: ClassVar[str] = "tags"
    words: str = WORDS

    def text(self, cells: Mapping[str, Any], column: str, where: str) -> Any:
        return in_a_line(cells[column])

    def read(self, cells: Mapping[str, Any], column: str, where: str) -> tuple[str, ...] | None:
        words = check_words(_split(cells[self.words]), f"{where}: column {self.words!r}")
        tags = _split(cells.get(column))
        if tags is None:
            return None
        if not _are_words(tags) or len(tags) != len(words):
            raise UserError(
                f"{where}: column {column!r} has {len(tags) if isinstance(tags, list) else 'no'} "
                f"tags for {len(words)} words in {self.words!r}; expected one each."
            )
        for word, tag in zip(words, tags, strict=True):
            read_tag(tag, f"{where}: word {word!r:.40}")
        return tuple(tags)

    def names(
        self,
        labels: Sequence[Any],
        column: str,
        where: str,
        named: tuple[str, ...] | None,
        notes: list[str],
    ) -> tuple[str, ...]:
        tags = {first_of(tag) for own in labels if own is not None for tag in own}
        names = tag_order(tags)
        if len(names) < 2:
            raise UserError(f"{where}: no entity in column {column!r}; expected B-TYPE somewhere.")
        return names

    def columns(self, labels: Sequence[Any], names: tuple[str, ...], place: Place) -> Columns:
        known = set(names)
        for row, own in enumerate(labels):
            for tag in map(first_of, own or ()):
                if tag not in known:
                    where = f"in {place(row)}, whose type {self.whose} does not have"
                    raise unknown("tag", tag, names, where=where)
        none = all(own is None for own in labels)
        labels_N = np.array([NO_LABEL if own is None else 0 for own in labels], np.int32)
        return None if none else labels_N, tuple(labels)


def first_of(tag: str) -> str:
    """The tag that counts, see ``read_tag``."""
    return read_tag(tag, "")[0]


def with_sound_tags(dataset: TextDataset) -> TextDataset:
    """A data set of a ``TagColumn`` with one tag a word, every entity begun by B; notes say how
    many tags that changed."""
    several: dict[str, int] = {}
    mended: dict[str, int] = {}
    splits = {}
    for split, table in dataset.splits.items():
        targets = []
        for own in table.targets or (None,) * len(table):
            if own is not None:
                firsts = [first_of(tag) for tag in own]
                several[split] = several.get(split, 0) + sum(map(ne, firsts, own))
                own, count = repaired(firsts)
                mended[split] = mended.get(split, 0) + count
            targets.append(own)
        splits[split] = dataclasses.replace(table, targets=tuple(targets))
    notes = [
        *_told(several, "tags are several joined by commas: the first counts"),
        *_told(mended, "tags I-TYPE go on with nothing: read as B-TYPE, as conlleval does"),
    ]
    return dataclasses.replace(dataset, splits=splits, notes=(*dataset.notes, *notes))


def _told(counts: Mapping[str, int], what: str) -> list[str]:
    shown = ", ".join(f"{split} {count:,}" for split, count in counts.items() if count)
    return [f"{what} ({shown})"] if shown else []


def _split(value: Any) -> Any:
    """Text by spaces as a list; nothing as None."""
    if isinstance(value, str):
        return value.split() or None
    return value


def in_a_line(value: Any) -> Any:
    """A list of words as text, by spaces; anything else as it is."""
    return " ".join(value) if _are_words(value) else value


def _are_words(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


@dataclass(frozen=True)
class IntentTagColumn(TagColumn):
    """A tag a word, and a class a sentence from another column: its intent.

    Names are those of tags, then those of intents.

    Attributes:
      intent: the column of the classes.
    """

    what: ClassVar[str] = "intents and tags"
    intent: str = "intent"

    def read(self, cells: Mapping[str, Any], column: str, where: str) -> Any | None:
        tags = super().read(cells, column, where)
        intent = label_word(cells.get(self.intent), f"{where}: column {self.intent!r}")
        if (tags is None) != (intent is None):
            there, lacks = (column, self.intent) if intent is None else (self.intent, column)
            raise UserError(
                f"{where}: {there!r} without {lacks!r}; expected both, or neither (transfer set)."
            )
        if intent is not None and (_is_tag(intent) or not encodable(intent)):
            raise UserError(
                f"{where}: an intent called {intent!r:.40}; expected a name that is no tag."
            )
        return None if tags is None else (intent, tags)

    def names(
        self,
        labels: Sequence[Any],
        column: str,
        where: str,
        named: tuple[str, ...] | None,
        notes: list[str],
    ) -> tuple[str, ...]:
        there = [own for own in labels if own is not None]
        tags = super().names([own for _, own in there], column, where, None, notes)
        intents = sorted({intent for intent, _ in there})
        if len(intents) < 2:
            raise UserError(
                f"{where}: expected at least two different intents in {self.intent!r}, found "
                f"{', '.join(intents) or 'none'}."
            )
        return (*tags, *intents)

    def columns(self, labels: Sequence[Any], names: tuple[str, ...], place: Place) -> Columns:
        count = number_of_tags(names)
        intents = names[count:]
        for row, own in enumerate(labels):
            if own is not None and own[0] not in intents:
                where = f"in {place(row)}, which {self.whose} does not have"
                raise unknown("intent", own[0], intents, where=where)
        tags = [None if own is None else own[1] for own in labels]
        labels_N, targets = super().columns(tags, names[:count], place)
        if labels_N is not None:
            number = {name: n for n, name in enumerate(intents)}
            known = [NO_LABEL if own is None else number[own[0]] for own in labels]
            labels_N = np.array(known, np.int32)
        return labels_N, targets


def number_of_tags(names: Sequence[str]) -> int:
    """How many of the names of a model's outputs are tags; they come first."""
    return sum(map(_is_tag, names))
