"""A finished run's interactions go on: new ones behind the old, some of them held out.

Items and users keep their numbers, new ones come after them. What the run held out stays held
out: it is no part of what is learned from, and is asked for after what came before it, as ever.
So it goes on as often as something new comes, see ``as_old``.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from distill_jax.core.digests import unit_interval
from distill_jax.core.errors import UserError
from distill_jax.data.continual_splits import ContinualRule, ContinualSplit, last_cases, together
from distill_jax.data.interaction_splits import count_up
from distill_jax.data.interactions import Cases, Interactions, RankingSplit

TRAIN, VALIDATION, TEST = range(3)


@dataclasses.dataclass(frozen=True, eq=False)
class Arrived:
    """New interactions, by the numbers of the grown catalogue, in the order of the users.

    Attributes:
      users_N, items_N: int64 [N].
      parts_N: [N], ``TRAIN`` for what is learned from, else what it is held out for.
      notes: what was left out, one sentence each.
      kinds_N: int32 [N], see ``Interactions``.
      last_U: float64 [U], when each user's last interaction was, old or new; -inf where nobody
        knows.
    """

    users_N: np.ndarray
    items_N: np.ndarray
    parts_N: np.ndarray
    notes: tuple[str, ...]
    kinds_N: np.ndarray | None
    last_U: np.ndarray

    def __len__(self) -> int:
        return len(self.items_N)


def continued(
    old: RankingSplit,
    new: Interactions,
    parts_N: np.ndarray | None,
    rule: ContinualRule,
    last_U: np.ndarray | None = None,
) -> tuple[ContinualSplit, Arrived]:
    """The interactions of a run with those that came later.

    Where the new ones bring no split of their own, users are held out by a fixed hash of their
    names, ``rule.witnesses`` of those who have something new: none of that is learned from. Half
    of them choose steps, the others are asked for up to ``rule.targets`` of their last items.

    Args:
      parts_N: of the new interactions, where they bring a split.
      rule: its ``old`` is not read.
      last_U: when each old user's last interaction was, where the old do not say it themselves:
        they have gone on before, see ``Arrived``.

    Raises:
      UserError: where nothing is new, or nothing can be held out; for other kinds of feedback than
        the old, or privileged fields of events.
    """
    before = old.asked_data  # what is held out has been taken too
    _check_alike(before, new)
    grown = _grown(before, new)
    arrived = _arrived(before, new, parts_N, grown, last_U)
    asked = _in_order(grown, before, arrived, np.ones(len(before), bool), None)
    if parts_N is None:
        arrived, cases = _held_out(asked, before, arrived, rule)
    else:
        cases = _own_cases(asked, before, arrived)
    if not len(cases[1]):
        none = (
            "of too few users something is new for any to be held out; give train, validation and "
            "test"
            if parts_N is None
            else "of its test nothing is asked for, which takes an interaction that is new, of a "
            "user who did something before"
        )
        raise UserError(f"data {new.name!r}: {none}.")
    if not (arrived.parts_N == TRAIN).any():
        raise UserError(f"data {new.name!r}: nothing is left to learn from, all is held out.")
    data = _in_order(grown, old.data, arrived, old.train_where_N, TRAIN)
    new_U = np.bincount(arrived.users_N[arrived.parts_N == TRAIN], minlength=data.num_users)
    told = "the data's own" if parts_N is not None else f"of {rule.witnesses:.0%} of their users"
    split = ContinualSplit(
        data,
        data.offsets_U1[1:] - new_U,
        data.offsets_U1[1:],
        (_moved(old.validation, before, asked), cases[0]),
        _moved(old.test, before, asked),
        cases[1],
        f"goes on: the old test is that of the run ({old.protocol}), asked for among the items of "
        f"its catalogue; {len(cases[1])} new interactions are asked for ({told}), each after all "
        "that its user did before, and none of them is learned from",
        rule,
        asked,
    )
    return split, arrived


def _check_alike(old: Interactions, new: Interactions) -> None:
    """Raises ``UserError`` where the new ones say other things of an interaction than the old."""
    if old.kind_names != new.kind_names:
        ours, theirs = (
            f"feedback of the kinds {', '.join(names)}" if names else "no kinds of feedback"
            for names in (old.kind_names, new.kind_names)
        )
        raise UserError(
            f"data {new.name!r} has {theirs}, where the run learned from {ours}: name the column "
            "(--columns kind=COLUMN), or leave it out"
        )
    if old.field_names:
        raise UserError(
            f"data {old.name!r} has privileged fields of events ({', '.join(old.field_names)}), "
            "numbered by the words that were there: recommenders go on without any"
        )


def as_old(old: RankingSplit, split: ContinualSplit, name: str) -> RankingSplit:
    """What comes out of ``continued``, as what the next new interactions come to: all that has been
    learned from so far, and all that has been asked for.

    Args:
      old: what ``split`` went on from.
      name: of what had come.
    """
    protocol = f"{old.protocol}, and {len(split.new):,} interactions of {name} that came later"
    test = together(split.old, split.new)
    return dataclasses.replace(split.after(), test=test, protocol=protocol)


def _grown(old: Interactions, new: Interactions) -> Interactions:
    """Names and texts of both, without an order yet; the interactions are the old ones."""
    known_users, known_items = set(old.user_names), set(old.item_names)
    users = (*old.user_names, *(name for name in new.user_names if name not in known_users))
    items = (*old.item_names, *(name for name in new.item_names if name not in known_items))
    offsets_U1 = np.pad(old.offsets_U1, (0, len(users) - old.num_users), mode="edge")
    texts = None
    if old.item_texts is not None or new.item_texts is not None:
        later = dict(zip(new.item_names, new.item_texts or [""] * new.num_items, strict=True))
        first = old.item_texts or [later.get(name, "") for name in old.item_names]
        texts = (*first, *(later[name] for name in items[old.num_items :]))
    return dataclasses.replace(
        old,
        name=f"{old.name} and {new.name}",
        user_names=users,
        item_names=items,
        item_texts=texts,
        offsets_U1=offsets_U1,
        times_N=None,
        ratings_N=None,
        notes=(*old.notes, *(f"{new.name}: {note}" for note in new.notes)),
    )


def _arrived(
    old: Interactions,
    new: Interactions,
    parts_N: np.ndarray | None,
    grown: Interactions,
    last_U: np.ndarray | None,
) -> Arrived:
    """The new interactions by their new numbers, without what the user took before."""
    user_of = {name: number for number, name in enumerate(grown.user_names)}
    item_of = {name: number for number, name in enumerate(grown.item_names)}
    users_N = np.array([user_of[name] for name in new.user_names])[new.users_N]
    items_N = np.array([item_of[name] for name in new.item_names])[new.items_N]
    order_N = np.argsort(users_N, kind="stable")  # new numbers of users have another order
    kept_N, notes = order_N, []
    if not grown.repeats:
        taken = _numbered(grown, old.users_N, old.items_N, old.kinds_N)
        again_N = np.isin(_numbered(grown, users_N, items_N, new.kinds_N), taken)
        kept_N = order_N[~again_N[order_N]]
        if again := int(again_N.sum()):
            notes.append(
                f"{again:,} of {len(new):,} new interactions repeat an item that the user took "
                "before, and are left out"
            )
    if not len(kept_N):
        raise UserError(f"data {new.name!r}: nothing is new ({'; '.join(notes)}).")
    last_U = np.pad(
        _last(old) if last_U is None else last_U,
        (0, grown.num_users - old.num_users),
        constant_values=-np.inf,
    )
    if new.times_N is not None:
        if early := int((new.times_N < last_U[users_N]).sum()):
            notes.append(
                f"{early:,} new interactions are older than the user's last: they count as later"
            )
        np.maximum.at(last_U, users_N, new.times_N)
    parts_N = np.full(len(new), TRAIN) if parts_N is None else parts_N
    kinds_N = None if new.kinds_N is None else new.kinds_N[kept_N]
    return Arrived(users_N[kept_N], items_N[kept_N], parts_N[kept_N], tuple(notes), kinds_N, last_U)


def _numbered(
    grown: Interactions, users_N: np.ndarray, items_N: np.ndarray, kinds_N: np.ndarray | None
) -> np.ndarray:
    """int64 [N], one number for all that are a repeat of each other: of user, item and kind."""
    pairs_N = users_N.astype(np.int64) * grown.num_items + items_N
    return pairs_N if kinds_N is None else pairs_N * len(grown.kind_names) + kinds_N


def _last(data: Interactions) -> np.ndarray:
    """float64 [U], the time of each user's last interaction; -inf where it is not known."""
    last_U = np.full(data.num_users, -np.inf)
    if data.times_N is not None:
        np.maximum.at(last_U, data.users_N, data.times_N)
    return last_U


def _in_order(
    grown: Interactions,
    old: Interactions,
    arrived: Arrived,
    old_where_N: np.ndarray,
    part: int | None,
) -> Interactions:
    """Of each user the old interactions, then the new ones.

    Args:
      old_where_N: bool, the old ones that are in it.
      part: which of the new ones are; None for all.
    """
    chosen_N = np.ones(len(arrived), bool) if part is None else arrived.parts_N == part
    users = np.concatenate([old.users_N[old_where_N], arrived.users_N[chosen_N]])
    items = np.concatenate([old.items_N[old_where_N], arrived.items_N[chosen_N]])
    kinds = None
    if old.kinds_N is not None and arrived.kinds_N is not None:
        kinds = np.concatenate([old.kinds_N[old_where_N], arrived.kinds_N[chosen_N]])
    order = np.argsort(users, kind="stable")
    counts_U = np.bincount(users, minlength=grown.num_users)
    offsets_U1 = np.concatenate([[0], np.cumsum(counts_U)]).astype(np.int64)
    return dataclasses.replace(
        grown,
        offsets_U1=offsets_U1,
        items_N=items[order].astype(np.int32),
        kinds_N=None if kinds is None else kinds[order],
    )


def _moved(cases: Cases, old: Interactions, asked: Interactions) -> Cases:
    """Cases of the old interactions where they are now."""
    shift_U = asked.offsets_U1[: old.num_users] - old.offsets_U1[:-1]
    return Cases(cases.users_E, cases.ends_E + shift_U[cases.users_E])


def _starts(asked: Interactions, old: Interactions) -> np.ndarray:
    """int64 [U], where each user's new interactions begin."""
    old_U = np.zeros(asked.num_users, np.int64)
    old_U[: old.num_users] = old.lengths_U
    return asked.offsets_U1[:-1] + old_U


def _held_out(
    asked: Interactions, old: Interactions, arrived: Arrived, rule: ContinualRule
) -> tuple[Arrived, tuple[Cases, Cases]]:
    """What is held out of users chosen by a hash of their names: for selection and for test."""
    starts_U, ends_U = _starts(asked, old), asked.offsets_U1[1:]
    everybody_U = np.ones(asked.num_users, bool)
    able = last_cases(asked, starts_U, ends_U, everybody_U, 1).users_E
    luck = [unit_interval(f"witness {asked.user_names[user]}") for user in able]
    able = able[np.argsort(luck, kind="stable")]
    half = -(-int(len(able) * rule.witnesses) // 2) or int(len(able) > 2)
    parts_U = np.full(asked.num_users, TRAIN)
    parts_U[able[:half]], parts_U[able[half : 2 * half]] = VALIDATION, TEST
    selection, test = (
        last_cases(asked, starts_U, ends_U, parts_U == part, rule.targets)
        for part in (VALIDATION, TEST)
    )
    return dataclasses.replace(arrived, parts_N=parts_U[arrived.users_N]), (selection, test)


def _own_cases(asked: Interactions, old: Interactions, arrived: Arrived) -> tuple[Cases, Cases]:
    """Every new interaction of a part, of the kind that is asked for, of users with a history."""
    place_N = _starts(asked, old)[arrived.users_N] + count_up(
        np.bincount(arrived.users_N, minlength=asked.num_users)
    )
    history_N = place_N > asked.offsets_U1[:-1][arrived.users_N]
    history_N &= asked.asked_N[place_N]
    selection, test = (
        Cases(arrived.users_N[where_N].astype(np.int32), place_N[where_N])
        for where_N in ((arrived.parts_N == part) & history_N for part in (VALIDATION, TEST))
    )
    return selection, test
