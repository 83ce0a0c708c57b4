"""What training asks of an objective, be it over classes or over a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jax import Array

from distill_jax.objectives.terms import Objective


class Labelled(Protocol):
    """A term, by its name among the metrics."""

    @property
    def label(self) -> str: ...


class FittedTerm(Labelled, Protocol):
    """What may be known of a term, whatever it reads."""

    @property
    def random(self) -> bool:
        """Whether its numbers hold a draw of each step."""


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


class SweptObjective(TrainingObjective, Protocol):
    """An objective of a cell. Two are equal, and hash alike, when they compile to one program."""

    @property
    def objective(self) -> Objective:
        """The text, parsed."""

    @property
    def structure(self) -> str:
        """Canonical text of the static part."""

    @property
    def needs_teacher(self) -> bool:
        """Whether any term looks at a teacher."""

    @property
    def terms(self) -> Sequence[FittedTerm]: ...
