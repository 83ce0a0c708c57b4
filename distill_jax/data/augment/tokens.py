"""What a tokeniser says of words: its mask, and which of its tokens are words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

MASKS = ("[MASK]", "<mask>")
_BEGINNINGS = ("Ġ", "▁")
"""Of tokens that begin a word, where continuations are the unmarked ones."""
_CONTINUED = "##"


def mask_of(tokenizer_file: Path) -> tuple[str, int] | None:
    """The text that a tokeniser reads as its mask, and the number of that token; None where there
    is none."""
    tokenizer = _opened(tokenizer_file)
    for text in MASKS:
        number = tokenizer.token_to_id(text)
        if number is not None and number in tokenizer.encode(f"a {text} b").ids:
            return text, number
    return None


@lru_cache(maxsize=4)
def whole_words(tokenizer_file: Path) -> dict[str, int]:
    """The words that are one token each, in lower case, and its number; letters only."""
    vocabulary = _opened(tokenizer_file).get_vocab()
    marked = any(token.startswith(_BEGINNINGS) for token in vocabulary)
    found: dict[str, int] = {}
    for token, number in sorted(vocabulary.items(), key=lambda pair: pair[1]):
        if token.startswith(_CONTINUED) or (marked and not token.startswith(_BEGINNINGS)):
            continue
        word = token[1:] if marked else token
        if word.isalpha():
            found.setdefault(word.casefold(), number)
    return found


def encoded(tokenizer_file: Path, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of texts, special ones included, cut to a length."""
    tokenizer = _opened(tokenizer_file)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return [each.ids for each in tokenizer.encode_batch_fast(list(texts))]


def _opened(tokenizer_file: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(tokenizer_file))
