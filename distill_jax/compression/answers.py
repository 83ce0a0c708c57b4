"""What a hop says of validation and test, what that comes to, and where it is kept."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError
from distill_jax.core.files import read_arrays, write_atomic
from distill_jax.evaluation.answers import Form
from distill_jax.tasks.classification.splits import Examples, Splits
from distill_jax.tasks.kinds.kind import by_example

SPLITS = ("validation", "test")


@dataclasses.dataclass(eq=False)
class Answers:
    """A hop's outputs for each split.

    Attributes:
      said: of ``SPLITS``, as ``predict_logits`` gives them.
      splits_of: gives the examples as the hop's tokeniser reads them; called where they are needed.
      tokenizer_file: of the run that all began with.
    """

    said: dict[str, np.ndarray]
    splits_of: Callable[[], Splits]
    tokenizer_file: Path | None

    @cached_property
    def splits(self) -> Splits:
        """See ``splits_of``."""
        return self.splits_of()

    @cached_property
    def calibrated(self) -> dict[str, float]:
        """What was fitted on validation."""
        splits = self.splits
        return splits.kind.calibrate(self.said["validation"], splits.validation, splits.fitted)

    def contributed(self, split: str) -> np.ndarray | None:
        """[N], numbers whose mean is the kind's main score of a split; None of outputs that are not
        finite."""
        splits = self.splits
        kind, table = splits.kind, self._table(split)
        found = by_example(kind, self.said[split], table, splits.fitted, self.calibrated)
        return found.get(kind.main)

    def agreement(self, other: Answers, split: str) -> float:
        """Share of a split's examples to which two hops give the same answer."""
        form = self._form
        own, theirs = (each.verdicts(split) for each in (self, other))
        return float(np.mean([form.alike(a, b) for a, b in zip(own, theirs, strict=True)]))

    def verdicts(self, split: str) -> list[Any]:
        """See ``Form.verdicts``."""
        table: Any = self._table(split)
        return self._form.verdicts(self.said[split], table)

    @cached_property
    def _form(self) -> Form:
        splits = self.splits
        saved = splits.kind.saved(splits.fitted, self.calibrated)
        return splits.kind.form(saved, splits.label_names, self.tokenizer_file or Path())

    def _table(self, split: str) -> Examples:
        return getattr(self.splits, split)


def write_said(path: Path, said: dict[str, np.ndarray], notes: Sequence[str]) -> None:
    """Keep what a hop says of each split, and what its steps told."""
    buffer = io.BytesIO()
    np.savez(buffer, notes=np.asarray(notes, np.str_), **said)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())


def read_said(path: Path) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """What ``write_said`` wrote.

    Raises:
      UserError: it is damaged.
    """
    try:
        arrays = read_arrays(path)
        notes = tuple(map(str, arrays["notes"]))
        return {split: arrays[split] for split in SPLITS}, notes
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}); delete its folder") from error
