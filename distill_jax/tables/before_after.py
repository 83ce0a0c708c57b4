"""What an update changed of a model, as metrics: gains, and what was forgotten and learnt."""

from __future__ import annotations

from numpy.typing import ArrayLike

from distill_jax.tables.mcnemar import mcnemar
from distill_jax.tables.statistics import paired_bootstrap


def changes(name: str, before_N: ArrayLike, after_N: ArrayLike) -> dict[str, float]:
    """Examples right before and wrong now, the other way round, and McNemar's p."""
    found = mcnemar(before_N, after_N)
    return {
        f"{name}/tested": found.examples,
        f"{name}/forgotten": found.lost,
        f"{name}/learnt": found.won,
        f"{name}/forgotten_p": found.p,
    }


def gains(name: str, before_N: ArrayLike, after_N: ArrayLike) -> dict[str, float]:
    """The mean gain with its interval over examples; nothing where there are too few."""
    gain = paired_bootstrap(after_N, before_N)
    if gain is None:
        return {}
    return {
        f"{name}/gain": gain.difference,
        f"{name}/gain_low": gain.low,
        f"{name}/gain_high": gain.high,
    }
