"""A finished classifier in use: anybody's texts in, classes with their probabilities out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from distill_jax.core.errors import UserError
from distill_jax.core.types import TokenRange
from distill_jax.data.coverage import Coverage, Tally
from distill_jax.data.tokenise import Tokeniser, TokenTable
from distill_jax.evaluation.answers import Answer, ClassForm, Form, softmax
from distill_jax.evaluation.calibration import is_temperature, read_temperature
from distill_jax.evaluation.predict import check_token_types, logits_of
from distill_jax.evaluation.stream import (
    WINDOW,
    Compiled,
    Runtime,
    WindowPredictor,
    ahead,
    windows_of,
)
from distill_jax.evaluation.task_file import TaskFile, check_classifier, read_task
from distill_jax.models.build import build_model, load_model
from distill_jax.models.loaded import Loaded

__all__ = ["Answer", "OpenClassifier", "Stream", "open_classifier", "softmax"]

Item = TypeVar("Item")
FormOf = Callable[[TaskFile, tuple[str, ...], Path], Form]
"""(what a folder says of its task, names of the outputs, tokeniser) -> the form of answers."""


@dataclasses.dataclass(frozen=True, eq=False)
class OpenClassifier:
    """A classifier of texts, or of pairs of texts.

    Attributes:
      label_names: the classes; their numbers where the folder does not name them.
      max_length: tokens after which texts are cut, as in training where the folder says so.
      pairs: whether it was trained on pairs; None where the folder does not say.
      temperature: by which logits are divided before the softmax; no class hangs on it.
      tokenizer_file: of its tokeniser.
      token_range: what it has embeddings for.
      runtime: what says its logits.
      model: as it was loaded; None where another program runs it.
      form: of its answers; None for classes with their probabilities.
      task: what its folder says that it predicts; None for classes.
    """

    label_names: tuple[str, ...]
    max_length: int
    pairs: bool | None
    temperature: float
    tokenizer_file: Path
    token_range: TokenRange
    runtime: Runtime
    model: Loaded | None = None
    form: Form | None = None
    task: TaskFile | None = None

    @property
    def answering(self) -> Form:
        """The form of its answers, whatever they are."""
        return self.form or ClassForm(self.label_names, self.temperature)

    def classify(
        self,
        texts: Sequence[str],
        texts_b: Sequence[str] | None = None,
        *,
        batch_size: int | None = None,
    ) -> list[Any]:
        """The answer for each text, or pair of texts, in the order given; None for blank ones.

        Of a classifier it is an ``Answer``.

        Args:
          texts_b: the second text of each pair.
          batch_size: texts that the model is asked about at a time; None for what suits the
            machine.

        Raises:
          UserError: for single texts where the model wants pairs, and the other way round.
        """
        if texts_b is not None and len(texts_b) != len(texts):
            raise UserError(f"{len(texts)} texts and {len(texts_b)} second texts; as many are due.")
        columns = (texts,) if texts_b is None else (texts, texts_b)
        pairs = texts_b is not None
        stream = Stream(self, pairs=pairs, batch_size=batch_size, expected=len(texts))
        windows = stream.answers(zip(*columns, strict=True), lambda texts: texts)
        return [answer for _, answers in windows for answer in answers]


class Stream:
    """Texts from anywhere, as many as there are, classified window by window.

    Args:
      pairs: whether each has a second text.
      batch_size: as of ``OpenClassifier.classify``.
      expected: how many items there are, where that is known; of many more shapes are compiled.
      on_rows: called with the number of texts, whenever some are classified.

    Attributes:
      tally: how much of the texts so far the model got to see.
      form: of the answers.

    Raises:
      UserError: for single texts where the model wants pairs, and the other way round.
    """

    def __init__(
        self,
        opened: OpenClassifier,
        *,
        pairs: bool,
        batch_size: int | None = None,
        expected: int | None = None,
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise UserError(f"the batch size must be at least 1, not {batch_size}")
        if opened.pairs and not pairs:
            raise UserError(
                "this model was trained on pairs of texts: give each its second text (--second, "
                "for files --text-b COLUMN, in Python texts_b)."
            )
        if pairs and opened.pairs is False:
            raise UserError("this model was trained on single texts: leave out the second ones.")
        self.tally = Tally()
        self._opened, self._pairs, self._on_rows = opened, pairs, on_rows
        self.form = opened.answering
        self._tokeniser = Tokeniser(opened.tokenizer_file, opened.max_length)
        self._predict = WindowPredictor(
            opened.runtime,
            longest=opened.max_length,
            batch_size=batch_size,
            windows=(expected or 0) / WINDOW,
        )

    @property
    def coverage(self) -> Coverage | None:
        """Of the texts so far; None where all were blank."""
        return self.tally.coverage(self._opened.max_length) if self.tally.texts else None

    def answers(
        self, items: Iterable[Item], texts_of: Callable[[Item], Sequence[str]]
    ) -> Iterator[tuple[list[Item], list[Any]]]:
        """Windows of items and their answers, in order; None for an item whose texts are blank.

        Args:
          items: taken from a thread, two windows ahead at most.
          texts_of: the text of an item, or the two.
        """
        tokenised = ahead(self._tokenised(windows_of(items, WINDOW), texts_of))
        return ahead(
            (some, self._answers(len(some), rows, texts, tokens))
            for some, rows, texts, tokens in tokenised
        )

    def _tokenised(
        self, windows: Iterable[list[Item]], texts_of: Callable[[Item], Sequence[str]]
    ) -> Iterator[tuple[list[Item], list[int], list[Sequence[str]], TokenTable | None]]:
        """Each window, its rows that are not blank, their texts and their tokens."""
        before = 0
        for some in windows:
            texts = [texts_of(item) for item in some]
            rows = [row for row, each in enumerate(texts) if any(x.strip() for x in each)]
            own = [texts[row] for row in rows]
            yield some, rows, own, self._tokens(own, before) if rows else None
            before += len(some)

    def _tokens(self, texts: list[Sequence[str]], before: int) -> TokenTable:
        ids = tuple(map(str, range(before, before + len(texts))))
        columns = [list(column) for column in zip(*texts, strict=True)]
        read = self.form.read(self._tokeniser, columns, ids)
        self.tally.merge(read.tally)
        check_token_types(read.tokens, self._opened.token_range)
        return read.tokens

    def _answers(
        self, count: int, rows: list[int], texts: list[Sequence[str]], tokens: TokenTable | None
    ) -> list[Any]:
        self._on_rows(count - len(rows))
        answers: list[Any] = [None] * count
        if tokens is None:
            return answers
        said = self._predict(tokens, self._on_rows)
        for row, answer in zip(rows, self.form.answers(said, tokens, texts), strict=True):
            answers[row] = answer
        return answers


def compiled(model: Loaded) -> Compiled:
    """A loaded model as what says its logits."""
    apply = logits_of(build_model(model.config))
    return Compiled(apply, model.params, width=model.config.shape.hidden_size)


def open_classifier(
    folder: Path | str,
    *,
    max_length: int | None = None,
    temperature: float | Literal["auto"] = "auto",
    form_of: FormOf | None = None,
) -> OpenClassifier:
    """Open a run's folder, its ``model``, or any folder with a classifier of texts.

    Args:
      max_length: tokens after which texts are cut; None for that of the training, or as many as
        the model has positions where the folder does not say.
      temperature: of the probabilities; ``auto`` for the one that was fitted on validation and
        kept in the folder, 1 where there is none.
      form_of: of the answers of a model of another task than classes; None refuses such.

    Raises:
      UserError: when there is none, or its head was never trained; for a temperature that is no
        positive number.
    """
    folder = Path(folder)
    inner = folder / "model"
    if not folder.is_dir():
        raise UserError(f"no model at {folder}: expected the folder of a finished run")
    own = inner if inner.is_dir() else folder
    if form_of is None:
        check_classifier(own, "this")
    task = read_task(own)
    if task is not None and temperature != "auto":
        raise UserError(f"a temperature is for classes; {folder} holds a model of task {task.task}")
    if temperature == "auto":
        temperature = read_temperature(own) or 1.0
    if not is_temperature(temperature):
        raise UserError(f"the temperature must be a positive number or auto, not {temperature}")
    model = load_model(own)
    if model.fresh:
        raise UserError(f"{folder} has no trained classifier head ({', '.join(model.fresh)})")
    if model.tokenizer_file is None:
        raise UserError(f"{folder} has a classifier of images; texts are asked about here")
    longest = model.config.token_range.positions
    chosen = max_length or model.inputs.max_length or longest
    names = model.label_names or tuple(str(n) for n in range(model.config.num_labels))
    form = form_of(task, names, model.tokenizer_file) if task and form_of else None
    return OpenClassifier(
        label_names=names,
        max_length=min(chosen, longest),
        pairs=model.inputs.pairs,
        temperature=float(temperature),
        tokenizer_file=model.tokenizer_file,
        token_range=model.config.token_range,
        runtime=compiled(model),
        model=model,
        form=form,
        task=task,
    )
