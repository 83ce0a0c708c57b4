"""Texts to what a finished model says of them, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.data.tokenise import Tokeniser, TokenTable
from distill_jax.evaluation.answers import Form
from distill_jax.evaluation.open_classifier import OpenClassifier
from distill_jax.evaluation.predict import check_token_types
from distill_jax.export.manifest import RANKING, is_export, read_manifest
from distill_jax.export.padded import roomy
from distill_jax.export.runtime import as_classifier, open_any
from distill_jax.export.source import row_of
from distill_jax.models.hf_folder import CONFIG
from distill_jax.tables.names import MODEL
from distill_jax.tasks.kinds.classes import Classes
from distill_jax.tasks.kinds.kinds import kind_named

if TYPE_CHECKING:
    from distill_jax.export.opened import Export

JAX = "jax"
Texts = tuple[str, ...]
"""The texts of an example, as ``Form.asked`` names them."""


@dataclass(frozen=True, eq=False)
class Served:
    """A model that is to be served.

    Attributes:
      opened: as ``predict`` asks it.
      run: that it comes from; the model's digest where it belongs to none.
      format: of the export; ``JAX`` where it is none.
    """

    opened: OpenClassifier
    run: str
    format: str

    @property
    def task(self) -> str:
        """The kind of task that it is for."""
        return self.opened.task.task if self.opened.task else Classes.name

    @property
    def about(self) -> str:
        """What it predicts, for people."""
        return kind_named(self.task).described(self.opened.label_names)

    @property
    def form(self) -> Form:
        """Of its answers."""
        return self.opened.answering

    @property
    def columns(self) -> dict[str, str]:
        """The texts of an example and what they are, see ``Form.asked``."""
        return dict(self.form.asked(bool(self.opened.pairs)))


def open_served(folder: Path, *, threads: int | None = None) -> Served:
    """Open an export, a run, or a folder with a model.

    Args:
      threads: see ``open_export``.

    Raises:
      UserError: there is no model of texts, or it cannot be told its threads.
    """
    if is_export(folder):
        from distill_jax.export.opened import open_export

        if (task := read_manifest(folder).task) in RANKING:
            raise UserError(f"{folder} is an export for {task}; serve answers about texts")
        return of_export(open_export(folder, threads=threads))
    if not (folder / MODEL).is_dir() and not (folder / CONFIG).is_file():
        raise UserError(f"{folder} holds no model: expected an export, or a finished run")
    if threads is not None:
        raise UserError(f"--threads is for exports, and {folder} is none: distill-jax export")
    opened = open_any(folder)
    assert opened.model is not None, "it was opened from its parameters"
    row = row_of(folder)
    return Served(opened, row.hash if row else opened.model.digest, JAX)


def of_export(export: Export) -> Served:
    """An opened export."""
    birth = export.manifest.source
    run = str(birth.get("run") or birth.get("model", ""))
    return Served(as_classifier(export), run, export.manifest.format)


@dataclass(frozen=True, eq=False)
class Said:
    """What a model says of an example.

    Attributes:
      answer: of the model's form, as ``predict`` gives it.
      raw: the same without the divisor that was fitted.
      cut: whether the model did not see all of its texts.
    """

    answer: Any
    raw: Any
    cut: bool


class Model:
    """A model in use, by one thread: a tokeniser is set anew for texts that are to be cut.

    Args:
      most: rows that it is asked about at a time; a long context is several.
      on_words: called with the tokens that were read, special ones apart, and with how many of
        them the vocabulary does not know.
    """

    def __init__(
        self,
        opened: OpenClassifier,
        most: int,
        on_words: Callable[[int, int], None] = lambda words, unknown: None,
    ) -> None:
        self._opened, self._most, self._on_words = opened, most, on_words
        self._form = opened.answering
        self._raw = self._form.raw()
        self._tokeniser = Tokeniser(opened.tokenizer_file, opened.max_length)

    def check(self, texts: int) -> None:
        """Ask about a trifle: a model that cannot answer says so now.

        Args:
          texts: of an example.

        Raises:
          UserError: it was not made for so many, or its files do not belong together.
        """
        trifle = [["a"] for _ in range(texts)]
        tokens = self._form.read(self._tokeniser, trifle, ["0"]).tokens
        check_token_types(tokens, self._opened.token_range)
        self([("a",) * texts])

    def __call__(self, items: Sequence[Texts]) -> list[Said]:
        """What the model says of each example, none of them blank.

        Raises:
          UserError: where the tokeniser fails.
        """
        columns = [list(column) for column in zip(*items, strict=True)]
        ids = [str(number) for number in range(len(items))]
        read = self._form.read(self._tokeniser, columns, ids)
        said = self._outputs(read.tokens)
        self._on_words(read.tally.words, read.tally.unknown)
        answers = self._form.answers(said, read.tokens, items)
        raw = answers
        if self._form.divisor is not None:
            raw = self._raw.answers(said, read.tokens, items)
        return list(map(Said, answers, raw, read.cut_N.tolist()))

    def _outputs(self, tokens: TokenTable) -> np.ndarray:
        """Float32 [N, C], or [N, T, C], of all rows."""
        longest = int(tokens.lengths_N.max())
        parts = []
        for start in range(0, len(tokens), self._most):
            rows = np.arange(start, min(start + self._most, len(tokens)))
            size, length = len(rows), longest
            if self._opened.runtime.shape_price:
                size, length = roomy(size, length, self._opened.max_length)
            said = self._opened.runtime(tokens.batch(rows, length, size))
            parts.append(np.asarray(said, np.float32)[: len(rows)])
        return np.concatenate(parts)
