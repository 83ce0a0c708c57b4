"""Compiled steps of this process: what one table compiled, the next one does not."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from distill_jax.core.memory import drop_programs, many_programs
from distill_jax.training.step import CompiledStep

_STEPS: dict[Hashable, CompiledStep] = {}


@dataclass(eq=False)
class Programs:
    """The steps that one table uses; it counts the traces that it caused itself."""

    _own: dict[Hashable, CompiledStep] = field(default_factory=dict)
    _used: dict[CompiledStep, int] = field(default_factory=dict)

    def step(
        self, key: Hashable, make: Callable[[], CompiledStep], *, own: bool = False
    ) -> CompiledStep:
        """The step of a key, made where there is none.

        Before one is made all others are dropped, where compiled programs take too much room: runs
        of one structure follow each other.

        Args:
          key: all that decides what is compiled, beside the shapes of what it is called with.
          own: whether the key does not tell all, so that no other table may have the step.
        """
        steps = self._own if own else _STEPS
        if key not in steps:
            if many_programs():
                _STEPS.clear()
                self._own.clear()
                drop_programs()
            steps[key] = make()
        step = steps[key]
        self._used.setdefault(step, step.traces)
        return step

    @property
    def traces(self) -> int:
        """How often a program was traced since this table used it first."""
        return sum(step.traces - before for step, before in self._used.items())
