"""Questions with long contexts as tokens: windows over the context, each with the question.

As in Devlin et al. 2019 ("BERT", section 4.2 and the released code): a context that does not fit is
seen in windows that overlap, so that an answer at the edge of one is inside another. In a window
that does not hold the whole answer, and for a question that has none, the answer is at the first
token, [CLS]. Which token is where in the context is kept for each window.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distill_jax.core.digests import digest, sha256_file
from distill_jax.core.errors import UserError
from distill_jax.core.spans import ENDS, STARTS
from distill_jax.data.coverage import Coverage, Tally
from distill_jax.data.squad import Answer
from distill_jax.data.table import NO_LABEL, TextDataset, TextTable
from distill_jax.data.tokenise import TokenDataset, Tokeniser, TokenTable, arrays_of

_FORMAT = 1

SHARED = 4
"""One of so many tokens of a window is shared with the next one."""
_LONGEST = 2
"""A question is cut where it would take more than one of so many tokens."""
LEAST = 24
"""Tokens that a window needs."""


class Window(NamedTuple):
    """A window of a context, for scoring.

    Attributes:
      question: the question's id.
      context: all of it.
      places_T2: int32 [T, 2], the characters of the context that each token was made of, from and
        up to; -1 of all other tokens.
      due: texts of the answers that are right, () where there is none; None where nobody says.
    """

    question: str
    context: str
    places_T2: np.ndarray
    due: tuple[str, ...] | None


def tokenise_questions(
    dataset: TextDataset, tokenizer_file: Path, *, max_length: int
) -> TokenDataset:
    """Token ids of the windows of every split.

    Args:
      dataset: of ``squad.load``.
      tokenizer_file: a ``tokenizer.json``.
      max_length: the most tokens of a window.

    Returns:
      Tables with ``targets_S`` (see ``core.spans``; -1 outside of the context) and a ``Window`` an
      example aside; and notes on what was cut.

    Raises:
      UserError: windows are too short, or the tokeniser cannot be read.
    """
    if max_length < LEAST:
        raise UserError(f"questions need --max-length {LEAST} at the least, not {max_length}.")
    tokeniser = Tokeniser(tokenizer_file, max_length)
    tables: dict[str, TokenTable] = {}
    coverage: dict[str, Coverage] = {}
    notes: list[str] = []
    for split, table in dataset.splits.items():
        tables[split], tally, _, told = windows_of(table, tokeniser)
        coverage[split] = tally.coverage(max_length)
        notes += [f"{split}: {each}" for each in told]
    key = digest(
        {
            "windows": _FORMAT,
            "dataset": dataset.digest,
            "tokenizer": sha256_file(tokenizer_file),
            "max_length": max_length,
        }
    )
    return TokenDataset(dataset.label_names, tables, key, coverage, tuple(notes))


def windows_of(
    table: TextTable, tokeniser: Tokeniser
) -> tuple[TokenTable, Tally, np.ndarray, list[str]]:
    """The windows of some questions, how much of their vocabulary is known, which questions were
    cut (bool [N]), and what people are told."""
    most = tokeniser.max_length // _LONGEST
    questions = tokeniser.shortened(table.texts, most)
    contexts = table.texts_b or ()
    answers = table.targets or (None,) * len(table)
    ids: list[str] = []
    labels: list[int] = []
    parts: list[Any] = []
    targets: list[np.ndarray] = []
    aside: list[Window] = []
    tally, missed, words = Tally(), 0, 0
    stride = tokeniser.max_length // SHARED
    seen = tokeniser.windows(questions, contexts, stride=stride)
    for row, encodings in enumerate(seen):
        own, context, holds = answers[row], contexts[row], False
        for number, encoding in enumerate(encodings):
            places_T2 = _places(encoding)
            marks, there = _marks(places_T2, own)
            holds |= there
            ids.append(table.ids[row] if number == 0 else f"{table.ids[row]}#{number}")
            labels.append(NO_LABEL if own is None else 0)
            targets.append(marks)
            words += encoding.special_tokens_mask.count(0)
            due = None if own is None else tuple(text for text, _ in own)
            aside.append(Window(table.ids[row], context, places_T2, due))
        missed += bool(own) and not holds
        parts.append(arrays_of(encodings))
    tokens_S, types_S, lengths_N = (np.concatenate(each) for each in zip(*parts, strict=True))
    tally.add(lengths_N, words=words, unknown=int((tokens_S == tokeniser.unknown_id).sum()))
    tokenised = TokenTable(
        ids=tuple(ids),
        labels_N=np.array(labels, np.int32),
        tokens_S=tokens_S,
        token_types_S=types_S,
        offsets_N1=np.append(0, np.cumsum(lengths_N)),
        targets_S=np.concatenate(targets),
        aside=tuple(aside),
    )
    told = []
    both = zip(questions, table.texts, strict=True)
    shortened_N = np.array([short != text for short, text in both], bool)
    if len(ids) > len(table):
        told.append(f"{len(table):,} questions are read in {len(ids):,} windows")
    if shortened_N.any():
        told.append(f"{shortened_N.sum():,} questions are cut at {most} tokens")
    if missed:
        told.append(f"{missed:,} answers fit in no window and cannot be learnt")
    return tokenised, tally, shortened_N, told


def _places(encoding: Any) -> np.ndarray:
    """int32 [T, 2], characters of the context by token; -1 outside of it, or of no character."""
    places_T2 = np.full((len(encoding), 2), -1, np.int32)
    both = zip(encoding.offsets, encoding.sequence_ids, strict=True)
    for token, ((start, stop), sequence) in enumerate(both):
        if sequence == 1 and stop > start:
            places_T2[token] = start, stop
    return places_T2


def _marks(places_T2: np.ndarray, answers: Sequence[Answer] | None) -> tuple[np.ndarray, bool]:
    """int32 [T], what is asked of each token, and whether the window holds the first answer."""
    inside_T = places_T2[:, 0] >= 0
    marks_T = np.where(inside_T, np.int32(0), np.int32(-1))
    marks_T[0] = 0
    if answers is None:
        return marks_T, False
    if answers and inside_T.any():
        text, start = answers[0]
        stop = start + len(text)
        tokens = np.flatnonzero(inside_T)
        touched = tokens[(places_T2[tokens, 1] > start) & (places_T2[tokens, 0] < stop)]
        whole = places_T2[tokens[0], 0] <= start and places_T2[tokens[-1], 1] >= stop
        if len(touched) and whole:
            marks_T[touched[0]] |= STARTS
            marks_T[touched[-1]] |= ENDS
            return marks_T, True
    marks_T[0] = STARTS | ENDS
    return marks_T, False
