"""Several labels a text, none of which excludes another: ``--task labels``.

Each output is the logit of a label. A label is given where its probability is at least a threshold,
one for all labels, at which micro-F1 on validation is highest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import special

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.classes import class_order
from distill_jax.data.labels import Columns, LabelColumn, Place
from distill_jax.data.table import NO_LABEL, TextTable
from distill_jax.data.tokenise import TokenTable
from distill_jax.evaluation.answers import PREDICTED, Fields, Form, Watched
from distill_jax.evaluation.mistakes import label_mistakes
from distill_jax.evaluation.several import (
    best_threshold,
    counted,
    exact,
    label_metrics,
    macro_f1,
    micro_f1,
)
from distill_jax.evaluation.yardsticks import Fitted, Regression
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.predictions import Predictions
from distill_jax.objectives.registry import Spec
from distill_jax.tables.columns import COSTS, Column
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tasks.kinds.kind import Calibrated, Described, Examples, Kind, register

THRESHOLD = "threshold"
MOST_LABELS = 10_000


@dataclass(frozen=True)
class SeveralLabels(Predictions):
    """A logit a label: ``labels`` is the binary cross-entropy of the labels, ``bce`` that of the
    teacher's probabilities, label by label, with a temperature."""

    losses: ClassVar[tuple[str, ...]] = ("labels", "bce", "mse_logits", "cosine_logits")
    instead: ClassVar[Mapping[str, str]] = {
        "ce": "labels, the binary cross-entropy of the labels",
        "focal": "labels",
        "kl": "bce(T=...), which is the divergence label by label but for a constant",
        "soft_ce": "bce(T=...)",
        "mse_regression": "mse_logits",
    }
    says: ClassVar[str] = "labels that do not exclude each other"

    def fixed(self, spec: Spec) -> Mapping[str, Any]:
        return {"binary": True} if spec.name == "labels" else {}


@dataclass(frozen=True)
class LabelsColumn(LabelColumn):
    """Several words a row: a list, or a cell with a separator between them.

    An empty cell has no labels that are known; an empty list, or a separator alone, says that none
    applies.

    Attributes:
      separator: between the labels of a cell.
    """

    what: ClassVar[str] = "sets of labels"
    separator: str = ","

    def read(self, cells: Mapping[str, Any], column: str, where: str) -> tuple[str, ...] | None:
        value = cells.get(column)
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            return None
        parts = value.split(self.separator) if isinstance(value, str) else value
        if isinstance(value, bool | float | dict) or not isinstance(parts, int | list | tuple):
            raise _no_labels(value, column, where)
        parts = [parts] if isinstance(parts, int) else parts
        if not all(isinstance(part, str | int) and not isinstance(part, bool) for part in parts):
            raise _no_labels(value, column, where)
        words = [str(part).strip() for part in parts]
        return tuple(sorted({word for word in words if word}))

    def names(
        self,
        labels: Sequence[Any],
        column: str,
        where: str,
        named: tuple[str, ...] | None,
        notes: list[str],
    ) -> tuple[str, ...]:
        counts = Counter(word for own in labels if own is not None for word in own)
        if len(counts) < self.least:
            found = ", ".join(f"{word:.60}" for word in counts) or "none"
            raise UserError(f"{where}: expected at least two different labels, found {found}.")
        if len(counts) > MOST_LABELS:
            raise UserError(
                f"{where}: {len(counts):,} different labels in {column!r}; at most {MOST_LABELS:,} "
                "are learnt. Is it the right column (--label), the right --label-separator?"
            )
        known = [own for own in labels if own is not None]
        if not any(len(own) > 1 for own in known):
            notes.append(f"no row has more than one label in {column!r}: --task classes may do")
        return class_order(counts, named)

    def columns(self, labels: Sequence[Any], names: tuple[str, ...], place: Place) -> Columns:
        number = {name: column for column, name in enumerate(names)}
        targets_NC = np.zeros((len(labels), len(names)), np.float32)
        for row, own in enumerate(labels):
            for word in own or ():
                if word not in number:
                    where = f"in {place(row)}, which {self.whose} does not have"
                    raise unknown("label", word, names, where=where)
                targets_NC[row, number[word]] = 1
        known = [own is not None for own in labels]
        if not any(known):
            return None, None
        return np.where(known, 0, NO_LABEL).astype(np.int32), targets_NC


def _no_labels(value: Any, column: str, where: str) -> UserError:
    return UserError(
        f"{where}: column {column!r} holds {value!r:.60}; expected labels, words with "
        "--label-separator between them, or a list of words (task labels)."
    )


class Labels(Kind):
    """Several labels; calibrated by the threshold."""

    name = "labels"
    what = "labels"
    outputs: ClassVar[Outputs] = SeveralLabels()
    alone = "labels"
    problem_type = "multi_label_classification"
    spoken = "labels"
    heads = ("multi_label_classification",)
    rows = ("labels", "bce", "mse_logits", "hidden_mse + bce")
    columns = (
        Column("test/micro_f1", "micro-F1 %", 100, 1, higher_is_better=True),
        Column("test/macro_f1", "macro-F1 %", 100, 1, higher_is_better=True),
        Column("test/map", "mAP %", 100, 1, higher_is_better=True),
        Column("test/exact", "all right %", 100, 1, higher_is_better=True),
        Column("test/gap_to_teacher", "gap to teacher", 1, 4, higher_is_better=False),
        Column(THRESHOLD, "threshold", 1, 2),
        *COSTS,
    )
    tested = ("test/micro_f1", "test/macro_f1")
    decides: ClassVar[Mapping[str, str]] = {
        "micro_f1": "micro_f1",
        "macro_f1": "macro_f1",
        "map": "map",
        "loss": "bce",
    }
    lower = ("bce",)
    plain = ("bce",)
    fitted_name = "tfidf+logreg"

    def labels(self, data: Described) -> LabelColumn:
        return LabelsColumn(data.label_separator)

    def tally(self, table: TextTable, names: Sequence[str]) -> str:
        counts_C = table.targets[np.asarray(table.labels_N) >= 0].sum(axis=0)
        pairs = zip(counts_C.astype(int).tolist(), names, strict=True)
        return ", ".join(f"{count:,} {name}" for count, name in pairs)

    def label_of(self, table: TextTable, row: int, names: Sequence[str]) -> str:
        own = [name for name, there in zip(names, table.targets[row], strict=True) if there]
        return ", ".join(own) or "(none)"

    def calibrate(self, said: np.ndarray, validation: Examples, fitted: Any) -> dict[str, float]:
        return {THRESHOLD: best_threshold(said, _targets(validation))}

    def scores(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        *,
        calibrated: Calibrated | None = None,
        teacher: np.ndarray | None = None,
    ) -> dict[str, float]:
        """On validation while a model is trained the threshold is the best one there."""
        targets_NC = _targets(table)
        calibrated = calibrated or self.calibrate(said, table, fitted)
        scores = label_metrics(said, targets_NC, calibrated[THRESHOLD])
        if teacher is not None:
            gap_NC = special.expit(np.float64(said)) - special.expit(np.float64(teacher))
            scores["gap_to_teacher"] = float(np.abs(gap_NC).mean())
        return scores

    def evidence(
        self, said: np.ndarray, table: Examples, fitted: Any, calibrated: Calibrated
    ) -> dict[str, Any]:
        if not np.isfinite(said).all():
            return {}
        counts = counted(said, _targets(table), calibrated[THRESHOLD])
        shares = {"micro_f1": micro_f1(counts), "macro_f1": macro_f1(counts)}
        shares["exact"] = exact(counts)
        return {"test_scores": {name: pack_numbers(own_N) for name, own_N in shares.items()}}

    whole = "exact"

    def averages(
        self, said: np.ndarray, table: Examples, fitted: Any, names: Sequence[str]
    ) -> dict[str, float]:
        """Mean probabilities of the labels."""
        means_C = special.expit(np.float64(said)).mean(axis=0)
        return dict(zip(names, means_C.tolist(), strict=True))

    def mean(self, said_K: Sequence[np.ndarray]) -> np.ndarray:
        """The logits of the mean probabilities."""
        probs = np.mean([special.expit(np.float64(said)) for said in said_K], axis=0)
        return special.logit(np.clip(probs, 1e-12, 1 - 1e-12)).astype(np.float32)

    def mistakes(
        self,
        said: np.ndarray,
        table: Examples,
        label_names: Sequence[str],
        texts: Mapping[str, tuple[str, ...]],
        calibrated: Calibrated,
    ) -> dict[str, Any] | None:
        probs_NC = special.expit(np.float64(said))
        threshold = calibrated[THRESHOLD]
        return label_mistakes(probs_NC, _targets(table), threshold, label_names, table.ids, texts)

    def constant(self, labelled: Examples, label_names: Sequence[str]) -> np.ndarray | None:
        """The log-odds of the labels' frequencies, half an example added to either side."""
        targets_NC = _targets(labelled)
        there_C = targets_NC.sum(axis=0) + 0.5
        return np.log(there_C) - np.log(len(targets_NC) + 1 - there_C)

    def regressed(
        self,
        recipe: Regression,
        labelled: Examples,
        features: Sequence[Any],
        label_names: Sequence[str],
        score: Callable[[np.ndarray], float],
        on_fit: Callable[[], None],
    ) -> Fitted:
        """A logistic regression a label, all with one penalty."""
        train, validation, test = features
        found = []
        for strength in recipe.candidates:
            on_fit()
            found.append(_regressed(strength, train, _targets(labelled), (validation, test)))
        best = int(np.argmax([score(said[0]) for said in found]))
        return Fitted(recipe.candidates[best], *found[best])

    def saved(self, fitted: Any, calibrated: Calibrated) -> dict[str, Any]:
        return dict(calibrated)

    def form(self, saved: Mapping[str, Any], names: tuple[str, ...], tokenizer_file: Path) -> Form:
        threshold = float(saved[THRESHOLD])
        if not 0 <= threshold <= 1:
            raise ValueError(f"no threshold: {threshold}")
        return LabelsForm(names, threshold)


def _targets(table: Examples) -> np.ndarray:
    assert table.targets is not None
    return table.targets


def _regressed(
    strength: float, train: Any, targets_NC: np.ndarray, others: Sequence[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of every label for the other splits."""
    from sklearn.linear_model import LogisticRegression

    validation, test = (np.zeros((each.shape[0], targets_NC.shape[1])) for each in others)
    for column, own_N in enumerate(targets_NC.T):
        if own_N.min() == own_N.max():  # nothing to separate
            validation[:, column] = test[:, column] = 20.0 if own_N[0] else -20.0
            continue
        model = LogisticRegression(C=strength, solver="liblinear", random_state=0)
        model.fit(train, own_N > 0.5)
        validation[:, column] = model.decision_function(others[0])
        test[:, column] = model.decision_function(others[1])
    return validation, test


@dataclass(frozen=True)
class Given:
    """The labels that are given to an example.

    Attributes:
      names: those at the threshold or above, the likeliest first.
      probabilities: of every label, in the model's order.
    """

    names: tuple[str, ...]
    probabilities: dict[str, float]

    @property
    def label(self) -> str:
        """All of them, commas between."""
        return ",".join(self.names)


@dataclass(frozen=True)
class LabelsForm(Form):
    """Several labels an example, with the probabilities of all.

    Attributes:
      names: of the labels.
      threshold: from which on a label is given.
    """

    names: tuple[str, ...]
    threshold: float

    @property
    def columns(self) -> tuple[str, ...]:
        return (PREDICTED, *(f"probability of {name}" for name in self.names))

    def answers(
        self, said: np.ndarray, tokens: TokenTable, texts: Sequence[Sequence[str]]
    ) -> list[Given]:
        return [self._given(own_C) for own_C in special.expit(np.float64(said))]

    def _given(self, probs_C: np.ndarray) -> Given:
        order = [c for c in np.argsort(-probs_C, kind="stable") if probs_C[c] >= self.threshold]
        names = tuple(self.names[c] for c in order)
        return Given(names, dict(zip(self.names, probs_C.tolist(), strict=True)))

    def verdicts(self, said: np.ndarray, tokens: TokenTable) -> list[Any]:
        return (special.expit(np.float64(said)) >= self.threshold).tolist()

    @property
    def reading(self) -> str:
        return (
            "The probability of a label is the sigmoid of its logit; it is given from "
            f"{self.threshold:.4g} on."
        )

    def line(self, answer: Given | None) -> list[str]:
        return [answer.label if answer else ""]

    def row(self, answer: Given | None) -> list[str]:
        if answer is None:
            return [""] * len(self.columns)
        return [answer.label, *(f"{p:.6g}" for p in answer.probabilities.values())]

    @property
    def fields(self) -> Fields:
        return {
            PREDICTED: (list[str], "the labels that are given, the likeliest first"),
            "probabilities": (dict[str, float], "of every label"),
        }

    @property
    def watchable(self) -> Watched:
        return Watched(self.names, dict.fromkeys(self.names, 0.0))

    def watched(self, answer: Given) -> Watched:
        return Watched(answer.names, answer.probabilities)

    def data(self, answer: Given | None) -> dict[str, Any]:
        if answer is None:
            return {PREDICTED: None, "probabilities": None}
        rounded = {name: float(f"{p:.6g}") for name, p in answer.probabilities.items()}
        return {PREDICTED: list(answer.names), "probabilities": rounded}


register(Labels())
