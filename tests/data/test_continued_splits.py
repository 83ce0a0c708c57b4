"""Interactions that come to a finished run: numbers stay, what is held out stays held out."""

import dataclasses

import numpy as np
import pytest
from recsys import small_split

from distill_jax.core.errors import UserError
from distill_jax.data.build_interactions import Preparation, Rows, build_interactions
from distill_jax.data.continual_splits import ContinualRule
from distill_jax.data.continued_splits import TEST, TRAIN, VALIDATION, as_old, continued
from distill_jax.data.interaction_splits import parse_split, split_interactions

OLD = small_split(num_users=30, num_items=20)
RULE = ContinualRule(witnesses=0.4, targets=2)


def rows_of(data):
    return [
        (data.user_names[u], data.item_names[i])
        for u, i in zip(data.users_N, data.items_N, strict=True)
    ]


def sequences(data, ends_U=None):
    """User -> names of the items, oldest first."""
    ends_U = data.offsets_U1[1:] if ends_U is None else ends_U
    spans = zip(data.user_names, data.offsets_U1[:-1], ends_U, strict=True)
    names = np.array(data.item_names)
    return {user: names[data.items_N[start:end]].tolist() for user, start, end in spans}


@pytest.fixture(scope="module")
def new():
    """Old users go on with old items and new ones; new users come, and one repeats an item."""
    old, rows = sequences(OLD.data), []
    for number in range(20):
        user = f"user {number}"
        unknown = [name for name in OLD.data.item_names if name not in old[user]][:2]
        rows += [(user, name) for name in (*unknown, "another", f"new {number % 3}")]
    rows += [(f"a new user {n}", name) for n in range(8) for name in ("item 3", "new 1", "item 5")]
    rows.append(("user 5", old["user 5"][0]))
    users, items = zip(*rows, strict=True)
    texts = {name: f"a text of {name}" for name in items}
    return build_interactions("later", Rows(users, items, np.arange(len(rows))), texts=texts)


@pytest.fixture(scope="module")
def went_on(new):
    return continued(OLD, new, None, RULE)


def test_numbers_stay_and_new_ones_come_after(went_on, new):
    split, _ = went_on
    for data in (split.data, split.asked):
        assert data.item_names[:20] == OLD.data.item_names
        assert data.user_names[:30] == OLD.data.user_names
        assert set(data.item_names[20:]) == {"another", "new 0", "new 1", "new 2"}
        assert data.item_texts[:20] == OLD.data.item_texts and data.item_texts[20] == (
            f"a text of {data.item_names[20]}"
        )
    assert len(split.data.user_names) == 38


def test_the_old_part_is_learned_as_it_was_and_the_new_behind_it(went_on, new):
    split, arrived = went_on
    before = sequences(split.data, split.old_ends_U)
    learned = sequences(split.data, split.new_ends_U)
    old, later = sequences(OLD.data, OLD.train_ends_U), sequences(new)
    held = {split.data.user_names[u] for u in arrived.users_N[arrived.parts_N != TRAIN]}
    for user in split.data.user_names:
        assert before[user] == old.get(user, [])
        added = [] if user in held else later.get(user, [])
        added = [name for name in added if name not in sequences(OLD.data).get(user, [])]
        assert learned[user] == before[user] + added
    assert {VALIDATION, TEST} < set(arrived.parts_N) and len(held) == 12  # 40% of 28
    (note,) = arrived.notes
    assert note.startswith("1 of 105 new interactions repeat an item")


def asked_of(cases, data):
    """(user, history, target) of every case, by name."""
    names, found = np.array(data.item_names), []
    for user, end in zip(cases.users_E, cases.ends_E, strict=True):
        history = names[data.items_N[data.offsets_U1[user] : end]].tolist()
        found.append((data.user_names[user], history, str(names[data.items_N[end]])))
    return found


def test_the_old_cases_are_asked_as_they_were(went_on):
    split, _ = went_on
    for cases, own in ((split.selection[0], OLD.validation), (split.old, OLD.test)):
        assert asked_of(cases, split.asked) == asked_of(own, OLD.data)


def test_the_new_cases_come_after_all_that_was_before(went_on, new):
    split, _ = went_on
    old, later = sequences(OLD.data), sequences(new)
    learned = sequences(split.data, split.new_ends_U)
    users = set()
    for cases in (split.selection[1], split.new):
        for user, history, target in asked_of(cases, split.asked):
            whole = old.get(user, []) + [n for n in later[user] if n not in old.get(user, [])]
            place = len(history)
            assert history == whole[:place] and target == whole[place]
            assert place >= len(whole) - 2 and target not in learned[user]
            users.add(user)
    assert len(users) == 12


def test_what_is_learned_is_told_from_what_is_asked_by_the_digest(went_on, new):
    split, _ = went_on
    other = continued(OLD, new, None, dataclasses.replace(RULE, targets=1))[0]
    assert split.update().digest != other.update().digest
    assert split.update().digest != split.after().digest
    idle = split.rehearsed(3, 0)
    assert idle.sum() == 3 and not (idle & split.grown_U).any()
    assert split.update().learned_U.sum() == split.after().learned_U.sum()


def test_an_own_split_of_the_new_ones_is_kept(new):
    parts = np.tile([TRAIN, VALIDATION, TEST], len(new))[: len(new)]
    order = np.lexsort([parts, new.users_N])
    split, arrived = continued(OLD, new, parts[order], RULE)
    assert len(split.new) == (arrived.parts_N == TEST).sum()
    tested = {(user, target) for user, _, target in asked_of(split.new, split.asked)}
    learned = sequences(split.data, split.new_ends_U)
    assert not any(target in learned[user] for user, target in tested)


def test_repeats_stay_where_the_run_keeps_them(new):
    keeps = dataclasses.replace(OLD, data=dataclasses.replace(OLD.data, repeats=True))
    assert continued(keeps, new, None, RULE)[1].notes == ()


def test_late_ones_are_told(new):
    times = np.arange(len(OLD.data), dtype=float) + 1000
    old = dataclasses.replace(OLD, data=dataclasses.replace(OLD.data, times_N=times))
    split, arrived = continued(old, new, None, RULE)
    assert arrived.notes[-1] == (
        "81 new interactions are older than the user's last: they count as later"
    )
    rows = [(f"user {n}", "newest", 1000 + n) for n in range(10)]
    rows += [(f"a new user {n}", "newest", n) for n in range(8)]
    users, items, times = zip(*rows, strict=True)
    third = build_interactions("third", Rows(users, items, np.array(times, float)))
    notes = continued(as_old(old, split, "later"), third, None, RULE, arrived.last_U)[1].notes
    ends = dict(zip(old.data.user_names, old.data.offsets_U1[1:], strict=True))
    late = sum(999 + ends[user] > time for user, _, time in rows[:10]) + 8
    assert notes == (
        f"{late} new interactions are older than the user's last: they count as later",
    )


@pytest.fixture(scope="module")
def twice(went_on):
    """What came out, and what comes to it after that."""
    old = as_old(OLD, went_on[0], "later")
    asked = sequences(old.asked_data)
    rows = []
    for number in range(10, 36):
        user = old.data.user_names[number]
        unknown = [name for name in old.data.item_names if name not in asked[user]][:2]
        rows += [(user, name) for name in (*unknown, "the newest")]
    held = went_on[0].new.users_E[0]
    rows.append((old.data.user_names[held], old.asked_data.item_names[OLD.data.items_N[0]]))
    users, items = zip(*rows, strict=True)
    newest = build_interactions("newest", Rows(users, items, np.arange(len(rows))))
    return old, newest, *continued(old, newest, None, RULE)


def test_what_came_out_is_old_for_what_comes_next(went_on, twice):
    old, _, split, _ = twice
    first = went_on[0]
    assert sequences(old.data, old.train_ends_U) == sequences(first.data, first.new_ends_U)
    asked = [*asked_of(first.old, first.asked), *asked_of(first.new, first.asked)]
    assert sorted(asked_of(split.old, split.asked)) == sorted(asked)
    chose = [case for cases in first.selection for case in asked_of(cases, first.asked)]
    assert sorted(asked_of(split.selection[0], split.asked)) == sorted(chose)
    assert old.protocol == (
        f"{OLD.protocol}, and {len(first.new)} interactions of later that came later"
    )


def test_the_third_part_is_learned_behind_both_and_nothing_held_out_is(went_on, twice):
    old, newest, split, arrived = twice
    before = sequences(split.data, split.old_ends_U)
    learned = sequences(split.data, split.new_ends_U)
    earlier, latest = sequences(old.data, old.train_ends_U), sequences(newest)
    taken = sequences(old.asked_data)
    held = {split.data.user_names[u] for u in arrived.users_N[arrived.parts_N != TRAIN]}
    for user in split.data.user_names:
        assert before[user] == earlier.get(user, [])
        added = [] if user in held else latest.get(user, [])
        added = [name for name in added if name not in taken.get(user, [])]
        assert learned[user] == before[user] + added
    for cases in (split.old, *split.selection):
        for user, _, target in asked_of(cases, split.asked):
            assert target not in learned[user]
    assert split.data.item_names[-1] == "the newest" and held


def test_nothing_new_and_too_little_are_refused(new):
    users, items = zip(*rows_of(OLD.data), strict=True)
    with pytest.raises(UserError, match="nothing is new"):
        continued(OLD, build_interactions("same", Rows(users, items)), None, RULE)
    few = build_interactions("few", Rows(["user 0", "x"], ["new 1", "item 2"]))
    with pytest.raises(UserError, match="of too few users something is new"):
        continued(OLD, few, None, RULE)
    own = build_interactions("own", Rows(["user 0", "user 1", "x"], ["new 1"] * 3))
    with pytest.raises(UserError, match="of its test nothing is asked for"):
        continued(OLD, own, np.array([0, 1, 2]), RULE)


KINDS = ("buy", "cart", "click")


def bought(number, more=()):
    """Interactions of three kinds by (user, item, kind); users are ``number`` of them."""
    rows, kinds = [], []
    for user in range(number):
        for step, kind in enumerate(("click", "buy", "click", "buy", "cart", "buy")):
            rows.append((f"u{user:02}", f"i{(user + step) % 9}"))
            kinds.append(kind)
    rows += [(user, item) for user, item, _ in more]
    kinds += [kind for *_, kind in more]
    users, items = zip(*rows, strict=True)
    made = Rows(users, items, np.arange(len(rows)), kinds=kinds)
    return build_interactions(
        "kinds", made, preparation=Preparation(kinds=KINDS, kinds_occur=False)
    )


def test_of_several_kinds_the_first_is_asked_for_and_all_are_learned():
    old = split_interactions(bought(12), parse_split("leave-one-out"))
    more = [(f"u{n:02}", f"n{n % 3}", kind) for n in range(12) for kind in ("click", "buy", "cart")]
    clicks = [(f"u{n:02}", "n9", "click") for n in range(12)]
    new = bought(0, [*more, *clicks, ("u00", "i1", "buy"), ("u00", "i0", "buy")])
    split, arrived = continued(old, new, None, RULE)
    assert arrived.notes[0].startswith("1 of 50 new interactions repeat")  # u00 has bought i1
    data = split.asked
    assert data.kind_names == KINDS and len(data.kinds_N) == len(data)
    asked = asked_of(split.new, data)
    assert asked and {data.kinds_N[end] for end in split.new.ends_E} == {0}
    for user, history, target in asked:
        assert target[0] in "ni" and "n" in "".join(history[6:]) and user in data.user_names
    learned = sequences(split.data, split.new_ends_U)
    held = {split.data.user_names[u] for u in arrived.users_N[arrived.parts_N != TRAIN]}
    free = next(name for name in split.data.user_names if name not in held and name != "u00")
    number = int(free[1:]) % 3
    assert learned[free][-4:-1] == [f"n{number}"] * 3
    end = split.new_ends_U[split.data.user_names.index(free)]
    assert split.data.kinds_N[end - 4 : end].tolist() == [2, 0, 1, 2]


def test_who_bought_nothing_new_is_not_held_out():
    old = split_interactions(bought(12), parse_split("leave-one-out"))
    more = [(f"u{n:02}", "new", "buy" if n < 5 else "click") for n in range(12)]
    split, _ = continued(old, bought(0, more), None, ContinualRule(witnesses=0.8, targets=2))
    witnesses = {*split.selection[1].users_E, *split.new.users_E}
    assert {split.asked.user_names[user] for user in witnesses} <= {f"u{n:02}" for n in range(5)}
    assert len(witnesses) == 4


def test_other_kinds_and_privileged_fields_are_refused(new):
    with pytest.raises(UserError, match="feedback of the kinds buy, cart, click, where the"):
        continued(OLD, bought(3), None, RULE)
    old = split_interactions(bought(12), parse_split("leave-one-out"))
    with pytest.raises(UserError, match="'later' has no kinds of feedback, where the run learned"):
        continued(old, new, None, RULE)
    fields = {
        "field_names": ("dwell",),
        "field_sizes": (2,),
        "fields_NC": np.ones((len(OLD.data), 1)),
    }
    told = dataclasses.replace(OLD, data=dataclasses.replace(OLD.data, **fields))
    with pytest.raises(UserError, match=r"has privileged fields of events \(dwell\)"):
        continued(told, new, None, RULE)
