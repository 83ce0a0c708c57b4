"""Texts to what an exported classifier says of them, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_jax.data.coverage import Tally
from distill_jax.data.tokenise import Tokeniser
from distill_jax.evaluation.open_classifier import softmax

if TYPE_CHECKING:
    from distill_jax.export.manifest import Manifest
    from distill_jax.export.opened import Export

Texts = tuple[str, ...]
"""A text, or the two of a pair."""


@dataclass(frozen=True, eq=False)
class Said:
    """What a model says of a text.

    Attributes:
      logits_C: float32, of every class.
      truncated: whether the text was cut.
    """

    logits_C: np.ndarray
    truncated: bool


class _Needs(Tally):
    """A tally that keeps, in order, the tokens that every text would need."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[int] = []
        self.words = self.unknown = 0

    def add(self, needed_N: np.ndarray, *, words: int, unknown: int) -> None:
        self.tokens.extend(needed_N.tolist())
        self.words += words
        self.unknown += unknown


class Classifier:
    """An export in use, by one thread: a tokeniser is set anew for texts that are to be cut.

    Args:
      on_words: called with the tokens that were read, special ones apart, and with how many of
        them the vocabulary does not know.
    """

    def __init__(
        self, export: Export, on_words: Callable[[int, int], None] = lambda words, unknown: None
    ) -> None:
        self.manifest = export.manifest
        self._logits, self._on_words = export.logits, on_words
        self._tokeniser = Tokeniser(export.tokenizer_file, export.manifest.max_length)

    @property
    def pairs(self) -> bool:
        """Whether it reads pairs of texts."""
        return bool(self.manifest.pairs)

    def __call__(self, items: Sequence[Texts]) -> list[Said]:
        """What the model says of each text, or pair, none of them blank.

        Raises:
          UserError: where the tokeniser fails.
        """
        needs = _Needs()
        columns = [list(column) for column in zip(*items, strict=True)]
        ids = [str(number) for number in range(len(items))]
        pieces = list(self._tokeniser.pieces(*columns, ids=ids, tally=needs))
        tokens_S, types_S, lengths_N = (np.concatenate(each) for each in zip(*pieces, strict=True))
        mask_BT = np.arange(int(lengths_N.max()))[None, :] < lengths_N[:, None]
        arrays = [_padded(tokens_S, mask_BT), _padded(types_S, mask_BT), mask_BT.astype(np.int64)]
        logits_BC = self._logits(*arrays)
        self._on_words(needs.words, needs.unknown)
        longest = self._tokeniser.max_length
        return [
            Said(logits_C, needed > longest)
            for logits_C, needed in zip(logits_BC, needs.tokens, strict=True)
        ]

    def temperature(self, *, raw: bool) -> float:
        """By which logits are divided: the one fitted on validation, or 1."""
        return 1.0 if raw else self.manifest.temperature

    def answers(self, said: Sequence[Said], *, raw: bool = False) -> list[dict[str, Any]]:
        """Class, probabilities with six digits, and whether the text was cut; as plain values.

        Args:
          raw: probabilities as they are, without the temperature that was fitted.
        """
        if not said:
            return []
        names = self.manifest.label_names
        logits_NC = np.stack([each.logits_C for each in said])
        likeliest = logits_NC.argmax(axis=1).tolist()
        probs_NC = softmax(logits_NC / np.float32(self.temperature(raw=raw))).tolist()
        answers = []
        for each, best, probs in zip(said, likeliest, probs_NC, strict=True):
            rounded = [float(f"{p:.6g}") for p in probs]
            answers.append(
                {
                    "label": names[best],
                    "probability": rounded[best],
                    "probabilities": dict(zip(names, rounded, strict=True)),
                    "truncated": each.truncated,
                }
            )
        return answers


def run_of(manifest: Manifest) -> str:
    """The run that an export was made of; its model's digest where it belongs to none."""
    return str(manifest.source.get("run") or manifest.source.get("model", ""))


def _padded(values_S: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
    """Rows one after another as int64 [B, T], with 0 where the mask is not set."""
    values_BT = np.zeros(mask_BT.shape, np.int64)
    values_BT[mask_BT] = values_S
    return values_BT
