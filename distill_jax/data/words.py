"""Sentences of words with a tag each, as tokens: a word is asked about at its first piece.

The words of a sentence are joined by spaces and tokenised as any text is, so that a model reads
the same whether words are given or a text; tokens find their words by the characters that they
were made of, whatever the tokeniser. The other pieces of a word, and special tokens, are not asked
about (Devlin et al. 2019, "BERT", section 5.3). A word that has no piece, because it was cut off or
the tokeniser drops it, cannot be answered: it counts as missed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError
from distill_jax.data.coverage import Coverage, Tally
from distill_jax.data.table import NO_LABEL, TextDataset, TextTable
from distill_jax.data.tokenise import TokenDataset, Tokeniser, TokenTable

_FORMAT = 1
NOT_ASKED = -1


class Words(NamedTuple):
    """The words of a sentence, for scoring.

    Attributes:
      due: the tag of every word; None where the sentence has none.
      seen: the numbers of the words that have a piece, ascending: those that are asked about.
    """

    due: tuple[str, ...] | None
    seen: tuple[int, ...]


def check_words(words: Any, where: str) -> tuple[str, ...]:
    """Words as a file has them.

    Raises:
      UserError: they are no list of words, or one of them is blank or holds white space.
    """
    if not isinstance(words, list | tuple) or not words:
        raise UserError(f"{where}: expected a list of words, found {words!r:.60}.")
    for number, word in enumerate(words):
        if not isinstance(word, str) or word.split() != [word]:
            raise UserError(
                f"{where}: word {number} is {word!r:.40}; expected text without white space."
            )
    return tuple(words)


def tokenise_words(
    dataset: TextDataset, tag_names: Sequence[str], tokenizer_file: Path, *, max_length: int
) -> tuple[TokenDataset, tuple[str, ...]]:
    """Token ids of every split, and what is asked at each token.

    Args:
      dataset: sentences, their words joined by spaces; ``targets`` are the tags of each, None
        where it has none.
      tag_names: the tags by number.
      max_length: the most tokens of a row, special ones included.

    Returns:
      Tables with ``targets_S``, the number of a word's tag at its first piece (0 in a sentence
      without tags) and -1 elsewhere, and a ``Words`` an example aside; and a sentence on words
      that have no piece.

    Raises:
      UserError: if the tokeniser cannot be read.
    """
    tokeniser = Tokeniser(tokenizer_file, max_length)
    number_of = {name: number for number, name in enumerate(tag_names)}
    tables: dict[str, TokenTable] = {}
    coverage: dict[str, Coverage] = {}
    lost: dict[str, tuple[int, int]] = {}
    for split, table in dataset.splits.items():
        tally = Tally()
        tables[split] = tokenised = _tokenised(table, number_of, tokeniser, tally)
        coverage[split] = tally.coverage(max_length)
        words = [(text.count(" ") + 1, own) for text, own in zip(table.texts, tokenised.aside or ())]
        missed = sum(count - len(own.seen) for count, own in words)
        lost[split] = missed, sum(count for count, _ in words)
    key = digest(
        {
            "words": _FORMAT,
            "dataset": dataset.digest,
            "tokenizer": sha256_file(tokenizer_file),
            "max_length": max_length,
        }
    )
    return TokenDataset(dataset.label_names, tables, key, coverage), _told(lost, max_length)


def _tokenised(
    table: TextTable, number_of: Mapping[str, int], tokeniser: Tokeniser, tally: Tally
) -> TokenTable:
    parts: list[Any] = []
    targets: list[np.ndarray] = []
    aside: list[Words] = []
    tags = table.targets or (None,) * len(table)
    for encodings, arrays in tokeniser.read(table.texts, ids=table.ids, tally=tally, places=True):
        parts.append(arrays)
        for encoding in encodings:
            row = len(aside)
            pieces, seen = first_pieces(encoding, table.texts[row])
            own = np.full(len(encoding), NOT_ASKED, np.int32)
            due = tags[row]
            own[pieces] = 0 if due is None else [number_of[due[word]] for word in seen]
            targets.append(own)
            aside.append(Words(None if due is None else tuple(due), seen))
    tokens_S, types_S, lengths_N = (np.concatenate(each) for each in zip(*parts, strict=True))
    labels_N = table.labels_N
    return TokenTable(
        ids=table.ids,
        labels_N=np.full(len(table), NO_LABEL, np.int32) if labels_N is None else labels_N,
        tokens_S=tokens_S,
        token_types_S=types_S,
        offsets_N1=np.append(0, np.cumsum(lengths_N)),
        targets_S=np.concatenate(targets),
        aside=tuple(aside),
    )


def first_pieces(encoding: Any, text: str) -> tuple[list[int], tuple[int, ...]]:
    """Where in a tokenised text words begin, and which words those are.

    Args:
      encoding: of the tokenizers library, with offsets.
      text: words joined by single spaces.

    Returns:
      The tokens that are the first of their word, and the words' numbers; both ascending.
    """
    starts = np.append(0, np.flatnonzero(np.frombuffer(text.encode("utf-32-le"), "<u4") == 32) + 1)
    pieces: list[int] = []
    seen: list[int] = []
    rest = zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
    for token, ((start, stop), special) in enumerate(rest):
        while start < stop and text[start] == " ":  # some tokenisers count it to the next word
            start += 1
        if special or start >= stop:
            continue
        word = int(np.searchsorted(starts, start, side="right")) - 1
        if not seen or word > seen[-1]:
            pieces.append(token)
            seen.append(word)
    return pieces, tuple(seen)


def _told(lost: Mapping[str, tuple[int, int]], max_length: int) -> tuple[str, ...]:
    """A sentence, where words of any split have no piece."""
    if not any(missed for missed, _ in lost.values()):
        return ()
    shown = ", ".join(f"{split} {missed:,} of {count:,}" for split, (missed, count) in lost.items())
    return (
        f"words without a token, cut at {max_length} tokens or dropped by the tokeniser, count as "
        f"missed: {shown}",
    )
