"""Feedback of several kinds: somebody clicks, puts into the cart, buys.

A kind is a number, its place among the names that are read; number 0 is what is asked for and
recommended, the others tell of the user and are learned from beside it.
"""

import math
from collections.abc import Sequence

import numpy as np

from distill_jax.core.errors import UserError, unknown

MOST_KINDS = 16
"""Kinds that are found in a column by itself; one with more holds something else."""


def parse_kinds(text: str | None) -> dict[str, float] | None:
    """``buy=1,cart=0.5,click=0.1`` as kind -> weight, in that order; a name alone weighs 1.

    Returns:
      None for None (all kinds of the data, alike), {} for "" (the column is not read).

    Raises:
      UserError: for a weight that is none, a name that occurs twice, or a first one of weight 0.
    """
    if text is None:
        return None
    weights: dict[str, float] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, number = (each.strip() for each in part.partition("="))
        weight = _number(number) if equals else 1.0
        if not name or name in weights or not 0 <= weight < math.inf:
            raise UserError(
                f"--kinds {text!r}: expected KIND=WEIGHT with weights of at least 0, each kind "
                "once, such as buy=1,cart=0.5,click=0.1."
            )
        weights[name] = weight
    if weights and not next(iter(weights.values())):
        raise UserError(f"--kinds {text!r}: the first kind is recommended, its weight is above 0.")
    return weights


def kind_weights(text: str | None) -> tuple[float, ...]:
    """The weights of ``--kinds`` in its order; () where all are alike."""
    weights = tuple((parse_kinds(text) or {}).values())
    return weights if len(set(weights)) > 1 else ()


def kind_numbers(
    name: str,
    column: Sequence[str] | None,
    wanted: Sequence[str] | None,
    told: list[str],
    *,
    occur: bool = True,
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Names of kinds, and each row's number among them, -1 for one that is not wanted.

    Args:
      name: of the data, for errors.
      column: the kind of each row; None where the data does not say.
      wanted: the kinds that count; None for all, the rarest first; () leaves the column unread.
      told: gets a sentence on what was decided.
      occur: whether every wanted kind has to have a row.

    Raises:
      UserError: for a kind that no row has, or a column of too many.
    """
    if column is None and wanted:
        raise UserError(
            f"data {name!r} has no column that says of which kind an interaction is "
            f"({', '.join(wanted)}); name it: --columns kind=COLUMN."
        )
    if column is None or (wanted is not None and not wanted):
        return (), None
    numbers: dict[str, int] = {}
    found_N = np.fromiter((numbers.setdefault(x, len(numbers)) for x in column), np.int64)
    counts = np.bincount(found_N)
    if wanted is None and len(numbers) > MOST_KINDS:
        raise UserError(
            f"data {name!r}: the column of kinds holds {len(numbers)} different words "
            f"({', '.join(list(numbers)[:3])} ...); name those that count (--kinds buy,click), the "
            'right column (--columns kind=COLUMN), or none (--kinds "").'
        )
    for kind in wanted or ():
        if kind not in numbers and occur:
            raise unknown("kind of feedback", kind, numbers, where=f"in data {name!r}")
    names = tuple(wanted or sorted(numbers, key=lambda kind: (counts[numbers[kind]], kind)))
    place = np.array([names.index(kind) if kind in names else -1 for kind in numbers], np.int64)
    rows = {kind: int(counts[number]) for kind, number in numbers.items()}
    told += _decided(names, dict.fromkeys(names, 0) | rows, wanted)
    return names, place[found_N]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _decided(
    names: Sequence[str], counts: dict[str, int], wanted: Sequence[str] | None
) -> list[str]:
    told = []
    if left := {kind: count for kind, count in counts.items() if kind not in names}:
        kinds = ", ".join(map(repr, left))
        told.append(f"{sum(left.values())} interactions of other kinds ({kinds}) were dropped")
    if len(names) > 1:
        others = ", ".join(f"{kind!r} ({counts[kind]})" for kind in names[1:])
        why = "the first named" if wanted else "the rarest; --kinds names another first"
        told.append(
            f"feedback of {len(names)} kinds: {names[0]!r} ({counts[names[0]]} interactions, "
            f"{why}) is asked for and recommended, {others} tell of the user too"
        )
    return told
