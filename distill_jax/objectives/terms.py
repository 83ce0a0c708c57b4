"""What an objective is made of: terms, their options, layer maps. Frozen, hashable, printable."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from distill_jax.objectives.schedules import Schedule, format_number

Number = float | Schedule


@dataclasses.dataclass(frozen=True)
class LayerMap:
    """Pairs (student layer, teacher layer), in the order in which the user gave them.

    Negative layers count from the end, as in Python: -1 is the last.
    """

    pairs: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return "{" + ", ".join(f"{student}: {teacher}" for student, teacher in self.pairs) + "}"


def format_value(value: Any) -> str:
    """A value as the grammar reads it."""
    if isinstance(value, (bool, Schedule, LayerMap)):
        return str(value)
    if isinstance(value, (int, float)):
        return format_number(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(format_value, value)) + "]"
    return repr(value)


@dataclasses.dataclass(frozen=True)
class Interval:
    """The numbers an option may take; an end that is not ``closed`` is itself excluded."""

    low: float = -math.inf
    high: float = math.inf
    closed: str = ""  # any of "low", "high", "both"

    def __contains__(self, value: float) -> bool:
        above = value >= self.low if self.closed in ("low", "both") else value > self.low
        below = value <= self.high if self.closed in ("high", "both") else value < self.high
        return above and below

    def __str__(self) -> str:
        left = "[" if self.closed in ("low", "both") else "("
        right = "]" if self.closed in ("high", "both") else ")"
        return f"{left}{self.low:g}, {self.high:g}{right}"


POSITIVE = Interval(0)
NOT_NEGATIVE = Interval(0, closed="low")
SHARE = Interval(0, 1, closed="both")


@dataclasses.dataclass(frozen=True)
class Option:
    """One argument of a term.

    A float default makes it a dynamic number: changing it never recompiles, and it may be a
    schedule. Everything else is static.

    Attributes:
      default: the value where the text says nothing.
      choices: the allowed values, for words and switches.
      interval: the allowed numbers, for numbers.
      layer_map: whether an explicit ``{student layer: teacher layer}`` is allowed too.
      sequence: whether it is a list of numbers.
    """

    default: Any
    choices: tuple[Any, ...] = ()
    interval: Interval = Interval()
    layer_map: bool = False
    sequence: bool = False

    @property
    def dynamic(self) -> bool:
        """Whether the value is data for the compiled step, not a part of it."""
        return isinstance(self.default, float)

    @property
    def allowed(self) -> str:
        """What may be written, in words."""
        parts = [format_value(choice) for choice in self.choices]
        if self.layer_map:
            parts.append("{student layer: teacher layer, ...}")
        if self.sequence:
            parts.append(f"a list of numbers in {self.interval}")
        elif self.dynamic:
            parts.append(f"a number in {self.interval} or a schedule of such")
        elif isinstance(self.default, int) and not isinstance(self.default, bool):
            parts.append(f"a whole number in {self.interval}")
        return ", ".join(parts)

    def accepts(self, value: Any) -> bool:
        """Whether ``value``, as read from the text, may stand here."""
        if isinstance(value, LayerMap):
            return self.layer_map
        if isinstance(value, Schedule):
            return self.dynamic and all(end in self.interval for end in value.extremes)
        if any(value == choice and type(value) is type(choice) for choice in self.choices):
            return True
        if isinstance(value, tuple):
            return self.sequence and all(item in self.interval for item in value)
        if isinstance(value, (bool, str)):
            return False
        if self.dynamic:
            return value in self.interval
        whole = isinstance(self.default, int) and not isinstance(self.default, bool)
        return whole and isinstance(value, int) and value in self.interval


@dataclasses.dataclass(frozen=True)
class Term:
    """``weight * name(options)``; ``options`` holds what differs from the defaults, by name."""

    name: str
    weight: Number = 1.0
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        weight = "" if self.weight == 1.0 else f"{format_value(self.weight)}*"
        inside = ", ".join(f"{key}={format_value(value)}" for key, value in self.options)
        return f"{weight}{self.name}" + (f"({inside})" if inside else "")


@dataclasses.dataclass(frozen=True)
class Objective:
    """A weighted sum of losses. ``str`` is its canonical form, which parses back to it."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return " + ".join(map(str, self.terms))

    @property
    def labels(self) -> tuple[str, ...]:
        """A unique name for each term: the loss's name, ``kl_2`` for its second use and so on."""
        seen: dict[str, int] = {}
        labels = []
        for term in self.terms:
            seen[term.name] = seen.get(term.name, 0) + 1
            count = seen[term.name]
            labels.append(term.name if count == 1 else f"{term.name}_{count}")
        return tuple(labels)
