"""Columns as the CoNLL shared tasks have them: a word a line, an empty line after each sentence.

The first column are the words, the last one their tags; those between are not read. Columns are
separated by a tab where a file's first line has one, else by white space. A file of one column has
words without tags. ``-DOCSTART-`` lines, which begin documents, are left out.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.data.separated import _ignore, open_text

ENDINGS = (".conll", ".bio", ".iob", ".iob2")
WORDS, TAGS = "tokens", "tags"
"""What the columns are called in the cells of a row, as in JSONL."""
_DOCUMENT = "-DOCSTART-"
_Row = tuple[int, dict[str, Any]]


def read_sentences(path: Path, note: Callable[[str], None] = _ignore) -> Iterator[_Row]:
    """(line of its first word, its words and tags) of every sentence.

    Args:
      note: told what had to be decided.

    Raises:
      UserError: naming the line that has not as many columns as the first one.
    """
    separator: str | None = None
    width = 0
    words: list[str] = []
    tags: list[str] = []
    first = 0
    with open_text(path) as lines:
        for line, text in enumerate(lines, start=1):
            if not text.strip() or text.startswith(_DOCUMENT):
                if words:
                    yield first, _cells(words, tags)
                    words, tags = [], []
                continue
            if not width:
                separator = "\t" if "\t" in text else None
            cells = _split(text, separator)
            if not width:
                width = len(cells)
                if width > 2:
                    note(f"{path.name} has {width} columns: the first are words, the last tags")
            _check(path, line, cells, width, separator)
            if not words:
                first = line
            words.append(cells[0])
            if width > 1:
                tags.append(cells[-1])
    if words:
        yield first, _cells(words, tags)


def _split(text: str, separator: str | None) -> list[str]:
    return [cell.strip() for cell in text.strip("\r\n ").split(separator)]


def _check(path: Path, line: int, cells: list[str], width: int, separator: str | None) -> None:
    if len(cells) != width or not all(cells):
        by = "tabs" if separator else "white space"
        form = "word<TAB>tag" if separator else "word tag"
        found = len([cell for cell in cells if cell])
        raise UserError(
            f"{path}, line {line}: {found} cells separated by {by}, expected {width} as in the "
            f"first line ({form}; an empty line ends a sentence)."
        )


def _cells(words: list[str], tags: list[str]) -> dict[str, Any]:
    return {WORDS: words, TAGS: tags} if tags else {WORDS: words}
