"""How much of the texts a model gets to see: what is cut, and what its vocabulary does not know."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

WARNED = 0.05
"""Share of either from which on it is a warning."""
FITTING = 0.95
WAY_OUT = (
    "Take a teacher whose vocabulary has them (--teacher), or make one of your own texts: "
    "distill-jax pretrain"
)


@dataclass(frozen=True)
class Coverage:
    """Of one split.

    Attributes:
      cut: share of the texts that were cut.
      unknown: share of the tokens, special ones apart, that the vocabulary does not know.
      fitting: tokens that 95% of the texts would need.
      texts, words: how many there are; of words the tokens that were kept, special ones apart.
    """

    cut: float
    unknown: float
    fitting: int
    texts: int = field(default=0, compare=False)
    words: int = field(default=0, compare=False)

    def joined(self, other: "Coverage") -> "Coverage":
        """Of the texts of both; ``fitting`` is the larger one's."""
        texts, words = self.texts + other.texts, self.words + other.words
        return Coverage(
            cut=(self.cut * self.texts + other.cut * other.texts) / max(texts, 1),
            unknown=(self.unknown * self.words + other.unknown * other.words) / max(words, 1),
            fitting=max(self.fitting, other.fitting),
            texts=texts,
            words=words,
        )


class Tally:
    """Counts of texts as they come, of as many as there are: what a ``Coverage`` is made of.

    Attributes:
      words: tokens that were kept, special ones apart.
      unknown: how many of those the vocabulary does not know.
    """

    def __init__(self) -> None:
        self._texts_L = np.zeros(0, np.int64)  # by the tokens that they would need
        self.words = self.unknown = 0

    @property
    def texts(self) -> int:
        """How many there were."""
        return int(self._texts_L.sum())

    def add(self, needed_N: np.ndarray, *, words: int, unknown: int) -> None:
        """Count some texts.

        Args:
          needed_N: whole numbers, the tokens that each would need.
          words: tokens that were kept of them, special ones apart.
          unknown: how many of those the vocabulary does not know.
        """
        self._count(np.bincount(needed_N), words, unknown)

    def merge(self, other: "Tally") -> None:
        """Count what another counted."""
        self._count(other._texts_L, other.words, other.unknown)

    def _count(self, texts_L: np.ndarray, words: int, unknown: int) -> None:
        sum_L = np.zeros(max(len(self._texts_L), len(texts_L)), np.int64)
        for each in (self._texts_L, texts_L):
            sum_L[: len(each)] += each
        self._texts_L = sum_L
        self.words += words
        self.unknown += unknown

    def coverage(self, max_length: int) -> Coverage:
        """Of all texts so far, at least one, cut at ``max_length`` tokens."""
        place = math.ceil(FITTING * (self.texts - 1))
        return Coverage(
            cut=int(self._texts_L[max_length + 1 :].sum()) / self.texts,
            unknown=self.unknown / max(self.words, 1),
            fitting=int(np.searchsorted(np.cumsum(self._texts_L), place, side="right")),
            texts=self.texts,
            words=self.words,
        )


class RowTally(Tally):
    """A tally of some texts that keeps, in order, the tokens that each would need."""

    def __init__(self) -> None:
        super().__init__()
        self._needed: list[np.ndarray] = []

    def add(self, needed_N: np.ndarray, *, words: int, unknown: int) -> None:
        super().add(needed_N, words=words, unknown=unknown)
        self._needed.append(needed_N)

    def cut_N(self, max_length: int) -> np.ndarray:
        """bool [N], the texts that were cut at ``max_length`` tokens."""
        return np.concatenate([np.zeros(0, np.int64), *self._needed]) > max_length


def in_words(
    coverage: Mapping[str, Coverage], max_length: int, *, flag: str = "--max-length"
) -> list[str]:
    """A line on all splits, and one more for each share that is a warning.

    Args:
      flag: which sets ``max_length``.
    """
    if not coverage:
        return []
    cut = ", ".join(f"{split} {100 * each.cut:.1f}%" for split, each in coverage.items())
    unknown = ", ".join(f"{split} {100 * each.unknown:.1f}%" for split, each in coverage.items())
    lines = [f"texts cut at {max_length} tokens: {cut}; tokens that are [UNK]: {unknown}"]
    split, most = max(coverage.items(), key=lambda item: item[1].cut)
    if most.cut >= WARNED:
        lines.append(
            f"warning: {100 * most.cut:.0f}% of the {split} texts are cut at {max_length} tokens; "
            f"95% of them would fit in {most.fitting} ({flag})"
        )
    split, most = max(coverage.items(), key=lambda item: item[1].unknown)
    if most.unknown >= WARNED:
        lines.append(
            f"warning: {100 * most.unknown:.0f}% of the {split} tokens are [UNK]: teacher and "
            f"students cannot tell these words apart. {WAY_OUT}"
        )
    return lines


def unknown_below(coverage: Mapping[str, Coverage], reader: str) -> list[str]:
    """What is said below a table where many tokens are unknown: a sentence; [] where few are.

    Args:
      reader: whose tokens they are.
    """
    if not coverage or max(each.unknown for each in coverage.values()) < WARNED:
        return []
    shares = ", ".join(f"{split} {100 * each.unknown:.1f}%" for split, each in coverage.items())
    return [f"Tokens that `{reader}` does not know: {shares}. {WAY_OUT}."]


def as_metrics(coverage: Mapping[str, Coverage]) -> dict[str, float]:
    """For the ledger: ``train/cut``, ``train/unknown``, and the same for the other splits."""
    return {
        f"{split}/{name}": getattr(each, name)
        for split, each in coverage.items()
        for name in ("cut", "unknown")
    }
