"""One class a text, a pair of texts or an image: ``--task classes``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from distill_jax.data.labels import CLASSES as COLUMN
from distill_jax.data.labels import LabelColumn
from distill_jax.data.table import TextTable
from distill_jax.evaluation.answers import ClassForm, Form
from distill_jax.evaluation.calibration import write_temperature
from distill_jax.evaluation.metrics import classification_metrics, fit_temperature
from distill_jax.evaluation.mistakes import mistakes
from distill_jax.evaluation.yardsticks import Fitted, Regression, majority, regression
from distill_jax.losses.teachers import mean_probabilities
from distill_jax.objectives.outputs import CLASSES, Outputs
from distill_jax.tables.columns import COLUMNS, ERRORS
from distill_jax.tables.evidence import pack_correct
from distill_jax.tables.names import CLASSES as PREDICTED
from distill_jax.tables.names import MAJORITY, TFIDF
from distill_jax.tasks.kinds.kind import Calibrated, Described, Examples, Kind, register

TEMPERATURE = "temperature"


class Classes(Kind):
    """Classes that exclude each other. Calibrated by a temperature."""

    name = "classes"
    what = "classes"
    outputs: ClassVar[Outputs] = CLASSES
    alone = "ce"
    rows = ("ce", "kl", "mse_logits", "hidden_mse + kl")
    has_classes = True
    spoken = "classes"
    heads = ("single_label_classification",)
    columns = COLUMNS
    tested = ("test/accuracy",)
    decides: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy",
        "macro_f1": "macro_f1",
        "loss": "nll",
    }
    lower = ("nll",)
    plain = ("nll",)
    constant_name = MAJORITY
    fitted_name = TFIDF

    def labels(self, data: Described) -> LabelColumn:
        return COLUMN

    def tally(self, table: TextTable, names: Sequence[str]) -> str:
        assert table.labels_N is not None
        labels = table.labels_N.tolist()
        return ", ".join(f"{labels.count(number):,} {name}" for number, name in enumerate(names))

    def label_of(self, table: TextTable, row: int, names: Sequence[str]) -> str:
        assert table.labels_N is not None
        return names[table.labels_N[row]]

    def scores(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        *,
        calibrated: Calibrated | None = None,
        teacher: np.ndarray | None = None,
    ) -> dict[str, float]:
        if calibrated is None:
            return classification_metrics(said, table.labels_N)
        return classification_metrics(
            said,
            table.labels_N,
            ratings_N=table.scores_N,
            teacher_logits_NC=teacher,
            temperature=calibrated[TEMPERATURE],
        )

    def measured(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        calibrated: Calibrated,
        teacher: np.ndarray | None,
    ) -> dict[str, float]:
        """With how many are wrong, how many classes are predicted, and the temperature."""
        scores = self.scores(said, table, fitted, calibrated=calibrated, teacher=teacher)
        lost = np.isnan(said).any()
        predicted = math.nan if lost else len(np.unique(said.argmax(axis=-1)))
        return {
            **{f"test/{name}": value for name, value in scores.items()},
            ERRORS.key: math.nan if lost else int((said.argmax(axis=-1) != table.labels_N).sum()),
            PREDICTED: predicted,
            **calibrated,
        }

    def calibrate(self, said: np.ndarray, validation: Examples, fitted: Any) -> dict[str, float]:
        return {TEMPERATURE: fit_temperature(said, validation.labels_N)}

    def evidence(
        self, said: np.ndarray, table: Examples, fitted: Any, calibrated: Calibrated
    ) -> dict[str, Any]:
        return {"test_correct": pack_correct(said.argmax(axis=-1) == table.labels_N)}

    def mean(self, said_K: Sequence[np.ndarray]) -> np.ndarray:
        """The logits of the mean probabilities."""
        return np.asarray(mean_probabilities(np.stack(said_K)))

    def mistakes(
        self,
        said: np.ndarray,
        table: Examples,
        label_names: Sequence[str],
        texts: Mapping[str, tuple[str, ...]],
        calibrated: Calibrated,
    ) -> dict[str, Any] | None:
        temperature = calibrated[TEMPERATURE]
        return mistakes(said, table.labels_N, label_names, table.ids, texts, temperature)

    def constant(self, labelled: Examples, label_names: Sequence[str]) -> np.ndarray | None:
        """The logarithms of the classes' frequencies."""
        return majority(labelled.labels_N, len(label_names), 1, 0).validation_NC[0]

    def regressed(
        self,
        recipe: Regression,
        labelled: Examples,
        features: Sequence[Any],
        label_names: Sequence[str],
        score: Callable[[np.ndarray], float],
        on_fit: Callable[[], None],
    ) -> Fitted:
        """Logistic regression."""
        return regression(recipe, labelled.labels_N, features, len(label_names), score, on_fit)

    def saved(self, fitted: Any, calibrated: Calibrated) -> dict[str, Any]:
        return dict(calibrated)

    def form(self, saved: Mapping[str, Any], names: tuple[str, ...], tokenizer_file: Path) -> Form:
        return ClassForm(names, float(saved[TEMPERATURE]))

    def keep(self, folder: Path, fitted: Any, calibrated: Calibrated) -> None:
        """A classifier's folder says what it is by itself; the temperature lies beside it."""
        if math.isfinite(calibrated[TEMPERATURE]):
            write_temperature(folder, calibrated[TEMPERATURE])


register(Classes())
