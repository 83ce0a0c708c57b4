"""Which class of a trained head is which class of the data: by name, as said, or in order."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from distill_jax.core.errors import UserError, nearest, unknown
from distill_jax.data.split_files import listed

Pairs = tuple[tuple[str, str], ...]
"""(the teacher's class, by name or number; the data's class) each."""
FLAG = "--label-map"
MOST_SHOWN = 20
"""Classes in a message that shows how to write a map."""


@dataclass(frozen=True)
class Order:
    """How the classes of a trained head stand to the data's.

    Attributes:
      by: ``names``: they were compared; ``map``: as the user said; ``position``: the head does
        not name its classes, they are taken in the data's order.
      columns: of the head's outputs those that are taken, in the data's order.
      taken: what the head calls them, as a label map takes it; in the data's order.
      left_out: the classes that are not taken.
    """

    by: Literal["names", "map", "position"]
    columns: tuple[int, ...]
    taken: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @property
    def as_it_is(self) -> bool:
        """Whether the head's outputs stay as they are."""
        return not self.left_out and self.columns == tuple(range(len(self.columns)))

    def told(self, label_names: Sequence[str]) -> list[str]:
        """A line, where outputs are moved or left out."""
        if self.as_it_is:
            return []
        pairs = [
            f"{name} is its {head} (output {column})"
            for name, head, column in zip(label_names, self.taken, self.columns, strict=True)
        ]
        left = f"; left out: {listed(self.left_out)}" if self.left_out else ""
        return [f"its classes are put in the data's order: {listed(pairs)}{left}"]


def parse_label_map(text: str | None) -> Pairs:
    """``NEGATIVE=0,POSITIVE=1``, or the same as a JSON object; () for None.

    Raises:
      UserError: for anything else.
    """
    if text is None:
        return ()
    if text.lstrip().startswith("{"):
        try:
            pairs = json.loads(text, object_pairs_hook=lambda pairs: pairs)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{FLAG} is no JSON object: {error}") from error
        pairs = [(head, str(name) if type(name) is int else name) for head, name in pairs]
    else:
        halves = [entry.partition("=") for entry in text.split(",")]
        pairs = [(head.strip(), name.strip()) if sign else ("", "") for head, sign, name in halves]
    if not pairs or not all(isinstance(word, str) and word for pair in pairs for word in pair):
        raise UserError(
            f"{FLAG} {text!r:.200}: expected TEACHER'S=DATA'S,..., 'NEGATIVE=0,POSITIVE=1' say, "
            'or as JSON \'{"NEGATIVE": "0", "POSITIVE": "1"}\''
        )
    return tuple(pairs)


def shown_label_map(pairs: Sequence[tuple[str, str]]) -> str:
    """The flag for a shell, so that ``parse_label_map`` reads these pairs."""
    words = [word for pair in pairs for word in pair]
    plain = all(word == word.strip() and not set(word) & set(",={") for word in words)
    text = ",".join(f"{head}={name}" for head, name in pairs)
    if not plain:
        text = json.dumps(dict(pairs), ensure_ascii=False)
    return f"{FLAG} '" + text.replace("'", "'\"'\"'") + "'"


def order_of(
    names: Sequence[str] | None,
    count: int,
    label_names: Sequence[str],
    label_map: Pairs = (),
    instead: str = "leave out --no-fine-tune, and a new head is trained",
) -> Order:
    """The order that makes a head's outputs the data's classes.

    Args:
      names: of the head's classes; None where it does not name them.
      count: how many they are.
      label_names: the data's.
      label_map: as the user says; () for the same names, whatever their case and order.
      instead: what else the user can do where they do not fit.

    Raises:
      UserError: where a class has no partner, or several.
    """
    heads = list(names) if names is not None else [f"LABEL_{n}" for n in range(count)]
    if label_map:
        columns = _as_said(heads, label_names, label_map)
    elif names is None and count == len(label_names):
        columns = list(range(count))
    else:
        columns = _by_name(heads, label_names, instead)
    words = [head if heads.count(head) == 1 else str(n) for n, head in enumerate(heads)]
    return Order(
        "map" if label_map else "position" if names is None else "names",
        tuple(columns),
        tuple(words[column] for column in columns),
        tuple(word for n, word in enumerate(words) if n not in columns),
    )


def _as_said(heads: list[str], label_names: Sequence[str], label_map: Pairs) -> list[int]:
    column_of: dict[int, int] = {}
    for head, name in label_map:
        column, label = _find(head, heads), _find(name, label_names)
        if column is None and head.isdecimal() and int(head) < len(heads):
            column = int(head)
        if column is None:
            raise unknown("class of the teacher", head, heads, where=f"in {FLAG}")
        if label is None:
            raise unknown("class of the data", name, label_names, where=f"in {FLAG}")
        if label in column_of or column in column_of.values():
            again = name if label in column_of else head
            raise UserError(f"{FLAG} names {again!r} twice; each class has one partner")
        column_of[label] = column
    missing = [name for label, name in enumerate(label_names) if label not in column_of]
    if missing:
        raise UserError(
            f"{FLAG} does not say which class of the teacher is {listed(missing)}; the teacher "
            f"has {listed(heads)}"
        )
    return [column_of[label] for label in range(len(label_names))]


def _by_name(heads: list[str], label_names: Sequence[str], instead: str) -> list[int]:
    found = [_find(name, heads) for name in label_names]
    columns = [column for column in found if column is not None]
    if len(set(columns)) == len(label_names) == len(heads):
        return columns
    if len(heads) < len(label_names):
        raise UserError(
            f"the teacher has {len(heads)} classes ({listed(heads)}), the data {len(label_names)} "
            f"({listed(label_names)}): {instead}"
        )
    raise UserError(
        f"the teacher's classes are not the data's: {listed(heads)} and {listed(label_names)}. "
        f"{_way_out(heads, label_names)}, or {instead.partition(',')[0]}"
    )


def _way_out(heads: list[str], label_names: Sequence[str]) -> str:
    """How to say which is which, filled in as far as names are alike."""
    partner: dict[str, str] = {}
    for name in label_names:
        alike = nearest(name, [head for head in heads if head not in partner])
        if alike is not None:
            partner[alike] = name
    if len(partner) == len(label_names):
        pairs = [(head, partner[head]) for head in heads if head in partner]
    else:
        pairs = [(head, partner.get(head, "...")) for head in heads]
    more = ", and so on" if len(pairs) > MOST_SHOWN else ""
    dropped = "; a class that is not named is left out" if len(heads) > len(label_names) else ""
    return f"Say which is which: {shown_label_map(pairs[:MOST_SHOWN])}{more}{dropped}"


def _find(word: str, names: Sequence[str]) -> int | None:
    """The one name that is the word; else the one that is so but for case and spaces around."""
    same = [n for n, name in enumerate(names) if name == word]
    alike = [n for n, name in enumerate(names) if _plain(name) == _plain(word)]
    for found in (same, alike):
        if len(found) == 1:
            return found[0]
    return None


def _plain(name: str) -> str:
    return name.strip().casefold()
