"""Readers pick a loss's arrays out of what models say of a batch; the rest is the objective's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from jax import Array

Loss = Callable[..., Array]
"""A pure loss, its numbers and static arguments filled in."""

Params = Mapping[str, Any]
Options = Mapping[str, Any]


@dataclasses.dataclass(eq=False)
class Said:
    """What a student says of a batch, and the batch; what several losses ask for is made once."""

    output: Any
    batch: Any


@dataclasses.dataclass(frozen=True)
class Reader:
    """How one loss is read between a student and one teacher. Fitted, checked, hashable."""

    random: ClassVar[bool] = False
    """Whether it draws in each step; then ``draw`` is uint32 [2], the seed and the step."""

    @property
    def student_capture(self) -> Any:
        """What must be kept of the student's output; None for no more than always is."""
        return None

    @property
    def teacher_capture(self) -> Any:
        """What must be kept of the teacher's output, likewise."""
        return None

    @property
    def structure(self) -> tuple[str, ...]:
        """The static facts that decide what is compiled, beside the term's options, as text."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided, for people."""
        return ()

    def init_params(self, rng: Array) -> dict[str, Any]:
        """The parameters that the loss owns, float32; {} when none."""
        return {}

    def where(self, batch: Any, teacher: Any) -> Array:
        """Which values count, bool, of the values' shape."""
        raise NotImplementedError

    def weights(self, batch: Any) -> Array | None:
        """How much each value counts, float32 of the values' shape; None where all do alike."""
        return None

    def values(self, loss: Loss, params: Params, said: Any, teacher: Any, draw: Any) -> Array:
        """The loss, unreduced; anything where it does not count.

        Args:
          params: as ``init_params`` makes them.
          said: the student's, a ``Said``.
          teacher: the teacher's output, None for losses that need none.
          draw: see ``random``; None where nothing is drawn.
        """
        raise NotImplementedError
