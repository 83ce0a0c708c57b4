"""What a table may show of a run."""

import math
from dataclasses import dataclass
from typing import Literal

from distill_jax.core.errors import UserError
from distill_jax.core.fields import check_fields
from distill_jax.tables.names import TRAINED


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
      key: what ``LedgerRow.number`` looks up: ``test/accuracy``, ``seconds/train`` ...
      title: heading, with the unit.
      scale: shown value = raw value * scale; e.g. 100 for percent.
      decimals: digits after the point.
      kind: ``mean_sd`` shows mean and standard deviation over seeds, ``mean`` the mean alone,
        ``value`` a number that is the same for all seeds (a range is shown if it is not).
      higher_is_better: direction; None where there is none. Bold needs a direction.
    """

    key: str
    title: str
    scale: float = 1.0
    decimals: int = 1
    kind: Literal["mean_sd", "mean", "value"] = "mean_sd"
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.decimals <= 20 or not math.isfinite(self.scale):
            raise UserError(f"column {self.key}: 0 to 20 decimals, and a finite scale")


ACCURACY = Column("test/accuracy", "accuracy %", 100, 1, higher_is_better=True)
ERRORS = Column("test/errors", "errors", 1, 1, higher_is_better=False)
"""Test examples that are given another class than their own."""
FIDELITY = Column("test/fidelity", "fidelity %", 100, 1, higher_is_better=True)

COSTS = (
    Column("parameters", "parameters (M)", 1e-6, 2, kind="value"),
    Column("latency/p50_ms", "CPU p50 (ms)", 1, 2, kind="mean"),
    Column("latency/p95_ms", "CPU p95 (ms)", 1, 2, kind="mean"),
    Column("seconds/total", "run (s)", 1, 0, kind="mean"),
)
"""What any model costs."""
COLUMNS = (
    ACCURACY,
    Column("test/macro_f1", "macro-F1 %", 100, 1, higher_is_better=True),
    Column("test/pearson", "Pearson r", 1, 3, higher_is_better=True),
    FIDELITY,
    Column("test/ece", "ECE %", 100, 1, higher_is_better=False),
    Column("test/ece_calibrated", "ECE % (T fitted)", 100, 1, higher_is_better=False),
    *COSTS,
)
"""Of a text classifier: how right it is, how faithful, how calibrated, and what it costs."""
TRAINED_PARAMETERS = Column(TRAINED, "trained (M)", 1e-6, 2, kind="value")
