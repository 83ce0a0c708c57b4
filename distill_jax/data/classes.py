"""What a label column holds: classes, or numbers, sets and slips that only look like them."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.data.split_files import listed
from distill_jax.data.table import fold

MOST_UNALIKE = 20
"""Different labels from which on half as many labels as rows are no classes."""
_MISSING = ("nan", "none", "null", "n/a", "na", "nil", "<na>", "?")
_PARTS = re.compile(r"[,;|]")
_HIDDEN = "-1"
"""How GLUE writes a label that is kept back."""


def label_word(value: Any, where: str) -> str | None:
    """A label as text, None for none.

    Args:
      value: of a cell: text, a number, a truth value, or nothing (None, "", NaN).
      where: its place, for errors.

    Raises:
      UserError: for anything else.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | tuple | dict):
        raise UserError(
            f"{where} holds {value!r:.60}: several labels an example are learnt with --task "
            "labels; expected one class, a word or a whole number."
        )
    if not isinstance(value, str | int | float):
        raise UserError(
            f"{where} holds {value!r:.60}: expected one class, a word or a whole number."
        )
    return str(value).strip() or None


def settle(labels: Mapping[str, list[str | None]]) -> dict[str, list[str | None]]:
    """The labels of every split, those that are spelt in two ways in one.

    Whole numbers that pandas made decimal (1.0) are whole numbers again, where all labels are
    such; -1, where train does not have it, is no label.
    """
    words = {x for each in labels.values() for x in each if x is not None}
    numbers = {x: number for x in words if (number := _number(x)) is not None}
    others = {x for x in words - numbers.keys() if x.lower() not in _MISSING}
    spelt: dict[str, str | None] = {}
    if not others and all(number.is_integer() for number in numbers.values()):
        spelt = {x: str(int(number)) for x, number in numbers.items() if "." in x or "e" in x}
    settled = {s: [spelt.get(x, x) if x else x for x in each] for s, each in labels.items()}
    if _HIDDEN not in settled.get("train", ()):
        settled = {s: [None if x == _HIDDEN else x for x in each] for s, each in settled.items()}
    return settled


def check_classes(counts: Mapping[str, int], where: str) -> tuple[str, ...]:
    """Whether the labels of train can be classes; returns notes on what may be a slip.

    Args:
      counts: label -> how many rows have it.
      where: file and column, for errors.

    Raises:
      UserError: where they are numbers on a scale, sets of labels, or as many as rows.
    """
    numbers = {x: number for x in counts if (number := _number(x)) is not None}
    others = [x for x in counts if x not in numbers and x.lower() not in _MISSING]
    in_order = sorted(numbers, key=lambda x: numbers[x])
    if numbers and not others and not all(x.is_integer() for x in numbers.values()):
        raise UserError(
            f"{where} holds numbers from {in_order[0]:.20} to {in_order[-1]:.20}, not classes; "
            "numbers are learnt with --task number. Expected words or whole numbers: round the "
            "numbers, or name another column with --label."
        )
    if several := _sets(counts):
        raise UserError(
            f"{where} holds sets of labels ({listed([repr(x) for x in several[:3]])}); several "
            "labels an example are learnt with --task labels. Expected one class a row; where "
            "these are classes of their own, write them without ',', ';' and '|'."
        )
    rows = sum(counts.values())
    if len(counts) > max(MOST_UNALIKE, rows / 2):
        raise UserError(
            f"{where} holds {len(counts):,} different values in {rows:,} rows "
            f"({listed([repr(x) for x in list(counts)[:3]])}); expected classes. Is it the right "
            "column (--label)?"
        )
    return (*_missing_words(counts, where), *_alike(counts, where))


def class_order(labels: Mapping[str, int], named: tuple[str, ...] | None) -> tuple[str, ...]:
    """The classes in their order: as the file names them, else by value or alphabet."""
    if named is not None and set(labels) <= set(named):
        return named
    try:
        return tuple(sorted(labels, key=int))
    except ValueError:
        return tuple(sorted(labels))


def _number(label: str) -> float | None:
    if not re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?", label):
        return None
    number = float(label)
    return number if math.isfinite(number) else None


def _sets(counts: Mapping[str, int]) -> list[str]:
    """Labels made of several, each of which occurs elsewhere too."""
    parts = {x: [part.strip(" '\"") for part in _PARTS.split(x.strip("[]{}()"))] for x in counts}
    seen = Counter(part for each in parts.values() for part in set(each))
    return [
        x
        for x, each in parts.items()
        if len(each) > 1 and all(part and seen[part] > 1 for part in each)
    ]


def _missing_words(counts: Mapping[str, int], where: str) -> list[str]:
    return [
        f"{where}: {x!r} ({counts[x]:,} rows) is taken for a class; leave the cell empty where "
        "there is no label"
        for x in counts
        if x.lower() in _MISSING
    ]


def _alike(counts: Mapping[str, int], where: str) -> list[str]:
    by_fold: dict[str, list[str]] = {}
    for x in counts:
        by_fold.setdefault(fold(x), []).append(x)
    return [
        f"{where}: {' and '.join(f'{x!r} ({counts[x]:,} rows)' for x in alike)} are taken for "
        f"{len(alike)} classes"
        for alike in by_fold.values()
        if len(alike) > 1
    ]
