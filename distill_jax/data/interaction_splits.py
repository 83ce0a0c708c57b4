"""What a recommender learns from and what it is asked: three ways to divide interactions."""

import dataclasses
import datetime
from typing import Any

import numpy as np

from distill_jax.core.errors import UserError, unknown
from distill_jax.data.interactions import Cases, Interactions, RankingSplit

ASKED = 20_029
"""Seed of the draw of those who are asked."""
TARGETS = ("first", "last", "all")
SPLITS = ("leave-one-out", "temporal", "temporal:TRAIN,VALIDATION[,TARGETS]", "files")


@dataclasses.dataclass(frozen=True)
class SplitRule:
    """A split as ``--split`` names it.

    Attributes:
      kind: ``leave-one-out``, ``temporal`` or ``files`` (the user's own).
      train, validation: shares of a temporal split; the rest is test.
      targets: of a temporal split; see ``temporal_at``.
    """

    kind: str
    train: float = 0.8
    validation: float = 0.1
    targets: str = "first"


def parse_split(text: str) -> SplitRule:
    """A split in text: ``leave-one-out``, ``temporal``, ``temporal:0.8,0.1,all`` or ``files``."""
    kind, colon, numbers = text.partition(":")
    if kind not in ("leave-one-out", "temporal", "files") or (colon and kind != "temporal"):
        raise unknown("split", text, SPLITS)
    if not colon:
        return SplitRule(kind)
    train, validation, targets = (*numbers.split(","), "first", "")[:3]
    try:
        rule = SplitRule(kind, float(train), float(validation), targets or "first")
    except ValueError:
        rule = None
    if rule is None or numbers.count(",") > 2:
        raise UserError(
            f"split {text!r}: expected two shares behind the colon, and perhaps which items are "
            "asked for, as in 'temporal:0.8,0.1' or 'temporal:0.8,0.1,all'."
        )
    if rule.targets not in TARGETS:
        raise unknown("choice of targets", rule.targets, TARGETS, where=f"in split {text!r}")
    return rule


def split_interactions(data: Interactions, rule: SplitRule) -> RankingSplit:
    """Divide data that brings no split of its own."""
    if rule.kind == "leave-one-out":
        return leave_one_out(data)
    if rule.kind == "temporal":
        return temporal(data, train=rule.train, validation=rule.validation, targets=rule.targets)
    raise UserError(
        f"data {data.name!r} brings no split of its own; expected the files train, validation "
        "and test. Allowed otherwise: leave-one-out, temporal."
    )


def leave_one_out(data: Interactions) -> RankingSplit:
    """Each user's last item is tested, the one before it validates, the rest is train.

    Of several kinds of feedback the first is asked for: the last purchase is tested, the one before
    it validates, and what lies before that, of any kind, is train.

    Users with fewer than three interactions are trained on and not asked about. The history of
    a test case includes the validation item, as in SASRec (Kang and McAuley, ICDM 2018).

    What this leaks: there is no common point in time. When a user's last item is asked for,
    training has seen what other users did later: which items became popular, and what was
    taken together with them (Ji et al., "A Critical Study on Data Leakage in Recommender
    System Offline Evaluation", TOIS 2023). Figures are good for comparing models with
    published ones, not as a forecast of a deployment; ``temporal`` is nearer to that.
    """
    asked, before_E, last_E = _last_two(data)
    if not len(asked):
        raise UserError(
            f"data {data.name!r}: no user has {_three(data)}, which leave-one-out needs."
        )
    ends_U = data.offsets_U1[1:].copy()
    ends_U[asked] = before_E
    left = data.num_users - len(asked)
    few = f" ({left} users without {_three(data)} are trained on only)" if left else ""
    if not data.kind_names:
        few = f" ({left} users with fewer than three are trained on only)" if left else ""
    return RankingSplit(
        data=data,
        train_ends_U=ends_U,
        validation=Cases(asked, before_E),
        test=Cases(asked, last_E),
        protocol=(
            f"leave-one-out: the last {_item(data)} of {len(asked)} users is tested, the one "
            f"before it validates{few}; leaks the future of other users (training has seen what "
            "they took after the tested moment)"
        ),
    )


def _last_two(data: Interactions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users with two interactions that may be asked for, and something before: int32 [E], and the
    places int64 [E] of the second to last and of the last."""
    places = np.flatnonzero(data.asked_N)
    ends_U = np.searchsorted(places, data.offsets_U1[1:])
    several = np.flatnonzero(np.diff(ends_U, prepend=0) >= 2)
    before, last = places[ends_U[several] - 2], places[ends_U[several] - 1]
    known = before > data.offsets_U1[several]
    return several[known].astype(np.int32), before[known], last[known]


def _item(data: Interactions, word: str = "item") -> str:
    """What is asked for, for people."""
    return f"{word} of the kind {data.kind_names[0]!r}" if data.kind_names else word


def _three(data: Interactions) -> str:
    if not data.kind_names:
        return "three interactions"
    return f"two interactions of the kind {data.kind_names[0]!r} and one before them"


def temporal(
    data: Interactions, *, train: float = 0.8, validation: float = 0.1, targets: str = "first"
) -> RankingSplit:
    """Two points in time divide all users at once, so that nothing later is learned from.

    Args:
      train, validation: shares of all interactions before the first point and between the two.
      targets: see ``temporal_at``.

    Raises:
      UserError: for data without times, shares that leave nothing, or a split without cases.
    """
    if not (0 < train < 1 and 0 < validation < 1 and train + validation < 1):
        raise UserError(
            f"temporal split: shares {train:g} (train) and {validation:g} (validation) must be "
            "positive and leave something for test."
        )
    times_N = np.sort(_times(data))
    cut = [times_N[int(share * len(times_N))] for share in (train, train + validation)]
    return temporal_at(data, cut[0], cut[1], targets=targets)


def temporal_at(
    data: Interactions, validation_from: float, test_from: float, *, targets: str = "first"
) -> RankingSplit:
    """Split at two points in time, in the unit of ``times_N``.

    Interactions before ``validation_from`` are train, those from ``test_from`` on are test, and
    those between validate. A user is asked about for the ``first`` interaction of a period, the
    ``last`` or ``all``; the history is everything before it, of the same period too. Users
    without any interaction before the target are not asked about.
    """
    if targets not in TARGETS:
        raise unknown("choice of targets", targets, TARGETS)
    if not validation_from < test_from:
        raise UserError(
            f"temporal split: validation starts at {validation_from:g} and test at "
            f"{test_from:g}; expected an earlier and a later time."
        )
    times_N = _times(data)
    validation_U = first_at(data, times_N >= validation_from)
    test_U = first_at(data, times_N >= test_from)
    parts = {
        "validation": _period(data, validation_U, test_U, targets),
        "test": _period(data, test_U, data.offsets_U1[1:], targets),
    }
    if not (validation_U > data.offsets_U1[:-1]).any():
        raise UserError(f"data {data.name!r}: no interaction is earlier than {validation_from:g}.")
    for name, cases in parts.items():
        if not len(cases):
            raise UserError(
                f"data {data.name!r}: no user of the {name} period has a history before it; "
                "choose other shares or points in time."
            )
    asked = {"first": "the first", "last": "the last", "all": "every"}[targets]
    share = (validation_U - data.offsets_U1[:-1]).sum() / len(data)
    return RankingSplit(
        data=data,
        train_ends_U=validation_U,
        validation=parts["validation"],
        test=parts["test"],
        protocol=(
            f"temporal: {share:.0%} of the interactions, those before {_moment(validation_from)}, "
            f"are train; test starts at {_moment(test_from)} and asks for {asked} {_item(data)} of "
            f"{len(np.unique(parts['test'].users_E))} users after it; no training on what is "
            f"later than any tested moment{_unasked(data, test_U)}"
        ),
    )


def own_split(data: Interactions, parts_N: np.ndarray) -> RankingSplit:
    """The user's own split: part 0 (train), 1 (validation) or 2 (test) of each interaction.

    Every interaction of the parts 1 and 2 that may be asked for is a case; its history is all that
    the user did before it. Users without any history are not asked about.
    """
    starts_U = data.offsets_U1[:-1]
    validation_U = first_at(data, parts_N >= 1)
    test_U = first_at(data, parts_N >= 2)
    validation = _period(data, validation_U, test_U, "all")
    test = _period(data, test_U, data.offsets_U1[1:], "all")
    if not (validation_U > starts_U).any():
        raise UserError(f"data {data.name!r}: the train split has no interaction.")
    return RankingSplit(
        data=data,
        train_ends_U=validation_U,
        validation=validation,
        test=test,
        protocol=(
            f"the user's own split: {len(validation)} validation and {len(test)} test "
            f"{_item(data, 'interactions')}, each asked for after all that its user did before"
            f"{_unasked(data, test_U)}"
        ),
    )


def _unasked(data: Interactions, test_U: np.ndarray) -> str:
    """Says of how many users all that there is begins with the test."""
    begun_U = (test_U == data.offsets_U1[:-1]) & (data.lengths_U > 0)
    count = int(data.asked_N[test_U[begun_U]].sum())
    if not count:
        return ""
    return f"; {count} users have no history before the test, their first interaction is not asked"


def asked_at_most(split: RankingSplit, users: int) -> RankingSplit:
    """The same split, with all cases of so many users at most, drawn once and for all.

    What is learned from stays.
    """
    everybody = np.unique(np.concatenate([split.validation.users_E, split.test.users_E]))
    if len(everybody) <= users:
        return split
    drawn = np.random.default_rng(ASKED).permutation(everybody)[:users]
    asked_U = np.zeros(split.data.num_users, bool)
    asked_U[drawn] = True

    def of_them(cases: Cases) -> Cases:
        return cases.take(np.flatnonzero(asked_U[cases.users_E]))

    return dataclasses.replace(
        split,
        validation=of_them(split.validation),
        test=of_them(split.test),
        protocol=f"{split.protocol}; {users} of {len(everybody)} users, drawn once, are asked",
    )


def _moment(seconds: float) -> str:
    """A time for people; small numbers are no seconds since 1970 and stay what they are."""
    if not 1e8 < abs(seconds) < 1e11:
        return f"time {seconds:g}"
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _times(data: Interactions) -> np.ndarray:
    if data.times_N is None:
        raise UserError(
            f"data {data.name!r} has no times, which a temporal split needs. Allowed without "
            "times: leave-one-out."
        )
    return data.times_N


def first_at(data: Interactions, later_N: np.ndarray) -> np.ndarray:
    """int64 [U], where each user's later interactions start; ``later_N`` ascends in a user."""
    later_before_N1 = np.concatenate([[0], np.cumsum(later_N)])
    counts_U = np.diff(later_before_N1[data.offsets_U1])
    return data.offsets_U1[1:] - counts_U


def _period(data: Interactions, starts_U: Any, stops_U: Any, targets: str) -> Cases:
    """Cases with targets in ``starts_U[u]:stops_U[u]`` that may be asked for, of users that have a
    history."""
    history_U = data.offsets_U1[:-1]
    lengths_U = stops_U - starts_U
    users_E = np.repeat(np.arange(data.num_users, dtype=np.int32), lengths_U)
    ends_E = np.repeat(starts_U, lengths_U) + count_up(lengths_U)
    may_be_E = data.asked_N[ends_E]
    users_E, ends_E = users_E[may_be_E], ends_E[may_be_E]
    kept_E = ends_E > history_U[users_E]
    if targets == "last":
        kept_E &= np.diff(users_E, append=-1) != 0
    elif targets == "first":
        kept_E &= np.diff(users_E, prepend=-1) != 0
    return Cases(users_E[kept_E], ends_E[kept_E])


def count_up(lengths_U: np.ndarray) -> np.ndarray:
    """0, 1, ... length - 1 of every user, one after another."""
    ends_U = np.cumsum(lengths_U)
    return np.arange(ends_U[-1]) - np.repeat(ends_U - lengths_U, lengths_U)
