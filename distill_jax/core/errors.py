"""Errors for people: what was wrong, where, what is allowed, the nearest right word."""

import difflib
import unicodedata
from collections.abc import Iterable

MOST_CHARACTERS = 1000
"""Of the names that a message lists."""


class UserError(Exception):
    """A mistake the user can mend. Command lines print it in one line and exit with code 2.

    What a message quotes (names, cells of files) may hold line ends or what no terminal can
    print; such characters are shown as Python spells them.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


def panics_reported(error: BaseException) -> str:
    """The first line of what a library written in Rust raised.

    Its panics are no ``Exception``; what is to stop a program is raised again.
    """
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        raise error
    return first_line(error)


def first_line(error: BaseException) -> str:
    """Of what an error says; the name of its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def printable(text: str) -> str:
    """The text in one line: what ends lines, or cannot be printed, as Python spells it."""
    return "".join(
        repr(each)[1:-1] if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") else each
        for each in text
    )


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word most like ``word``, or None when nothing is close."""
    by_lower = {name.lower(): name for name in allowed}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def unknown(kind: str, word: str, allowed: Iterable[str], *, where: str = "") -> UserError:
    """A ``UserError`` for a name that does not exist, with the nearest name that does.

    Args:
      kind: what was looked up, e.g. ``"loss"``.
      word: what the user wrote.
      allowed: every name that would have worked.
      where: the place of the mistake, e.g. ``"at column 5 of '0.9*kll'"``.
    """
    names = sorted(allowed)
    guess = nearest(word, names)
    place = f" {where}" if where else ""
    hint = f" Did you mean {guess!r}?" if guess else ""
    return UserError(f"unknown {kind} {word!r:.80}{place}.{hint} Allowed: {_choices(names)}.")


def _choices(names: list[str]) -> str:
    """The names one after another, as far as a person would read."""
    said, room = [], MOST_CHARACTERS
    for name in names:
        room -= len(name) + 2
        if room < 0:
            break
        said.append(name)
    more = len(names) - len(said)
    return (", ".join(said) or "none") + (f" and {more:,} more" if more else "")
