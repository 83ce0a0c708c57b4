"""Words give way to synonyms of the user's list."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.data.augment.base import (
    Augment,
    Draw,
    Near,
    Tools,
    Words,
    check_rate,
    register,
    words_of,
)
from distill_jax.data.augment.replace import core_of, replaced

MOST_BYTES = 64 << 20


@register
@dataclass(frozen=True)
class Synonyms(Augment):
    """Each word of the list gives way to one of its synonyms with probability ``rate``.

    Attributes:
      file: text in UTF-8; a line is a group of words that may stand for one another, separated by
        commas. Capitals do not matter. An entry of several words (``New York``, or several Chinese
        characters) is found where they stand in a row; of several entries the longest is.
    """

    kind: ClassVar[str] = "synonyms"

    file: str = ""
    rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate(self.kind, self.rate)
        if not self.file:
            raise UserError("synonyms needs a file: synonyms(file='synonyms.txt')")

    def check(self, tools: Tools) -> None:
        read_synonyms(user_path(self.file))

    def change(self, words: Words, draw: Draw, tools: Tools) -> Words:
        path = user_path(self.file)
        near = read_synonyms(path)
        changed = replaced(_entries(words, near, _longest(path)), near, self.rate, draw)
        return words_of(" ".join(changed))


def _entries(words: Words, near: Near, longest: int) -> Words:
    """The words, those in a row that are one entry of the list as one."""
    found, start = [], 0
    while start < len(words):
        for count in range(min(longest, len(words) - start), 0, -1):
            joined = " ".join(words[start : start + count])
            if count == 1 or core_of(joined).casefold() in near:
                break
        found.append(joined)
        start += count
    return found


@lru_cache(maxsize=4)
def _longest(path: Path) -> int:
    """The most words that an entry of the list has."""
    return max(len(words_of(entry)) for entry in read_synonyms(path))


@lru_cache(maxsize=4)
def read_synonyms(path: Path) -> Near:
    """Word, or words with a space between, in lower case -> synonyms, of all groups that it is in.

    Raises:
      UserError: there is no such file, or a line that is no group.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has more than {MOST_BYTES >> 20} MiB")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the synonyms in {path}: {error}") from error
    near: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, 1):
        group = [word.strip() for word in line.split(",")]
        if not line.strip() or line.startswith("#"):
            continue
        if len(group) < 2 or not all(group):
            raise UserError(
                f"{path}, line {number}: expected words that may stand for one another, separated "
                f"by commas, not {line!r:.80}"
            )
        for word in group:
            others = [other for other in group if other.casefold() != word.casefold()]
            entry = " ".join(words_of(word)).casefold()
            near[entry] = tuple(dict.fromkeys((*near.get(entry, ()), *others)))
    if not near:
        raise UserError(f"{path} has no synonyms")
    return near
