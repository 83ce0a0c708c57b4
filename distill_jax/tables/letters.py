"""Which of many rows differ, as letters: two rows without a common letter differ significantly."""

import string
from collections.abc import Collection, Sequence


def letters_of(ranked: Sequence[int], different: Collection[tuple[int, int]]) -> dict[int, str]:
    """A compact letter display (Piepho 2004, "An algorithm for a letter-based representation of
    all-pairwise comparisons": insert and absorb).

    Args:
      ranked: the rows, best first.
      different: pairs of rows that differ.

    Returns:
      Row -> its letters: two rows share one if and only if they do not differ. The best row has
      an ``a``.
    """
    columns = [frozenset(ranked)]
    for first, second in different:
        split = []
        for column in columns:
            both = first in column and second in column
            split += [column - {first}, column - {second}] if both else [column]
        columns = [c for i, c in enumerate(split) if not _absorbed(i, split)]
    place = {row: number for number, row in enumerate(ranked)}
    columns.sort(key=lambda column: sorted(place[row] for row in column))
    return {
        row: "".join(_name(n) for n, column in enumerate(columns) if row in column)
        for row in ranked
    }


def _absorbed(index: int, columns: Sequence[frozenset[int]]) -> bool:
    """Whether another column holds all rows of this one; of equal columns the first stays."""
    own = columns[index]
    return any(
        own < other or (own == other and number < index) for number, other in enumerate(columns)
    )


def _name(number: int) -> str:
    turn, letter = divmod(number, 26)
    return string.ascii_lowercase[letter] + "′" * turn
