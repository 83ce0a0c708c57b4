"""Sentences of words with a tag each, as tokens: a word is asked about at its first piece.

The words of a sentence are joined by spaces and tokenised as any text is, so that a model reads
the same whether words are given or a text; tokens find their words by the characters that they
were made of, whatever the tokeniser. The other pieces of a word, and special tokens, are not asked
about (Devlin et al. 2019, "BERT", section 5.3). A word that has no piece, because it was cut off or
the tokeniser drops it, cannot be answered: it counts as missed.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError
from distill_jax.data.coverage import Coverage, RowTally
from distill_jax.data.table import NO_LABEL, TextDataset
from distill_jax.data.tokenise import TokenDataset, Tokeniser, TokenTable

_FORMAT = 1
_WORD = re.compile(r"\S+")
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
) -> TokenDataset:
    """Token ids of every split, and what is asked at each token.

    Args:
      dataset: sentences, their words joined by spaces; ``targets`` are the tags of each, None
        where it has none.
      tag_names: the tags by number.
      max_length: the most tokens of a row, special ones included.

    Returns:
      Tables with ``targets_S``, the number of a word's tag at its first piece (0 in a sentence
      without tags) and -1 elsewhere, and a ``Words`` an example aside; and a note on words that
      have no piece.

    Raises:
      UserError: if the tokeniser cannot be read.
    """
    tokeniser = Tokeniser(tokenizer_file, max_length)
    tables: dict[str, TokenTable] = {}
    coverage: dict[str, Coverage] = {}
    lost: dict[str, tuple[int, int]] = {}
    for split, table in dataset.splits.items():
        tables[split], tally = word_table(
            table.texts, tokeniser, ids=table.ids, tags=table.targets, tag_names=tag_names
        )
        if table.labels_N is not None:
            tables[split] = tables[split].with_labels(table.labels_N)
        coverage[split] = tally.coverage(max_length)
        counts = [len(words_of(text)) for text in table.texts]
        missed = sum(counts) - sum(len(own.seen) for own in tables[split].aside or ())
        lost[split] = missed, sum(counts)
    key = digest(
        {
            "words": _FORMAT,
            "dataset": dataset.digest,
            "tokenizer": sha256_file(tokenizer_file),
            "max_length": max_length,
        }
    )
    notes = _told(lost, max_length)
    return TokenDataset(dataset.label_names, tables, key, coverage, notes)


def word_table(
    texts: Sequence[str],
    tokeniser: Tokeniser,
    *,
    ids: Sequence[str],
    tags: Sequence[Sequence[str] | None] | None = None,
    tag_names: Sequence[str] = (),
) -> tuple[TokenTable, RowTally]:
    """Sentences as tokens, asked about at the first piece of every word, and what was cut of them.

    Args:
      tags: of the words of each sentence, None for one that has none; None where none has.
      tag_names: the tags by number.
    """
    number_of = {name: number for number, name in enumerate(tag_names)}
    parts: list[Any] = []
    targets: list[np.ndarray] = []
    aside: list[Words] = []
    tally = RowTally()
    for encodings, arrays in tokeniser.read(texts, ids=ids, tally=tally, places=True):
        parts.append(arrays)
        for encoding in encodings:
            row = len(aside)
            pieces, seen = first_pieces(encoding, texts[row])
            own = np.full(len(encoding), NOT_ASKED, np.int32)
            due = tags[row] if tags is not None else None
            own[pieces] = 0 if due is None else [number_of[due[word]] for word in seen]
            targets.append(own)
            aside.append(Words(None if due is None else tuple(due), seen))
    tokens_S, types_S, lengths_N = (np.concatenate(each) for each in zip(*parts, strict=True))
    known = [NO_LABEL if own.due is None else 0 for own in aside]
    table = TokenTable(
        ids=tuple(ids),
        labels_N=np.array(known, np.int32),
        tokens_S=tokens_S,
        token_types_S=types_S,
        offsets_N1=np.append(0, np.cumsum(lengths_N)),
        targets_S=np.concatenate(targets),
        aside=tuple(aside),
    )
    return table, tally


def words_of(text: str) -> list[tuple[int, int]]:
    """The words of a text, what white space separates: from and up to which character."""
    return [word.span() for word in _WORD.finditer(text)]


def first_pieces(encoding: Any, text: str) -> tuple[list[int], tuple[int, ...]]:
    """Where in a tokenised text words begin, and which words those are.

    Args:
      encoding: of the tokenizers library, with offsets.

    Returns:
      The tokens that are the first of their word, and the words' numbers; both ascending.
    """
    starts = [start for start, _ in words_of(text)]
    pieces: list[int] = []
    seen: list[int] = []
    tokens = zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
    for token, ((start, stop), special) in enumerate(tokens):
        while start < stop and text[start].isspace():  # some count it to the next word
            start += 1
        if special or start >= stop:
            continue
        word = bisect_right(starts, start) - 1
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
