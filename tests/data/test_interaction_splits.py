import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.data.build_interactions import Rows, build_interactions
from distill_jax.data.interaction_splits import (
    SplitRule,
    asked_at_most,
    leave_one_out,
    own_split,
    parse_split,
    split_interactions,
    temporal,
    temporal_at,
)


def data_of(users, items, times=None):
    times = None if times is None else np.array(times, np.float64)
    return build_interactions("toy", Rows(list(users), list(items), times))


# ann takes a b c d at 0 1 2 3, bob takes c a at 2 5, cy takes b a d at 4 5 6
DATA = data_of("aaaabbccc", "abcdcabad", [0, 1, 2, 3, 2, 5, 4, 5, 6])


def asked(split, cases):
    """[(user, history, target)] by name."""
    names = np.array(split.data.item_names)
    histories = cases.histories(split.data)
    return [
        (split.data.user_names[user], "".join(names[part.items_S]), str(names[target]))
        for row, (user, target) in enumerate(
            zip(cases.users_E, cases.targets_E(split.data), strict=True)
        )
        for part in [histories.part(row, row + 1)]
    ]


def learned(split):
    names = np.array(split.data.item_names)
    histories = split.train_histories()
    return ["".join(names[histories.part(u, u + 1).items_S]) for u in range(len(histories))]


def test_leave_one_out():
    split = leave_one_out(DATA)
    assert learned(split) == ["ab", "ca", "b"]
    assert asked(split, split.validation) == [("a", "ab", "c"), ("c", "b", "a")]
    assert asked(split, split.test) == [("a", "abc", "d"), ("c", "ba", "d")]
    assert "last item of 2 users" in split.protocol and "1 users with fewer" in split.protocol
    assert "leaks the future of other users" in split.protocol


def test_leave_one_out_needs_three():
    with pytest.raises(UserError, match="no user has three"):
        leave_one_out(data_of("aab", "xyz"))


def test_temporal_asks_for_the_first_item_of_each_period():
    split = temporal_at(DATA, 2, 5)
    assert learned(split) == ["ab", "", ""]
    assert asked(split, split.validation) == [("a", "ab", "c")]
    assert asked(split, split.test) == [("b", "c", "a"), ("c", "b", "a")]
    assert "time 2" in split.protocol and "first item of 2 users" in split.protocol


def test_temporal_with_all_and_last_targets():
    split = temporal_at(DATA, 2, 5, targets="all")
    assert asked(split, split.validation) == [("a", "ab", "c"), ("a", "abc", "d")]
    assert asked(split, split.test) == [("b", "c", "a"), ("c", "b", "a"), ("c", "ba", "d")]
    split = temporal_at(DATA, 2, 5, targets="last")
    assert asked(split, split.test) == [("b", "c", "a"), ("c", "ba", "d")]


def test_users_who_begin_with_the_test_are_counted():
    split = temporal_at(DATA, 2, 4, targets="all")
    assert asked(split, split.test) == [("b", "c", "a"), ("c", "b", "a"), ("c", "ba", "d")]
    told = "; 1 users have no history before the test, their first interaction is not asked"
    assert split.protocol.endswith(told)
    assert "no history" not in temporal_at(DATA, 2, 5, targets="all").protocol
    own = own_split(DATA, np.array([0, 0, 1, 2, 0, 2, 2, 2, 2]))
    assert own.protocol.endswith(told)


def test_moments_are_printed_as_dates():
    day = 86400.0
    data = data_of("aaabbb", "xyzxyz", [1.6e9 + n * day for n in (0, 1, 2, 0, 1, 2)])
    split = temporal_at(data, 1.6e9 + day, 1.6e9 + 2 * day)
    assert "before 2020-09-14 12:26:40 UTC" in split.protocol


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"train": 0.9, "validation": 0.1}, "leave something for test"),
        ({"train": 0.0}, "must be positive"),
        ({"train": 0.05, "validation": 0.1}, "no interaction is earlier|earlier and a later"),
        ({"targets": "firs"}, "Did you mean 'first'"),
    ],
)
def test_temporal_refuses(options, match):
    with pytest.raises(UserError, match=match):
        temporal(DATA, **options)


def test_temporal_needs_times_and_cases():
    with pytest.raises(UserError, match=r"has no times.*leave-one-out"):
        temporal(data_of("aaabbb", "xyzxyz"))
    with pytest.raises(UserError, match="no user of the test period has a history"):
        temporal_at(DATA, 2, 7)


def test_own_split():
    data = data_of("aaaabbccc", "abcdcabad")
    split = own_split(data, np.array([0, 0, 1, 2, 0, 2, 1, 2, 2]))
    assert learned(split) == ["ab", "c", ""]
    assert asked(split, split.validation) == [("a", "ab", "c")]  # cy has no history then
    assert asked(split, split.test) == [
        ("a", "abc", "d"),
        ("b", "c", "a"),
        ("c", "b", "a"),
        ("c", "ba", "d"),
    ]
    with pytest.raises(UserError, match="train split has no interaction"):
        own_split(data, np.array([1, 1, 1, 2, 1, 2, 1, 2, 2]))


ROWS = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from("uvwxyz"), st.integers(0, 30)),
    min_size=12,
    max_size=60,
)


@given(ROWS, st.sampled_from(["leave-one-out", "temporal", "temporal:.5,.2,all"]))
def test_nothing_asked_is_learned_and_histories_come_before(rows, text):
    users, items, times = zip(*rows, strict=True)
    data = data_of(users, items, times)
    try:
        split = split_interactions(data, parse_split(text))
    except UserError as error:
        assert text.startswith("temporal") or data.lengths_U.max() < 3, error
        return
    starts = data.offsets_U1[:-1]
    latest = max((data.times_N[split.train_where_N]), default=-1)
    for cases in (split.validation, split.test):
        assert len(cases)
        assert not split.train_where_N[cases.ends_E].any()
        assert (cases.ends_E > starts[cases.users_E]).all()
        if text.startswith("temporal"):
            assert (data.times_N[cases.ends_E] > latest).all()
    # With duplicates dropped an item to be found is in no history of the same user, nor in
    # the training part.
    pairs = set(zip(data.users_N[split.train_where_N], data.items_N[split.train_where_N]))  # noqa: B905
    for cases in (split.validation, split.test):
        assert not pairs & set(zip(cases.users_E, cases.targets_E(data)))  # noqa: B905
    both = set(split.validation.ends_E.tolist()) & set(split.test.ends_E.tolist())
    assert not both


def test_splits_in_text():
    assert parse_split("leave-one-out") == SplitRule("leave-one-out")
    assert parse_split("temporal") == SplitRule("temporal", 0.8, 0.1, "first")
    assert parse_split("temporal:0.7,0.2") == SplitRule("temporal", 0.7, 0.2)
    assert parse_split("temporal:0.7,0.2,all") == SplitRule("temporal", 0.7, 0.2, "all")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("leave-one-in", "Did you mean 'leave-one-out'"),
        ("leave-one-out:2", "unknown split"),
        ("temporal:", "two shares"),
        ("temporal:0.8", "two shares"),
        ("temporal:a,b", "two shares"),
        ("temporal:.8,.1,all,x", "two shares"),
        ("temporal:.8,.1,al", "Did you mean 'all'"),
    ],
)
def test_wrong_splits_in_text(text, match):
    with pytest.raises(UserError, match=match):
        parse_split(text)


def test_data_without_a_split_of_its_own():
    with pytest.raises(UserError, match="brings no split"):
        split_interactions(DATA, parse_split("files"))


def test_some_users_are_asked():
    data = data_of([str(n // 4) for n in range(160)], [str(n % 7) for n in range(160)])
    split = leave_one_out(data)
    some = asked_at_most(split, 10)
    assert len(some.test) == len(some.validation) == 10
    np.testing.assert_array_equal(some.test.users_E, some.validation.users_E)
    kept = np.isin(split.test.users_E, some.test.users_E)
    np.testing.assert_array_equal(split.test.ends_E[kept], some.test.ends_E)
    assert some.test.users_E.max() > 12  # drawn, not the first
    np.testing.assert_array_equal(some.train_ends_U, split.train_ends_U)
    assert some.protocol.endswith("10 of 40 users, drawn once, are asked")
    assert some.digest != split.digest and asked_at_most(split, 10).digest == some.digest
    assert asked_at_most(split, 40) is split
