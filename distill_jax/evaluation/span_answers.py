"""What a model of spans answers to questions about contexts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.table import TextTable
from distill_jax.data.tokenise import Tokeniser, TokenTable
from distill_jax.data.windows import LEAST, windows_of
from distill_jax.evaluation.answers import PREDICTED, Fields, Form, Read, Watched
from distill_jax.evaluation.spans import Found, found_answers

QUESTION, CONTEXT = "question", "context"
START, SCORE = "start", "score"
FOUND, NONE = "answer", "no answer"
"""As what answers are counted."""


@dataclasses.dataclass(frozen=True)
class SpanAnswer:
    """An answer to a question.

    Attributes:
      label: its text, "" for no answer.
      start: the number of its first character in the context; None for no answer.
      score: sum of the logits of its start and end; by how much that is above that of no answer,
        where the model may say so.
    """

    label: str
    start: int | None
    score: float


@dataclasses.dataclass(frozen=True)
class SpanForm(Form):
    """Answers that are spans of contexts; long contexts are read in windows.

    Attributes:
      threshold: by how much no answer has to exceed the best span; None where there always is one.
    """

    threshold: float | None

    @property
    def columns(self) -> tuple[str, ...]:
        return (PREDICTED, START, SCORE)

    def asked(self, pairs: bool) -> dict[str, str]:
        return {QUESTION: "question", CONTEXT: "context, in which the answer is to be found"}

    def read(
        self, tokeniser: Tokeniser, columns: Sequence[Sequence[str]], ids: Sequence[str]
    ) -> Read:
        if tokeniser.max_length < LEAST:  # windows might not get on
            raise UserError(
                f"questions need {LEAST} tokens at the least, not {tokeniser.max_length}"
            )
        questions, contexts = columns
        table = TextTable(tuple(ids), tuple(questions), tuple(contexts))
        tokens, tally, cut_N, _ = windows_of(table, tokeniser)
        return Read(tokens, tally, cut_N)

    def answers(
        self, said: np.ndarray, tokens: TokenTable, texts: Sequence[Sequence[str]]
    ) -> list[SpanAnswer]:
        return [self._answer(found) for found in found_answers(said, tokens.aside or ())]

    def verdicts(self, said: np.ndarray, tokens: TokenTable) -> list[Any]:
        """Of every question, in the order of its first window."""
        return [(each.start, each.label) for each in self.answers(said, tokens, ())]

    @property
    def reading(self) -> str:
        told = (
            "Logits are of every token: output 0 that the answer starts there, 1 that it ends "
            "there; the answer is the span of the context with the highest sum of the two."
        )
        if self.threshold is not None:
            told += (
                " There is none where the sum at the first token of all exceeds that by more than "
                f"{self.threshold:.4g}."
            )
        return told

    def _answer(self, found: Found) -> SpanAnswer:
        text = found.answer(self.threshold)
        score = found.score - (found.null if self.threshold is not None else 0.0)
        return SpanAnswer(text, found.start if text else None, score)

    def line(self, answer: SpanAnswer | None) -> list[str]:
        return [answer.label if answer else ""]

    def row(self, answer: SpanAnswer | None) -> list[str]:
        told = self.data(answer)
        return ["" if told[name] is None else str(told[name]) for name in self.columns]

    @property
    def fields(self) -> Fields:
        return {
            PREDICTED: (str, 'the answer, a piece of the context; "" for none'),
            START: (int | None, "the character of the context that it starts at; null for none"),
            SCORE: (
                float | None,
                "sum of the logits of its start and end; where there may be no answer, by how much "
                "it is above that of none",
            ),
        }

    @property
    def watchable(self) -> Watched:
        return Watched((FOUND, NONE))

    def watched(self, answer: SpanAnswer) -> Watched:
        return Watched((FOUND if answer.label else NONE,))

    def data(self, answer: SpanAnswer | None) -> dict[str, Any]:
        if answer is None:
            return dict.fromkeys(self.columns)
        score = float(f"{answer.score:.6g}") if np.isfinite(answer.score) else None
        return {PREDICTED: answer.label, START: answer.start, SCORE: score}
