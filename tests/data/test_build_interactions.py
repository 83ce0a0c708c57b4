import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.data.build_interactions import Preparation, Rows, build_interactions

ROWS = Rows(
    users=["9", "10", "9", "10", "9", "9"],
    items=["x", "y", "y", "x", "x", "z"],
    times_N=np.array([5.0, 1, 3, 1, 9, 4]),
    ratings_N=np.array([5, 1, 4, 3, 2, 5], np.float32),
)


def build(**options):
    return build_interactions("toy", ROWS, preparation=Preparation(**options))


def taken(data):
    """user -> [(item, time)]"""
    names = [data.item_names[i] for i in data.items_N]
    pairs = list(zip(names, data.times_N.tolist(), strict=True))
    ends = zip(data.user_names, data.offsets_U1, data.offsets_U1[1:], strict=False)
    return {user: pairs[start:stop] for user, start, stop in ends}


def test_order_names_and_the_first_of_repeats():
    data = build()
    assert data.user_names == ("9", "10") and data.item_names == ("x", "y", "z")
    assert taken(data) == {"9": [("y", 3), ("z", 4), ("x", 5)], "10": [("y", 1), ("x", 1)]}
    assert data.ratings_N.tolist() == [4, 5, 5, 1, 3] and data.ratings_N.dtype == np.float32
    assert data.items_N.dtype == np.int32 and data.offsets_U1.dtype == np.int64
    assert data.notes == (
        "1 of 6 interactions repeat an item of the user: the first of them counts (--repeats)",
        "1 interactions have the time of the one before them: the file's order decides",
    )


def test_the_last_or_all_of_repeats():
    assert taken(build(repeats="last"))["9"] == [("y", 3), ("z", 4), ("x", 9)]
    kept = build(repeats="keep")
    assert taken(kept)["9"] == [("y", 3), ("z", 4), ("x", 5), ("x", 9)]
    assert kept.repeats and not build().repeats
    assert kept.notes[0] == (
        "1 of 6 interactions repeat an item of the user: all count, and what somebody took is "
        "recommended again"
    )


def test_kept_repeats_are_other_data_though_there_be_none():
    """What is in a history competes there: models are measured otherwise."""
    rows = Rows(["a", "a", "b"], ["x", "y", "x"])
    digests = {
        repeats: build_interactions("toy", rows, preparation=Preparation(repeats)).digest
        for repeats in ("first", "last", "keep")
    }
    assert digests["first"] == digests["last"] != digests["keep"]


def test_ratings_of_nothing_and_below_are_counted():
    rows = ROWS._replace(ratings_N=np.array([5, 0, -1, 3, 2, 5], np.float32))
    assert build_interactions("toy", rows).notes[0] == (
        "2 of 6 interactions are rated 0 or below and count like the others: --min-rating drops "
        "them"
    )
    liked = build_interactions("toy", rows, preparation=Preparation(min_rating=0.5))
    assert liked.notes[0] == "2 of 6 interactions are rated below 0.5 and were dropped"
    assert "rated" not in "".join(build().notes)


def test_repeats_of_an_own_split_are_counted_where_they_fall():
    rows = Rows(list("aaaabb"), list("xyxyxx"), parts_N=np.array([0, 0, 1, 2, 0, 2]))
    data = build_interactions("toy", rows)
    assert data.notes == (
        "3 of 6 interactions repeat an item of the user: the first of them counts (--repeats)",
        "1 validation and 2 test interactions are among the repeats, and not asked for",
    )
    inside = Rows(list("aab"), list("xxx"), parts_N=np.array([0, 0, 2]))
    assert len(build_interactions("toy", inside).notes) == 1


def test_ratings_are_filtered_before_repeats():
    assert taken(build(min_rating=3)) == {"9": [("y", 3), ("z", 4), ("x", 5)], "10": [("x", 1)]}
    with pytest.raises(UserError, match="no ratings"):
        build_interactions("toy", ROWS._replace(ratings_N=None), preparation=Preparation("keep", 3))


def test_rare_users_and_items_go_until_none_is_left_over():
    # z is taken once; without it user 9 has two interactions, as user 10.
    assert set(build(min_item_count=2).item_names) == {"x", "y"}
    with pytest.raises(UserError, match=r"no interaction is left.*at least 3"):
        build(min_user_count=3, min_item_count=2)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=60),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_the_core_is_the_largest_set_with_enough_of_each(pairs, least_user, least_item):
    rows = Rows([str(user) for user, _ in pairs], [str(item) for _, item in pairs])
    core = set(pairs)
    while True:
        users = collections.Counter(user for user, _ in core)
        items = collections.Counter(item for _, item in core)
        kept = {(u, i) for u, i in core if users[u] >= least_user and items[i] >= least_item}
        if kept == core:
            break
        core = kept
    options = Preparation(min_user_count=least_user, min_item_count=least_item)
    if not core:
        with pytest.raises(UserError, match="no interaction is left"):
            build_interactions("toy", rows, preparation=options)
        return
    data = build_interactions("toy", rows, preparation=options)
    users = [data.user_names[u] for u in data.users_N]
    found = [(int(u), int(data.item_names[i])) for u, i in zip(users, data.items_N, strict=True)]
    assert set(found) == core and len(found) == len(core)


@given(st.permutations(range(6)))
def test_the_order_of_rows_with_different_times_does_not_matter(order):
    times = np.array([5.0, 1, 3, 2, 9, 4])
    shuffled = Rows(
        [ROWS.users[n] for n in order],
        [ROWS.items[n] for n in order],
        times[list(order)],
        ROWS.ratings_N[list(order)],
    )
    straight = build_interactions("toy", ROWS._replace(times_N=times))
    assert build_interactions("toy", shuffled).digest == straight.digest


def test_texts_and_items_nobody_took():
    texts = {"x": "X", "w": "W", "y": "", "z": "Z"}
    data = build_interactions("toy", ROWS, texts=texts)
    assert data.item_texts == ("X", "", "Z")
    assert "1 of 3 items have no text" in data.notes
    assert "1 items of the catalogue have no interaction and are left out" in data.notes
    whole = build_interactions(
        "toy", ROWS, texts=texts, preparation=Preparation(keep_unseen_items=True)
    )
    assert whole.item_names == ("w", "x", "y", "z") and whole.item_texts[0] == "W"
    assert taken(whole) == taken(data)


def test_wrong_options():
    with pytest.raises(UserError, match="Did you mean 'first'"):
        Preparation(repeats="firs")
    with pytest.raises(UserError, match="min_user_count is 0; expected at least 1"):
        Preparation(min_user_count=0)
