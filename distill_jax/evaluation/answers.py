"""What a finished model says of texts, in the forms that people read: lines, CSV, JSON.

A kind of answers is a ``Form``: it makes answers of outputs, and writes them. Classes are here;
other kinds of tasks bring their own, see ``tasks.kinds``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from distill_jax.data.coverage import Tally
from distill_jax.data.table import NO_LABEL
from distill_jax.data.tokenise import Tokeniser, TokenTable

TEXT, TEXT_B = "text", "text_b"
PREDICTED = "predicted"
"""The first column that is added to a file's own."""


Fields = Mapping[str, tuple[Any, str]]
"""By name, the type of a value and what it is."""


class Read(NamedTuple):
    """What a model is asked about some texts.

    Attributes:
      tokens: the rows that it reads.
      tally: how much of the texts that is.
      cut_N: bool, the texts that it does not see whole.
    """

    tokens: TokenTable
    tally: Tally
    cut_N: np.ndarray


@dataclasses.dataclass(frozen=True)
class Watched:
    """What of an answer tells, over many, that the texts have become other ones.

    Attributes:
      labels: that it gives.
      probabilities: by label.
      entities: the type of each that it finds.
      number: that it predicts.
    """

    labels: tuple[str, ...] = ()
    probabilities: Mapping[str, float] = dataclasses.field(default_factory=dict)
    entities: tuple[str, ...] = ()
    number: float | None = None


class Answered(Protocol):
    """An answer about one example."""

    @property
    def label(self) -> str:
        """In one word or number."""


def text_of(cells: Mapping[str, Any], column: str) -> str:
    """A cell as text, nothing as a blank one; a list of words by spaces."""
    value = cells.get(column)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return " ".join(value)
    return "" if value is None else str(value)


class Form(ABC):
    """Answers of one kind. None stands for a text that is blank.

    Attributes:
      beside: what a row may have that says more of its text, by column.
    """

    beside: ClassVar[Fields] = {}

    def asked(self, pairs: bool) -> Mapping[str, str]:
        """What the texts of an example are, by column.

        Args:
          pairs: whether there are two, where the form does not know.
        """
        return {TEXT: "text", **({TEXT_B: "second text"} if pairs else {})}

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """That are added to a CSV file's own; the first one is ``PREDICTED``."""

    def text_of(self, cells: Mapping[str, Any], column: str) -> str:
        """The text of a row that is asked about, by default a cell.

        Args:
          cells: by column.

        Raises:
          UserError: the row has not what the model wants.
        """
        return text_of(cells, column)

    def read(
        self, tokeniser: Tokeniser, columns: Sequence[Sequence[str]], ids: Sequence[str]
    ) -> Read:
        """What a model is asked about some texts: by default a row for each.

        Args:
          columns: the texts, and the second texts of pairs.
        """
        arrays, tally = tokeniser.encode(*columns, ids=ids)
        labels_N = np.full(len(ids), NO_LABEL, np.int32)
        tokens = TokenTable(ids=tuple(ids), labels_N=labels_N, **arrays)
        return Read(tokens, tally, tally.cut_N(tokeniser.max_length))

    @abstractmethod
    def answers(
        self, said: np.ndarray, tokens: TokenTable, texts: Sequence[Sequence[str]]
    ) -> list[Any]:
        """An ``Answered`` for each example.

        Args:
          said: outputs, [N, C] or [N, T, C].
          tokens: what the model read, as ``read`` made it.
          texts: one text an example, or two.
        """

    @abstractmethod
    def verdicts(self, said: np.ndarray, tokens: TokenTable) -> list[Any]:
        """All that is decided about each example, in short, for ``alike``.

        Args:
          said, tokens: as ``answers`` takes them.
        """

    def alike(self, one: Any, other: Any) -> bool:
        """Whether two verdicts are one."""
        return one == other

    def same(self, ours: np.ndarray, theirs: np.ndarray, tokens: TokenTable) -> np.ndarray:
        """bool [N], the examples to which two models that read the same give the same answer."""
        both = (self.verdicts(said, tokens) for said in (ours, theirs))
        return np.array([self.alike(one, other) for one, other in zip(*both, strict=True)], bool)

    @property
    @abstractmethod
    def reading(self) -> str:
        """How answers are read off the outputs, a sentence or two in Markdown."""

    @abstractmethod
    def line(self, answer: Any) -> list[str]:
        """What stands before the text in a line; of None as many cells."""

    @abstractmethod
    def row(self, answer: Any) -> list[str]:
        """The cells of ``columns``."""

    @property
    @abstractmethod
    def fields(self) -> Fields:
        """Of ``data``."""

    @abstractmethod
    def data(self, answer: Any) -> dict[str, Any]:
        """What JSON holds beside the row's own."""

    @property
    def divisor(self) -> float | None:
        """By which logits are divided before the softmax; None where they are not."""
        return None

    def raw(self) -> Form:
        """The same with a divisor of 1."""
        return self

    @property
    @abstractmethod
    def watchable(self) -> Watched:
        """Every label and entity there is, and what else answers have, at 0."""

    @abstractmethod
    def watched(self, answer: Any) -> Watched:
        """What is counted of an answer, which is not None."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a classifier says of an example.

    Attributes:
      label: its likeliest class.
      probabilities: of every class, in the order of the model's.
    """

    label: str
    probabilities: dict[str, float]

    @property
    def probability(self) -> float:
        """Of ``label``."""
        return self.probabilities[self.label]


@dataclasses.dataclass(frozen=True)
class ClassForm(Form):
    """One class an example, with the probabilities of all.

    Attributes:
      names: of the classes.
      temperature: by which logits are divided before the softmax.
    """

    names: tuple[str, ...]
    temperature: float

    @property
    def columns(self) -> tuple[str, ...]:
        return (PREDICTED, "probability", *(f"probability of {name}" for name in self.names))

    def answers(
        self, said: np.ndarray, tokens: TokenTable, texts: Sequence[Sequence[str]]
    ) -> list[Answer]:
        likeliest = said.argmax(axis=1).tolist()
        probs = softmax(said / np.float32(self.temperature)).tolist()
        return [
            Answer(self.names[best], dict(zip(self.names, own, strict=True)))
            for best, own in zip(likeliest, probs, strict=True)
        ]

    def verdicts(self, said: np.ndarray, tokens: TokenTable) -> list[int]:
        return said.argmax(axis=-1).tolist()

    @property
    def reading(self) -> str:
        return (
            f"Probabilities are calibrated where logits are divided by {self.temperature:.4g} "
            "before the softmax."
        )

    @property
    def fields(self) -> Fields:
        return {
            PREDICTED: (str, "the likeliest class"),
            "probability": (float, "of that class"),
            "probabilities": (dict[str, float], "of every class"),
        }

    @property
    def divisor(self) -> float:
        return self.temperature

    def raw(self) -> Form:
        return dataclasses.replace(self, temperature=1.0)

    @property
    def watchable(self) -> Watched:
        return Watched(self.names, dict.fromkeys(self.names, 0.0))

    def watched(self, answer: Answer) -> Watched:
        return Watched((answer.label,), answer.probabilities)

    def line(self, answer: Answer | None) -> list[str]:
        return [answer.label, f"{answer.probability:.3f}"] if answer else ["", ""]

    def row(self, answer: Answer | None) -> list[str]:
        if answer is None:
            return [""] * len(self.columns)
        numbers = (answer.probability, *answer.probabilities.values())
        return [answer.label, *(f"{number:.6g}" for number in numbers)]

    def data(self, answer: Answer | None) -> dict[str, Any]:
        if answer is None:
            return {PREDICTED: None, "probability": None, "probabilities": None}
        rounded = {name: float(f"{p:.6g}") for name, p in answer.probabilities.items()}
        return {
            PREDICTED: answer.label,
            "probability": rounded[answer.label],
            "probabilities": rounded,
        }


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    """Of the last axis, on the host: nothing is compiled for it."""
    raised_NC = np.exp(logits_NC - logits_NC.max(axis=-1, keepdims=True))
    return raised_NC / raised_NC.sum(axis=-1, keepdims=True)
