"""An answer to a question, a span of a context: ``--task spans``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import user_path
from distill_jax.data.labels import LabelColumn
from distill_jax.data.squad import OUTPUTS, load, load_unanswered
from distill_jax.data.table import TextDataset, TextTable
from distill_jax.data.tokenise import TokenDataset
from distill_jax.data.windows import tokenise_questions
from distill_jax.evaluation.answers import Form
from distill_jax.evaluation.span_answers import SpanForm
from distill_jax.evaluation.spans import (
    answer_scores,
    best_threshold,
    found_answers,
    position_kl,
    position_nll,
)
from distill_jax.evaluation.tokens import of_tokens, padded_targets
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.token_outputs import Positions
from distill_jax.tables.columns import COSTS, FIDELITY, Column
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tasks.kinds.kind import Calibrated, Described, Examples, Kind, register

THRESHOLD = "null_threshold"


class Spans(Kind):
    """Where an answer starts and ends. Scores are of questions, over all windows of their context.

    What is fitted is whether the data has questions without an answer; only then a model may say
    that there is none. By how much that has to exceed the best span is chosen on validation, by F1.
    """

    name = "spans"
    what = "answers"
    outputs: ClassVar[Outputs] = Positions()
    alone = "ce"
    rows = ("ce", "kl", "mse_logits", "hidden_mse + kl")
    head = "tokens"
    named = False
    heads = ("question_answering",)
    pairs = True
    columns = (
        Column("test/f1", "F1 %", 100, 1, higher_is_better=True),
        Column("test/exact_match", "exact match %", 100, 1, higher_is_better=True),
        FIDELITY,
        *COSTS,
    )
    tested = ("test/f1", "test/exact_match")
    decides: ClassVar[Mapping[str, str]] = {"f1": "f1", "exact_match": "exact_match", "loss": "nll"}
    lower = ("nll",)
    plain = ("nll",)

    def labels(self, data: Described) -> LabelColumn:
        raise UserError("answers are read from SQuAD's files, not from a column")

    def load(self, data: Described) -> TextDataset:
        if data.text_b is not None:
            raise UserError("question and context have their own names: leave --text-b out")
        return load(_folder(data.name))

    whole = "exact_match"

    def load_more(self, data: Described, name: str) -> TextDataset:
        folder = _folder(name)
        train, notes = load_unanswered(folder)
        return TextDataset(f"files:{folder}", OUTPUTS, {"train": train}, notes)

    def load_new(
        self, data: Described, label_names: tuple[str, ...]
    ) -> tuple[dict[str, TextTable], tuple[str, ...]]:
        """As ``load``: with splits held out where there are none."""
        found = self.load(data)
        return dict(found.splits), found.notes

    def tokenise(
        self, dataset: TextDataset, tokenizer_file: Path, max_length: int, cache: Path | None
    ) -> TokenDataset:
        return tokenise_questions(dataset, tokenizer_file, max_length=max_length)

    def label_of(self, table: TextTable, row: int, names: Sequence[str]) -> str:
        texts = [text for text, _ in table.targets[row]]
        return " | ".join(dict.fromkeys(texts)) or "(no answer)"

    def fit(self, labelled: Examples, label_names: Sequence[str]) -> Any:
        return {"unanswerable": any(window.due == () for window in of_tokens(labelled).aside or ())}

    def renamed(self, table: Examples, prefix: str) -> Examples:
        """The questions that its windows are of, too."""
        tokens = of_tokens(super().renamed(table, prefix))
        windows = tokens.aside or ()
        aside = tuple(each._replace(question=f"{prefix}{each.question}") for each in windows)
        return dataclasses.replace(tokens, aside=aside)

    def described(self, label_names: Sequence[str]) -> str:
        return "answers are spans of the context"

    def scores(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        *,
        calibrated: Calibrated | None = None,
        teacher: np.ndarray | None = None,
    ) -> dict[str, float]:
        targets_NT = padded_targets(table, said.shape[1])
        scores = {"nll": position_nll(said, targets_NT)}
        if np.isnan(said).any():
            return {**dict.fromkeys(("f1", "exact_match"), math.nan), **scores}
        found = found_answers(said, of_tokens(table).aside or ())
        exact, f1 = answer_scores(found, _threshold(fitted, calibrated))
        scores |= {"f1": float(f1.mean()), "exact_match": float(exact.mean())}
        if teacher is not None:
            beside = found_answers(teacher, of_tokens(table).aside or ())
            plain = _threshold(fitted, None)
            same = [a.answer(plain) == b.answer(plain) for a, b in zip(found, beside, strict=True)]
            scores["fidelity"] = float(np.mean(same))
            scores["kl_to_teacher"] = position_kl(teacher, said, targets_NT)
        return scores

    def calibrate(self, said: np.ndarray, validation: Examples, fitted: Any) -> dict[str, float]:
        if not fitted["unanswerable"] or not np.isfinite(said).all():
            return {}
        return {THRESHOLD: best_threshold(found_answers(said, of_tokens(validation).aside or ()))}

    def evidence(
        self, said: np.ndarray, table: Examples, fitted: Any, calibrated: Calibrated
    ) -> dict[str, Any]:
        if not np.isfinite(said).all():
            return {}
        found = found_answers(said, of_tokens(table).aside or ())
        exact, f1 = answer_scores(found, _threshold(fitted, calibrated))
        kept = {"f1": pack_numbers(f1), "exact_match": pack_numbers(exact.astype(np.uint8))}
        return {"test_scores": kept}

    def constant(self, labelled: Examples, label_names: Sequence[str]) -> np.ndarray | None:
        """Every token alike."""
        return np.zeros(len(label_names))

    def saved(self, fitted: Any, calibrated: Calibrated) -> dict[str, Any]:
        return {**fitted, **calibrated}

    def form(self, saved: Mapping[str, Any], names: tuple[str, ...], tokenizer_file: Path) -> Form:
        threshold = _threshold(saved, saved)
        if threshold is not None and not math.isfinite(threshold):
            raise ValueError("the threshold is not finite")
        return SpanForm(threshold)


def _threshold(fitted: Any, calibrated: Mapping[str, Any] | None) -> float | None:
    """By how much no answer has to exceed the best span; None where there always is one."""
    if not fitted["unanswerable"]:
        return None
    return (calibrated or {}).get(THRESHOLD, 0.0)


def _folder(name: str) -> Path:
    """Of SQuAD's files.

    Raises:
      UserError: the data are others.
    """
    kind, _, folder = name.partition(":")
    if kind != "files" or not folder:
        raise UserError(f"data {name!r} has no questions: give SQuAD's files as files:FOLDER")
    return user_path(folder)


register(Spans())
