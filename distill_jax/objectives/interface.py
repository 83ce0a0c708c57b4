"""What training asks of an objective, be it over classes or over a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jax import Array


class Labelled(Protocol):
    """A term, by its name among the metrics."""

    @property
    def label(self) -> str: ...


class Selecting(Protocol):
    """A capture, see ``core.types.Capture``."""

    def select(self, output: Any) -> Any: ...


class TrainingObjective(Protocol):
    """``resolve.ResolvedObjective`` and the objectives of recommenders, lists and tasks."""

    @property
    def terms(self) -> Sequence[Labelled]: ...

    @property
    def student_capture(self) -> Selecting: ...

    def numbers(self, step: int, total_steps: int, seed: int) -> dict[str, dict[str, Any]]: ...

    def __call__(
        self, params: Any, numbers: Any, student: Any, teacher: Any, batch: Any
    ) -> tuple[Array, dict[str, tuple[Array, Array]]]: ...
