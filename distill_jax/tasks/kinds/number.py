"""A number a text or a pair of texts, regression: ``--task number``.

The head's output is the number itself, scaled so that the labels that are used have mean 0 and
standard deviation 1; scores and predictions are in the labels' own units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy import stats

from distill_jax.core.errors import UserError
from distill_jax.data.labels import Columns, LabelColumn, Place
from distill_jax.data.table import NO_LABEL, TextDataset, TextTable
from distill_jax.data.tokenise import TokenTable
from distill_jax.evaluation.answers import PREDICTED, Fields, Form, Watched
from distill_jax.evaluation.numbers import number_metrics
from distill_jax.evaluation.shares import of_correlation
from distill_jax.evaluation.yardsticks import Fitted, Regression
from distill_jax.objectives.outputs import Outputs
from distill_jax.objectives.predictions import Predictions
from distill_jax.objectives.registry import Spec
from distill_jax.tables.columns import COSTS, Column
from distill_jax.tables.evidence import pack_numbers
from distill_jax.tasks.kinds.kind import Calibrated, Described, Examples, Kind, register

MOST = 1e12
"""Beyond, the square of a label in float32 loses what it says."""
ALIKE = 0.1
"""Standard deviations of the labels by which two numbers differ that count as different."""
_NOTHING = ("", "nan", "none", "null", "n/a", "na")


@dataclass(frozen=True)
class Numbers(Predictions):
    """One output, a number: ``labels`` is the squared error, a teacher's number is matched."""

    losses: ClassVar[tuple[str, ...]] = ("labels", "mse_regression", "mse_logits")
    instead: ClassVar[Mapping[str, str]] = {
        "ce": "labels, the squared error of the labels",
        "focal": "labels",
        "kl": "mse_regression or mse_logits, which are one here",
        "soft_ce": "mse_regression",
        "bce": "mse_regression",
    }
    says: ClassVar[str] = "a number"

    def fixed(self, spec: Spec) -> Mapping[str, Any]:
        return {"binary": False} if spec.name == "labels" else {}


@dataclass(frozen=True)
class NumberColumn(LabelColumn):
    """A finite number a row."""

    least: ClassVar[int] = 1
    what: ClassVar[str] = "numbers"

    def read(self, cells: Mapping[str, Any], column: str, where: str) -> float | None:
        value = cells.get(column)
        if value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING):
            return None
        if isinstance(value, float) and math.isnan(value):
            return None
        try:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= MOST:
            raise UserError(
                f"{where}: column {column!r} holds {value!r:.60}; expected a number (task number)."
            )
        return number

    def names(
        self,
        labels: Sequence[Any],
        column: str,
        where: str,
        named: tuple[str, ...] | None,
        notes: list[str],
    ) -> tuple[str, ...]:
        found = {label for label in labels if label is not None}
        if len(found) < 2:
            raise UserError(f"{where}: expected at least two different numbers in {column!r}.")
        return (column,)

    def columns(self, labels: Sequence[Any], names: tuple[str, ...], place: Place) -> Columns:
        known = [label is not None for label in labels]
        if not any(known):
            return None, None
        targets_N1 = np.array([[0.0 if x is None else x] for x in labels], np.float32)
        return np.where(known, 0, NO_LABEL).astype(np.int32), targets_N1

    def of_built_in(self, dataset: TextDataset) -> TextDataset:
        """Mean ratings of people as the numbers."""
        tables = dict(dataset.splits)
        if any(table.scores_N is None for table in tables.values()):
            return super().of_built_in(dataset)
        rated = {split: _rated(table) for split, table in tables.items()}
        return replace(dataset, label_names=("rating",), splits=rated)


def _rated(table: TextTable) -> TextTable:
    scores_N = np.asarray(table.scores_N, np.float32)
    there_N = np.isfinite(scores_N)
    return replace(
        table,
        labels_N=np.where(there_N, 0, NO_LABEL).astype(np.int32),
        targets=np.where(there_N, scores_N, np.float32(0))[:, None],
    )


class Number(Kind):
    """One number; what is fitted is its scale, ``{"mean": ..., "deviation": ...}``."""

    name = "number"
    what = "number"
    outputs: ClassVar[Outputs] = Numbers()
    alone = "labels"
    problem_type = "regression"
    named = False
    spoken = "number"
    heads = ("regression",)
    rows = ("labels", "mse_regression", "hidden_mse + mse_regression")
    columns = (
        Column("test/pearson", "Pearson r", 1, 3, higher_is_better=True),
        Column("test/spearman", "Spearman rho", 1, 3, higher_is_better=True),
        Column("test/mse", "MSE", 1, 3, higher_is_better=False),
        Column("test/pearson_to_teacher", "r with teacher", 1, 3, higher_is_better=True),
        *COSTS,
    )
    tested = ("test/pearson", "test/mse")
    decides: ClassVar[Mapping[str, str]] = {
        "pearson": "pearson",
        "spearman": "spearman",
        "mse": "mse",
        "loss": "mse",
    }
    lower = ("mse",)
    plain = ("pearson", "spearman", "mse")
    fitted_name = "tfidf+ridge"

    def labels(self, data: Described) -> LabelColumn:
        return NumberColumn()

    def tally(self, table: TextTable, names: Sequence[str]) -> str:
        known = table.targets[np.asarray(table.labels_N) >= 0]
        told = f"{len(known):,} numbers"
        return f"{told} from {known.min():g} to {known.max():g}" if len(known) else told

    def label_of(self, table: TextTable, row: int, names: Sequence[str]) -> str:
        return f"{table.targets[row, 0]:g}"

    def fit(self, labelled: Examples, label_names: Sequence[str]) -> dict[str, float]:
        """Mean and standard deviation of the labels that are used; a deviation of 0 counts as 1."""
        numbers = np.asarray(labelled.targets, np.float64)
        return {"mean": float(numbers.mean()), "deviation": float(numbers.std()) or 1.0}

    def ready(self, table: Examples, fitted: Any) -> Examples:
        scaled = (np.asarray(table.targets, np.float64) - fitted["mean"]) / fitted["deviation"]
        scaled[table.labels_N < 0] = 0
        return replace(table, targets=scaled.astype(np.float32))

    def units(self, saved: Mapping[str, Any] | None, fitted: Any) -> tuple[float, float] | None:
        """Elsewhere a head says the number in the labels' own units."""
        own = saved or {"mean": 0.0, "deviation": 1.0}
        deviation = fitted["deviation"]
        return own["deviation"] / deviation, (own["mean"] - fitted["mean"]) / deviation

    def scores(
        self,
        said: np.ndarray,
        table: Examples,
        fitted: Any,
        *,
        calibrated: Calibrated | None = None,
        teacher: np.ndarray | None = None,
    ) -> dict[str, float]:
        own, right = _unscaled(said, fitted), _unscaled(table.targets, fitted)
        scores = number_metrics(own, right)
        if teacher is not None:
            beside = number_metrics(own, _unscaled(teacher, fitted))
            scores["pearson_to_teacher"] = beside["pearson"]
            scores["mse_to_teacher"] = beside["mse"]
        return scores

    def evidence(
        self, said: np.ndarray, table: Examples, fitted: Any, calibrated: Calibrated
    ) -> dict[str, Any]:
        if not np.isfinite(said).all():
            return {}
        own, right = _unscaled(said, fitted), _unscaled(table.targets, fitted)
        shares = {
            "mse": (own - right) ** 2,
            "pearson": of_correlation(own, right),
            "spearman": of_correlation(stats.rankdata(own), stats.rankdata(right)),
        }
        kept = {k: pack_numbers(own_N) for k, own_N in shares.items() if np.isfinite(own_N).all()}
        return {"test_scores": kept}

    averaged = "mean"

    def averages(
        self, said: np.ndarray, table: Examples, fitted: Any, names: Sequence[str]
    ) -> dict[str, float]:
        """The mean number."""
        return {names[0]: float(_unscaled(said, fitted).mean())}

    def constant(self, labelled: Examples, label_names: Sequence[str]) -> np.ndarray | None:
        """The mean of the labels, which is 0 as outputs are scaled."""
        return np.zeros(1)

    def regressed(
        self,
        recipe: Regression,
        labelled: Examples,
        features: Sequence[Any],
        label_names: Sequence[str],
        score: Callable[[np.ndarray], float],
        on_fit: Callable[[], None],
    ) -> Fitted:
        """Ridge regression; penalties are the inverses of ``recipe.candidates``."""
        from sklearn.linear_model import Ridge

        train, validation, test = features
        assert labelled.targets is not None
        models = []
        for strength in recipe.candidates:
            on_fit()
            models.append(Ridge(alpha=1 / strength).fit(train, labelled.targets[:, 0]))
        said = [model.predict(validation)[:, None] for model in models]
        best = int(np.argmax([score(said_N1) for said_N1 in said]))
        return Fitted(recipe.candidates[best], said[best], models[best].predict(test)[:, None])

    def saved(self, fitted: Any, calibrated: Calibrated) -> dict[str, Any]:
        return dict(fitted)

    def form(self, saved: Mapping[str, Any], names: tuple[str, ...], tokenizer_file: Path) -> Form:
        scale = {name: float(saved[name]) for name in ("mean", "deviation")}
        if not all(map(math.isfinite, scale.values())):
            raise ValueError("the scale is not finite")
        return NumberForm(**scale)


@dataclass(frozen=True)
class Predicted:
    """A number that is predicted.

    Attributes:
      number: in the labels' own units.
    """

    number: float

    @property
    def label(self) -> str:
        """The number, six digits."""
        return f"{self.number:.6g}"


@dataclass(frozen=True)
class NumberForm(Form):
    """A number an example; see ``Number.fit`` for the scale."""

    mean: float
    deviation: float

    @property
    def columns(self) -> tuple[str, ...]:
        return (PREDICTED,)

    def answers(
        self, said: np.ndarray, tokens: TokenTable, texts: Sequence[Sequence[str]]
    ) -> list[Predicted]:
        return [Predicted(number) for number in _unscaled(said, vars(self)).tolist()]

    def verdicts(self, said: np.ndarray, tokens: TokenTable) -> list[float]:
        return said[:, 0].tolist()

    def alike(self, one: float, other: float) -> bool:
        return abs(one - other) < ALIKE

    @property
    def reading(self) -> str:
        return (
            f"The number is the one logit times {self.deviation:.6g}, plus {self.mean:.6g}. "
            f"Numbers count as the same that differ by less than {ALIKE * self.deviation:.3g}, a "
            "tenth of the labels' standard deviation."
        )

    def line(self, answer: Predicted | None) -> list[str]:
        return [answer.label if answer else ""]

    def row(self, answer: Predicted | None) -> list[str]:
        return self.line(answer)

    @property
    def fields(self) -> Fields:
        return {PREDICTED: (float, "the number, in the units of the labels")}

    @property
    def watchable(self) -> Watched:
        return Watched(number=0.0)

    def watched(self, answer: Predicted) -> Watched:
        return Watched(number=answer.number)

    def data(self, answer: Predicted | None) -> dict[str, Any]:
        return {PREDICTED: float(answer.label) if answer else None}


def _unscaled(said_N1: Any, fitted: Any) -> np.ndarray:
    """Numbers in the labels' units, float64 [N]."""
    return np.asarray(said_N1, np.float64)[:, 0] * fitted["deviation"] + fitted["mean"]


register(Number())
