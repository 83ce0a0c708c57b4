"""Declarative trends: what a paper says, as contrasts of scores that a table may hold or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Claim = Literal["positive", "negative", "within", "not_below"]


@dataclass(frozen=True)
class Pick:
    """The score, by seed, of one place; of several, of the one that is best on validation.

    Attributes:
      places: (row, group).
      weight: factor of the score in its contrast.
    """

    places: tuple[tuple[str, str], ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Contrast:
    """A linear contrast: per seed, the sum over the picks of weight times score."""

    label: str
    picks: tuple[Pick, ...]


@dataclass(frozen=True)
class Trend:
    """One statement and the contrasts that have to bear it out.

    Attributes:
      statement: as the paper says it.
      contrasts: all of them have to hold.
      claim: what each contrast is claimed to be.
      margin: of ``within`` and ``not_below``, in the metric's raw units.
      metric: what is compared.
      select: where a pick has several places, the one with the highest mean of this is taken.
    """

    statement: str
    contrasts: tuple[Contrast, ...]
    claim: Claim = "positive"
    margin: float = 0.0
    metric: str = "test/accuracy"
    select: str = "validation/accuracy"

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Trend":
        """Inverse of ``dataclasses.asdict``, also after a journey through JSON.

        Raises:
          KeyError, TypeError, ValueError: for an object that is something else.
        """
        contrasts = tuple(
            Contrast(contrast["label"], tuple(_pick(pick) for pick in contrast["picks"]))
            for contrast in fields["contrasts"]
        )
        return cls(**{**fields, "contrasts": contrasts})


def _pick(fields: Mapping[str, Any]) -> Pick:
    places = tuple((row, group) for row, group in fields["places"])
    return Pick(**{**fields, "places": places})
