"""Items by what people call them: an id, a title, a title without its year or its article."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from distill_jax.core.errors import UserError
from distill_jax.core.files import write_atomic

FILE = "catalogue.json"
SUGGESTIONS = 3

_YEAR = re.compile(r"\s*\(\d{4}\)$")
_ARTICLE = re.compile(r"^(.*), (the|a|an|le|la|les|der|die|das|el|il)$")


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """The items of a recommender.

    Attributes:
      names: the data's own, unique.
      texts: ``title | genres`` or any other, or None.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def title(self, item: int) -> str:
        """What a person calls an item: its text up to the first bar, or its name."""
        written = self.texts[item].partition(" | ")[0].strip() if self.texts else ""
        return written or self.names[item]

    def show(self, item: int) -> str:
        """A title, with the item's name where that is another word."""
        title = self.title(item)
        return title if title == self.names[item] else f"{title} [{self.names[item]}]"

    def find(self, query: str) -> int:
        """The number of the item that is called so.

        An id comes first, then a title; upper case, the year and the place of the article do not
        matter where that leaves one item.

        Raises:
          UserError: where nothing is called so, with the nearest titles, or several are.
        """
        wanted, found = query.strip(), self.candidates(query)
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(map(self.show, found[:5]))
            raise UserError(f"{wanted!r} may be one of several items: {several}.")
        raise UserError(f"no item is called {wanted!r}.{self._nearest(wanted)}")

    def candidates(self, query: str) -> Sequence[int]:
        """The items that may be meant, by the rules of ``find``: none, one or several."""
        wanted = query.strip()
        if wanted in self._by_name:
            return (self._by_name[wanted],)
        return self._titled(wanted)

    def _titled(self, wanted: str) -> Sequence[int]:
        return self._exact.get(_folded(wanted), ()) or self._loose.get(_loosely(wanted), ())

    def doubt(self, query: str) -> str:
        """A sentence where an id is another item's title too; the id is what counts."""
        wanted = query.strip()
        item = self._by_name.get(wanted)
        others = [] if item is None else [each for each in self._titled(wanted) if each != item]
        if item is None or not others:
            return ""
        return (
            f"{wanted!r} is read as the id of {self.show(item)}; {self.show(others[0])} is called "
            "so too: its id names it"
        )

    def _nearest(self, wanted: str) -> str:
        close = difflib.get_close_matches(_loosely(wanted), self._loose, SUGGESTIONS, cutoff=0.5)
        items = [self._loose[key][0] for key in close]
        if not items:
            return " Give ids or titles of the catalogue, or the item's text as a new item."
        return f" Did you mean {' or '.join(map(self.show, items))}?"

    @functools.cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: item for item, name in enumerate(self.names)}

    @functools.cached_property
    def _exact(self) -> dict[str, list[int]]:
        return self._keyed(_folded)

    @functools.cached_property
    def _loose(self) -> dict[str, list[int]]:
        return self._keyed(_loosely)

    def _keyed(self, key: Callable[[str], str]) -> dict[str, list[int]]:
        keyed: dict[str, list[int]] = {}
        for item in range(len(self)):
            keyed.setdefault(key(self.title(item)), []).append(item)
        return keyed

    def words(self, history: str | Sequence[str], kinds: Sequence[str] = ()) -> list[str]:
        """What a history names, oldest first.

        In one text items are divided by semicolons, but for those in the name or title of an item:
        the longest that is one counts.

        Args:
          kinds: of feedback, which may stand before an item, ``click:Alien``.
        """
        if not isinstance(history, str):
            return [word for word in history if word.strip()]
        parts = [part.strip() for part in history.split(";")]
        words, start = [], 0
        while start < len(parts):
            kind, colon, first = parts[start].partition(":")
            if not colon or kind.strip() not in kinds:
                kind, colon, first = "", "", parts[start]
            ends = range(min(len(parts), start + 1 + self._semicolons), start + 1, -1)
            whole = ((end, _whole([first, *parts[start + 1 : end]])) for end in ends)
            end, word = next(
                ((end, each) for end, each in whole if each in self._divided), (start + 1, first)
            )
            words.append(f"{kind}{colon}{self._divided.get(word, word)}")
            start = end
        return [word for word in words if word]

    @functools.cached_property
    def _divided(self) -> dict[str, str]:
        """Names and titles that hold semicolons, as ``words`` puts their parts together."""
        called = [*map(self.title, range(len(self))), *self.names]
        written = [(each, each) for each in called] + [(_loosely(each), each) for each in called]
        return {_whole(key.split(";")): each for key, each in reversed(written) if ";" in key}

    @functools.cached_property
    def _semicolons(self) -> int:
        return max((each.count(";") for each in self._divided.values()), default=0)

    def history(self, text: str | Sequence[str]) -> list[int]:
        """Items of a history, see ``words``."""
        return [self.find(word) for word in self.words(text)]


def _folded(title: str) -> str:
    """A title without case, its accents as one character with their letters, as most write them."""
    return unicodedata.normalize("NFC", title.casefold())


def _whole(parts: Sequence[str]) -> str:
    """What semicolons divide, as one key."""
    return ";".join(_folded(part.strip()) for part in parts)


def _loosely(title: str) -> str:
    """A title without case, year, and with its article in front: ``Matrix, The (1999)``."""
    plain = _YEAR.sub("", _folded(title.strip()))
    moved = _ARTICLE.match(plain)
    return f"{moved[2]} {moved[1]}" if moved else plain


def save_catalogue(folder: Path, catalogue: Catalogue) -> None:
    """Write ``catalogue.json`` into a model's folder."""
    body = dataclasses.asdict(catalogue)
    write_atomic(folder / FILE, json.dumps(body, ensure_ascii=False) + "\n")


def load_catalogue(folder: Path) -> Catalogue | None:
    """What ``save_catalogue`` wrote; None where there is nothing.

    Raises:
      UserError: when it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        texts = body["texts"]
        catalogue = Catalogue(
            tuple(map(str, body["names"])), None if texts is None else tuple(map(str, texts))
        )
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if catalogue.texts is not None and len(catalogue.texts) != len(catalogue.names):
        raise UserError(f"{path} is damaged: not as many texts as names")
    return catalogue
