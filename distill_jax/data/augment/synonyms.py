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
)
from distill_jax.data.augment.replace import replaced

MOST_BYTES = 64 << 20


@register
@dataclass(frozen=True)
class Synonyms(Augment):
    """Each word of the list gives way to one of its synonyms with probability ``rate``.

    Attributes:
      file: text in UTF-8; a line is a group of words that may stand for one another, separated by
        commas. Capitals do not matter.
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
        return replaced(words, read_synonyms(user_path(self.file)), self.rate, draw)


@lru_cache(maxsize=4)
def read_synonyms(path: Path) -> Near:
    """Word -> its synonyms, of all groups that it is in.

    Raises:
      UserError: there is no such file, or a line that is no group.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} has more than {MOST_BYTES >> 20} MiB")
        lines = path.read_text(encoding="utf-8").splitlines()
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
            own = near.get(word.casefold(), ())
            near[word.casefold()] = tuple(dict.fromkeys((*own, *others)))
    if not near:
        raise UserError(f"{path} has no synonyms")
    return near
