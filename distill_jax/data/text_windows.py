"""Long texts for models that say the next token: read on in further windows instead of cut.

A window begins with the last tokens of the one before, which are given and not asked for again: so
every token of a text is asked for once, and all but the first few with as much before it as that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.data.table import NO_LABEL
from distill_jax.data.tokenise import Tokeniser, TokenTable, arrays_of

SHARED = 4
"""One of so many tokens of a window is shared with the next one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Windowed:
    """Texts of which none is cut.

    Attributes:
      tokens: a row for each text, as it was, and behind them the further windows of long ones.
      asked_S: bool, the tokens that are asked for; None for all.
      long: how many texts have more than one window.
      further: windows that they have beside the first.
    """

    tokens: TokenTable
    asked_S: np.ndarray | None = None
    long: int = 0
    further: int = 0


def windowed(tokens: TokenTable, texts: Sequence[str], file: Path, *, max_length: int) -> Windowed:
    """What a table that is cut at ``max_length`` tokens leaves out, in further windows.

    Args:
      tokens: of the texts, in their order, by the tokeniser in ``file``.
    """
    rows = np.flatnonzero(tokens.lengths_N == max_length).tolist()
    tokeniser = Tokeniser(file, max_length)
    stride = max_length // SHARED
    asked_S = np.ones(len(tokens.tokens_S), bool)
    ids: list[str] = []
    more: list[Any] = []
    asked: list[np.ndarray] = []
    found = tokeniser.text_windows([texts[row] for row in rows], stride=stride)
    long = 0
    for row, (_, *further) in zip(rows, found, strict=True):
        if not further:
            continue
        long += 1
        asked_S[tokens.offsets_N1[row + 1] - 1] = False  # the text does not end there
        for number, window in enumerate(further, 1):
            ids.append(f"{tokens.ids[row]}#{number}")
            more.append(window)
            asked.append(_asked(window, stride, last=number == len(further)))
    if not long:
        return Windowed(tokens)
    tokens_S, types_S, lengths_N = arrays_of(more)
    rest = TokenTable(
        ids=tuple(ids),
        tokens_S=tokens_S,
        token_types_S=types_S,
        offsets_N1=np.append(0, np.cumsum(lengths_N)),
        labels_N=np.full(len(ids), NO_LABEL, np.int32),
    )
    return Windowed(tokens.joined(rest), np.concatenate([asked_S, *asked]), long, len(ids))


def _asked(window: Any, shared: int, *, last: bool) -> np.ndarray:
    """bool [T], the tokens of a window but the first that are asked for."""
    special_T = np.array(window.special_tokens_mask, bool)
    asked_T = ~special_T
    asked_T[np.flatnonzero(asked_T)[:shared]] = False
    asked_T[-1] |= last
    return asked_T
