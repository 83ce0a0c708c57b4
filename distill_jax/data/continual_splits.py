"""Interactions that arrive later: what was known before a moment, what comes after, who is asked.

Some users are witnesses: nothing of theirs is ever trained on, so that what a model knew before
and knows after can be asked of the same cases.
"""

import dataclasses

import numpy as np

from distill_jax.core.digests import unit_interval
from distill_jax.core.errors import UserError
from distill_jax.data.interaction_splits import first_at
from distill_jax.data.interactions import Cases, Interactions, RankingSplit


@dataclasses.dataclass(frozen=True)
class ContinualRule:
    """How interactions are divided.

    Attributes:
      old: share of all interactions before the moment, the rest is new.
      witnesses: share of users nobody trains on; by a hash of their names.
      targets: so many of a witness's last items before the moment are asked for, and so many of
        the last after it.
    """

    old: float = 0.7
    witnesses: float = 0.2
    targets: int = 10

    def __post_init__(self) -> None:
        if not (0 < self.old < 1 and 0 < self.witnesses < 1 and self.targets >= 1):
            raise UserError(
                "a continual run needs shares between 0 and 1 of old interactions and of "
                f"witnesses, and at least 1 target, not {self.old:g}, {self.witnesses:g}, "
                f"{self.targets}."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class ContinualSplit:
    """Two periods of one set of interactions.

    Attributes:
      data: all interactions.
      old_ends_U, new_ends_U: int64 [U], where training ends before and after the new interactions
        have come; a witness has none.
      selection: cases that choose steps, of half the witnesses: (before the moment, after it).
      old, new: cases of the other half, whose targets lie before and after the moment.
      protocol: one sentence.
      rule: how they were told apart.
      asked: whose the cases are, see ``RankingSplit``.
    """

    data: Interactions
    old_ends_U: np.ndarray
    new_ends_U: np.ndarray
    selection: tuple[Cases, Cases]
    old: Cases
    new: Cases
    protocol: str
    rule: ContinualRule
    asked: Interactions | None = None

    @property
    def asked_data(self) -> Interactions:
        """Whose the cases are."""
        return self.data if self.asked is None else self.asked

    @property
    def grown_U(self) -> np.ndarray:
        """bool [U], users with new interactions to learn from."""
        return self.new_ends_U > self.old_ends_U

    def before(self) -> RankingSplit:
        """What can be learned before the moment."""
        return self._learned(self.old_ends_U, self.selection[0], None)

    def after(self) -> RankingSplit:
        """What can be learned from everything that has come since."""
        return self._learned(self.new_ends_U, together(*self.selection), None)

    def update(self, rehearsed_U: np.ndarray | None = None) -> RankingSplit:
        """What an update learns from: users with new interactions, and those rehearsed.

        Args:
          rehearsed_U: bool [U], old users who come again; None for nobody.
        """
        chosen_U = self.grown_U if rehearsed_U is None else self.grown_U | rehearsed_U
        ends_U = np.where(chosen_U, self.new_ends_U, self.data.offsets_U1[:-1])
        known_U = self.new_ends_U > self.data.offsets_U1[:-1]
        return self._learned(ends_U, together(*self.selection), known_U)

    def rehearsed(self, count: int, seed: int) -> np.ndarray:
        """bool [U]: so many users who have nothing new, drawn once; all where there are fewer."""
        idle = np.flatnonzero(~self.grown_U & (self.old_ends_U > self.data.offsets_U1[:-1]))
        chosen = np.random.default_rng(seed).permutation(idle)[:count]
        rehearsed_U = np.zeros(self.data.num_users, bool)
        rehearsed_U[chosen] = True
        return rehearsed_U

    def _learned(
        self, ends_U: np.ndarray, validation: Cases, known_U: np.ndarray | None
    ) -> RankingSplit:
        return RankingSplit(
            self.data, ends_U, validation, self.old, self.protocol, self.asked, known_U
        )


def continual_split(data: Interactions, rule: ContinualRule) -> ContinualSplit:
    """Divides interactions at a moment.

    Raises:
      UserError: for data without times, or a period or a half of the witnesses without cases.
    """
    if data.times_N is None:
        raise UserError(f"data {data.name!r} has no times, which a continual run needs.")
    if data.kind_names:
        raise UserError(
            f"data {data.name!r} has feedback of several kinds ({', '.join(data.kind_names)}); a "
            f"continual run reads one: --kinds {data.kind_names[0]}."
        )
    moment = np.sort(data.times_N)[int(rule.old * len(data))]
    starts_U = data.offsets_U1[:-1]
    ends_U, borders_U = data.offsets_U1[1:], first_at(data, data.times_N >= moment)
    luck_U = np.array([unit_interval(f"witness {name}") for name in data.user_names])
    witness_U = luck_U < rule.witnesses
    first_U = luck_U < rule.witnesses / 2
    parts = {
        (period, half): last_cases(data, low_U, high_U, half_U, rule.targets)
        for period, low_U, high_U in (("old", starts_U, borders_U), ("new", borders_U, ends_U))
        for half, half_U in (("selection", first_U), ("test", witness_U & ~first_U))
    }
    for (period, half), cases in parts.items():
        if not len(cases):
            raise UserError(
                f"data {data.name!r}: no witness has an item to be asked for in the {period} "
                f"period ({half}); raise the share of witnesses or move the moment."
            )
    old_ends_U = np.where(witness_U, starts_U, borders_U)
    new_ends_U = np.where(witness_U, starts_U, ends_U)
    return ContinualSplit(
        data,
        old_ends_U,
        new_ends_U,
        (parts["old", "selection"], parts["new", "selection"]),
        parts["old", "test"],
        parts["new", "test"],
        f"continual: {rule.old:.0%} of the interactions come before the moment, the others after; "
        f"{int(witness_U.sum())} witnesses ({rule.witnesses:.0%} of the users) are never trained "
        f"on, half of them choose steps, the others are asked for up to {rule.targets} items of "
        "either period, each after all that they did before",
        rule,
    )


def together(*cases: Cases) -> Cases:
    """All of them, in the order of the users."""
    users = np.concatenate([each.users_E for each in cases])
    ends = np.concatenate([each.ends_E for each in cases])
    order = np.lexsort((ends, users))
    return Cases(users[order], ends[order])


def last_cases(
    data: Interactions, low_U: np.ndarray, high_U: np.ndarray, chosen_U: np.ndarray, count: int
) -> Cases:
    """The last ``count`` targets in ``low_U[u]:high_U[u]`` of the chosen users with a history; of
    several kinds of feedback those that are asked for."""
    users_N, place_N = data.users_N, np.arange(len(data))
    first_U = np.maximum(low_U, data.offsets_U1[:-1] + 1)
    able_N = chosen_U[users_N] & data.asked_N
    able_N &= (place_N >= first_U[users_N]) & (place_N < high_U[users_N])
    users_E, ends_E = users_N[able_N], place_N[able_N]
    last_U = np.cumsum(np.bincount(users_E, minlength=data.num_users))
    kept_E = last_U[users_E] - np.arange(len(users_E)) <= count
    return Cases(users_E[kept_E], ends_E[kept_E])
