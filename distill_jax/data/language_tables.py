"""Texts as language models read them: which tokens are asked for, and what is shown instead.

Shape suffixes: N texts, S tokens of all texts one after another, B batch, T tokens, P positions
that are asked for, V vocabulary, R of the tokens that may be drawn.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from distill_jax.core.digests import digest, digest_arrays
from distill_jax.core.errors import UserError
from distill_jax.core.language_types import LanguageBatch
from distill_jax.core.types import Batch
from distill_jax.data.draws import draw_below, draw_unit
from distill_jax.data.tokenise import TokenTable

EVALUATION = -1
"""The epoch of masks that scores are read with, the same for all models and seeds."""
MASKED, RANDOM = 0.8, 0.1
"""Shares of the chosen tokens that [MASK], and that a token drawn by chance stands for; the others
stay. Devlin et al. 2019, section 3.1."""
NOTHING = -1
"""The target where nothing is asked."""
_WORD, _FATE, _TOKEN = range(3)  # of draws

Draws = Callable[[Any, int, int], Any]


class LanguageTable(Protocol):
    """What a language model learns from, see ``plan.TrainingTable``."""

    @property
    def tokens(self) -> TokenTable: ...

    @property
    def ids(self) -> tuple[str, ...]: ...

    @property
    def lengths_N(self) -> np.ndarray: ...

    @property
    def digest(self) -> str: ...

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> Any: ...

    def draws(self, steps_per_epoch: int) -> Draws | None:
        """What depends on chance in training, see ``Feed.draws``; None where nothing does."""

    def asked(self, batch: Any) -> LanguageBatch:
        """A batch as scores are read off it."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What masking has to know of a tokeniser.

    Attributes:
      mask: the id of its [MASK].
      ordinary: bool [V] as bytes, the tokens that are words or parts of words.
      continues: bool [V] as bytes, the tokens that go on with a word.
    """

    mask: int
    ordinary: bytes
    continues: bytes

    @property
    def ordinary_V(self) -> np.ndarray:
        return np.frombuffer(self.ordinary, bool)

    @property
    def continues_V(self) -> np.ndarray:
        return np.frombuffer(self.continues, bool)

    @functools.cached_property
    def ordinary_R(self) -> np.ndarray:
        """int32, ids of the ordinary tokens."""
        return np.flatnonzero(self.ordinary_V).astype(np.int32)


def masking_of(tokenizer: Tokenizer, special: frozenset[str], file: Path) -> Vocabulary:
    """What masking has to know.

    Args:
      special: tokens that are no words, by name, beside those that the tokeniser calls so.
      file: it was read from, for errors.

    Raises:
      UserError: for one without a mask.
    """
    numbers = tokenizer.get_vocab()
    mask = next((numbers[name] for name in ("[MASK]", "<mask>") if name in numbers), None)
    if mask is None:
        raise UserError(f"{file} has no [MASK]: a masked language model cannot read it")
    added = tokenizer.get_added_tokens_decoder().values()
    names = special | {token.content for token in added if token.special}
    count = max(numbers.values()) + 1
    ordinary_V, continues_V = np.zeros(count, bool), np.zeros(count, bool)
    prefix = getattr(tokenizer.model, "continuing_subword_prefix", None) or "##"
    for token, number in numbers.items():
        ordinary_V[number] = token not in names
        continues_V[number] = token.startswith(prefix) and token != prefix
    return Vocabulary(mask, ordinary_V.tobytes(), continues_V.tobytes())


@dataclasses.dataclass(frozen=True, eq=False)
class _Texts:
    """What both kinds have in common."""

    tokens: TokenTable

    def _flags(self, rows_R: np.ndarray, where_BT: np.ndarray, flags_S: np.ndarray) -> np.ndarray:
        """bool [B, T], flags of the tokens of a batch; rows without an example have none.

        Args:
          rows_R: of the table, at most B; fewer than 0 for no example.
        """
        rows_B = np.full(len(where_BT), -1, np.int64)
        rows_B[: len(rows_R)] = rows_R
        starts_B = self.tokens.offsets_N1[np.maximum(rows_B, 0)]
        place_BT = starts_B[:, None] + np.arange(where_BT.shape[1])[None, :]
        return where_BT & flags_S[np.where(where_BT, place_BT, 0)]

    @property
    def ids(self) -> tuple[str, ...]:
        return self.tokens.ids

    @property
    def lengths_N(self) -> np.ndarray:
        return self.tokens.lengths_N

    def __len__(self) -> int:
        return len(self.tokens)


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedTexts(_Texts):
    """Texts some of whose words are hidden, whole words at a time.

    ``round(share * words' tokens)`` tokens of a text are chosen, one at least: words in an order
    drawn by chance, those left out that would be too long. What is chosen, and what stands for it,
    is a pure function of the text's id, the seed and the epoch. A text all of whose words are too
    long is asked nothing.

    Attributes:
      tokens: of the texts.
      vocabulary: of the tokeniser.
      begins_S: bool [S], the tokens that begin a word.
      share: of the tokens that are asked for.
    """

    vocabulary: Vocabulary
    begins_S: np.ndarray
    share: float = 0.15

    @functools.cached_property
    def digest(self) -> str:
        """Of texts, words and share."""
        words = digest_arrays({"begins": self.begins_S})
        return digest(["masked", self.tokens.digest, words, self.share, self.vocabulary.mask])

    @functools.cached_property
    def _keys_N(self) -> np.ndarray:
        """int64: a number for each id, whatever row it stands in."""
        hashes = (hashlib.sha256(each.encode()).digest()[:8] for each in self.tokens.ids)
        return np.frombuffer(b"".join(hashes), "<i8")

    def positions(self, length: int) -> int:
        """How many are asked for in a batch of so many tokens a row."""
        return max(1, round(self.share * length))

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> Batch:
        """The texts as they are; ``draws`` and ``asked`` hide words."""
        return self.tokens.batch(rows, length, batch_size)

    def draws(self, steps_per_epoch: int) -> Draws:
        def draw(batch: Batch, seed: int, step: int) -> LanguageBatch:
            return self.masked(batch, seed=seed, epoch=step // steps_per_epoch)

        return draw

    def asked(self, batch: Batch) -> LanguageBatch:
        return self.masked(batch, seed=0, epoch=EVALUATION)

    def masked(self, batch: Batch, *, seed: int, epoch: int) -> LanguageBatch:
        """A batch of ``batch`` with words hidden."""
        rows_B = np.asarray(batch.example_ids_B)
        tokens_BT = np.asarray(batch.input_ids_BT)
        where_BT = np.asarray(batch.where_BT)
        length = tokens_BT.shape[1]
        key_B1 = self._keys_N[np.maximum(rows_B, 0)][:, None]
        free_BT = where_BT & self.vocabulary.ordinary_V[tokens_BT]
        begins_BT = self._begins(rows_B, where_BT)
        order_BT = draw_unit(key_B1, seed, epoch, _WORD, np.arange(length)[None, :])
        positions_BP = np.zeros((len(rows_B), self.positions(length)), np.int32)
        asked_BP = np.zeros(positions_BP.shape, bool)
        for row in np.flatnonzero(rows_B >= 0):
            chosen = _words(free_BT[row], begins_BT[row], order_BT[row], self.share)
            positions_BP[row, : len(chosen)] = chosen
            asked_BP[row, : len(chosen)] = True
        targets_BP = np.take_along_axis(tokens_BT, positions_BP, axis=1)
        fate_BP = draw_unit(key_B1, seed, epoch, _FATE, positions_BP)
        ordinary_R = self.vocabulary.ordinary_R
        drawn_BP = draw_below(len(ordinary_R), key_B1, seed, epoch, _TOKEN, positions_BP)
        shown_BP = np.where(
            fate_BP < MASKED,
            np.int32(self.vocabulary.mask),
            np.where(fate_BP < MASKED + RANDOM, ordinary_R[drawn_BP], targets_BP),
        )
        shown_BT = tokens_BT.copy()
        row_R, place_R = np.nonzero(asked_BP)
        shown_BT[row_R, positions_BP[row_R, place_R]] = shown_BP[row_R, place_R]
        return _asking(batch, shown_BT, positions_BP, targets_BP, asked_BP)

    def _begins(self, rows_B: np.ndarray, where_BT: np.ndarray) -> np.ndarray:
        """bool [B, T], the tokens that begin a word."""
        return self._flags(rows_B, where_BT, self.begins_S)


def _words(
    free_T: np.ndarray, begins_T: np.ndarray, order_T: np.ndarray, share: float
) -> np.ndarray:
    """Ascending positions of whole words that make up a share of the free tokens.

    Args:
      order_T: words come in the order of these numbers at their first tokens.
    """
    free = np.flatnonzero(free_T)
    if not len(free):
        return free
    room = max(1, round(share * len(free)))
    first_F = begins_T[free]
    first_F[0] = True
    starts = np.flatnonzero(first_F)
    sizes = np.diff(np.append(starts, len(free)))
    chosen: list[np.ndarray] = []
    for word in np.argsort(order_T[free[starts]], kind="stable"):
        if sizes[word] <= room:
            chosen.append(free[starts[word] : starts[word] + sizes[word]])
            room -= sizes[word]
        if not room:
            break
    return np.sort(np.concatenate(chosen)) if chosen else free[:0]


@dataclasses.dataclass(frozen=True, eq=False)
class NextTokens(_Texts):
    """Texts each of whose tokens is asked for, the ones before it given.

    Attributes:
      asked_S: bool [S], the tokens that are asked for, see ``text_windows``; None for all.
    """

    asked_S: np.ndarray | None = None

    @functools.cached_property
    def digest(self) -> str:
        """Of the texts, and of what is asked."""
        told = ["next", self.tokens.digest]
        if self.asked_S is not None:
            told.append(digest_arrays({"asked": self.asked_S}))
        return digest(told)

    def batch(self, rows: np.ndarray, length: int, batch_size: int) -> LanguageBatch:
        batch = self.tokens.batch(rows, length, batch_size)
        tokens_BT, where_BT = np.asarray(batch.input_ids_BT), np.asarray(batch.where_BT)
        asked_BP = where_BT[:, 1:]
        if self.asked_S is not None:
            asked_BP = asked_BP & self._flags(rows, where_BT, self.asked_S)[:, 1:]
        places_BP = np.broadcast_to(np.arange(length - 1, dtype=np.int32), asked_BP.shape)
        positions_BP = np.where(asked_BP, places_BP, np.int32(0))
        return _asking(batch, tokens_BT, positions_BP, tokens_BT[:, 1:], asked_BP)

    def draws(self, steps_per_epoch: int) -> None:
        return None

    def asked(self, batch: LanguageBatch) -> LanguageBatch:
        return batch


def _asking(
    batch: Batch,
    shown_BT: np.ndarray,
    positions_BP: np.ndarray,
    targets_BP: np.ndarray,
    asked_BP: np.ndarray,
) -> LanguageBatch:
    fields: dict[str, Any] = {f.name: getattr(batch, f.name) for f in dataclasses.fields(Batch)}
    fields |= {
        "input_ids_BT": shown_BT,
        "targets": np.where(asked_BP, targets_BP, np.int32(NOTHING)),
        "positions_BP": positions_BP,
    }
    return LanguageBatch(**fields)


def begins_by_pieces(tokens: TokenTable, vocabulary: Vocabulary) -> np.ndarray:
    """bool [S]: every token begins a word but those that go on with one (``##ing``)."""
    return ~vocabulary.continues_V[tokens.tokens_S]


def begins_by_spaces(
    texts: tuple[str, ...], tokens: TokenTable, tokenizer: Tokenizer
) -> np.ndarray:
    """bool [S]: words are what stands between spaces, as somebody cut the texts.

    So words of Chinese, of several characters, can be given.

    Args:
      texts: of the table, in its order.
      tokenizer: that made its tokens.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    begins_S = np.ones(len(tokens.tokens_S), bool)
    for row, text in enumerate(texts):
        start, stop = tokens.offsets_N1[row], tokens.offsets_N1[row + 1]
        end = None
        for place, (first, last) in enumerate(tokenizer.encode(text).offsets[: stop - start]):
            if first == last:  # a special token
                end = None
                continue
            begins_S[start + place] = end is None or any(map(str.isspace, text[end:first]))
            end = last
    return begins_S
