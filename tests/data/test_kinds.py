"""Feedback of several kinds, from a file's column to batches."""

import numpy as np
import pytest
from feedbacks import KINDS, events, with_dwell, write_shop

from distill_jax.core.errors import UserError
from distill_jax.data.build_interactions import Preparation, Rows, build_interactions
from distill_jax.data.continual_splits import ContinualRule, continual_split
from distill_jax.data.histories import Draws, Hiding, HistoryTable, hide, questions
from distill_jax.data.interactions import histories_of
from distill_jax.data.item_fields import BANDS, numbered
from distill_jax.data.kinds import kind_weights, parse_kinds
from distill_jax.data.load_interactions import load_interactions, load_ranking_split


def test_kinds_as_text():
    assert parse_kinds(None) is None and parse_kinds("") == {}
    found = parse_kinds("buy=1, cart=0.5,click")
    assert list(found.items()) == [("buy", 1.0), ("cart", 0.5), ("click", 1.0)]
    assert kind_weights("buy=2,click=0.5") == (2.0, 0.5)
    assert kind_weights("buy=2,click=2") == kind_weights("buy,click") == kind_weights(None) == ()
    for wrong in ("buy=x", "buy=-1", "buy=1,buy=2", "=1", "buy=inf", "buy=nan"):
        with pytest.raises(UserError, match=r"--kinds .* expected KIND=WEIGHT"):
            parse_kinds(wrong)
    with pytest.raises(UserError, match="the first kind is recommended"):
        parse_kinds("click=0,buy=1")


ROWS = Rows(
    ["a"] * 7 + ["b"] * 2,
    ["x", "x", "x", "y", "x", "z", "y", "z", "z"],
    np.arange(9.0),
    kinds=["click", "cart", "buy", "click", "buy", "click", "view", "click", "buy"],
)


def test_a_repeat_is_of_user_item_and_kind_and_the_rarest_is_asked_for():
    data = build_interactions("shop", ROWS)
    assert data.kind_names == ("cart", "view", "buy", "click")  # equals by name
    named = build_interactions("shop", ROWS, preparation=Preparation(kinds=("buy", "cart")))
    assert named.kind_names == ("buy", "cart")
    got = [(named.item_names[i], k) for i, k in zip(named.items_N, named.kinds_N, strict=True)]
    assert got == [("x", 1), ("x", 0), ("z", 0)]  # user a's second purchase of x is a repeat
    assert named.asked_N.tolist() == [False, True, True]
    assert any(
        "5 interactions of other kinds ('click', 'view') were dropped" in n for n in named.notes
    )
    assert any("'buy' (3 interactions, the first named) is asked for" in n for n in named.notes)
    assert any("the rarest" in n for n in data.notes)
    # The order of the names is part of the content: it says what is asked for.
    other = build_interactions("shop", ROWS, preparation=Preparation(kinds=("cart", "buy")))
    assert other.digest != named.digest and other.kinds_N.tolist() == [0, 1, 1]


def test_one_kind_or_none_is_the_data_as_ever():
    plain = Rows(ROWS.users, ROWS.items, ROWS.times_N)
    unread = build_interactions("shop", ROWS, preparation=Preparation(kinds=()))
    assert unread.kinds_N is None and unread.digest == build_interactions("shop", plain).digest
    one = build_interactions("shop", ROWS, preparation=Preparation(kinds=("buy",)))
    assert one.kind_names == () and len(one) == 2
    same = build_interactions("shop", ROWS._replace(kinds=["click"] * 9))
    assert same.digest == unread.digest


def test_what_is_refused():
    with pytest.raises(UserError, match=r"unknown kind of feedback 'bye'.*'buy'"):
        build_interactions("shop", ROWS, preparation=Preparation(kinds=("bye",)))
    lacking = Preparation(kinds=("buy", "bye"), kinds_occur=False)
    assert build_interactions("shop", ROWS, preparation=lacking).kind_names == ("buy", "bye")
    plain = Rows(ROWS.users, ROWS.items)
    with pytest.raises(UserError, match=r"no column that says of which kind.*--columns kind="):
        build_interactions("shop", plain, preparation=Preparation(kinds=("buy",)))
    many = ROWS._replace(users=["a"] * 40, items=["x"] * 40, times_N=None)
    with pytest.raises(UserError, match="holds 40 different words"):
        build_interactions("shop", many._replace(kinds=[f"k{n}" for n in range(40)]))


def test_files_name_kinds_as_shops_do_and_only_some_rows_are_rated(tmp_path):
    name = write_shop(tmp_path / "shop", events())
    data = load_interactions(name)
    assert set(data.kind_names) == set(KINDS) and data.kind_names[0] == "buy"
    rows = [("a", "x", "buy", ""), ("a", "y", "rate", "2"), ("a", "z", "rate", "5")]
    name = write_shop(tmp_path / "rated", rows, "user,item,what,rating")
    with pytest.raises(UserError, match=r"line 2: .*rating"):
        load_interactions(name)
    rated = load_interactions(name, preparation=Preparation(min_rating=4), columns={"kind": "what"})
    assert rated.item_names == ("x", "z")
    (tmp_path / "box").mkdir()
    lines = "user_id:token\titem_id:token\tevent:token\na\tx\tclick\na\tx\tbuy\nb\tx\tclick\n"
    (tmp_path / "box" / "box.inter").write_text(lines)
    assert load_interactions(f"files:{tmp_path / 'box'}").kind_names == ("buy", "click")


@pytest.mark.parametrize(
    "rule", ["leave-one-out", "temporal:0.5,0.2,first", "temporal:0.5,0.2,all"]
)
def test_what_is_asked_is_of_the_first_kind(rule, tmp_path):
    """By definition, user by user."""
    name = write_shop(tmp_path / "shop", events())
    split = load_ranking_split(name, split=rule)
    data, asked = split.data, {"validation": [], "test": []}
    cut = np.sort(data.times_N)[[int(0.5 * len(data)), int(0.7 * len(data))]]
    for user in range(data.num_users):
        start, stop = data.offsets_U1[user : user + 2]
        bought = [n for n in range(start, stop) if data.kinds_N[n] == 0]
        if rule == "leave-one-out":
            if len(bought) >= 2 and bought[-2] > start:
                asked["validation"].append(bought[-2])
                asked["test"].append(bought[-1])
                assert split.train_ends_U[user] == bought[-2]
            else:
                assert split.train_ends_U[user] == stop
            continue
        times = data.times_N
        periods = {
            "validation": [n for n in bought if cut[0] <= times[n] < cut[1]],
            "test": [n for n in bought if times[n] >= cut[1]],
        }
        for part, found in periods.items():
            wanted = found if rule.endswith("all") else found[:1]
            asked[part] += [n for n in wanted if n > start]
    for part, places in asked.items():
        assert getattr(split, part).ends_E.tolist() == places and len(places)
    assert "of the kind 'buy'" in split.protocol
    kinds, items = data.kinds_N[split.train_where_N], data.items_N[split.train_where_N]
    bought = np.bincount(items[kinds == 0], minlength=data.num_items)
    assert split.target_counts_I.tolist() == bought.tolist()
    assert split.train_counts_I.sum() == split.train_where_N.sum() > bought.sum()


@pytest.mark.parametrize("task, shift", [("next", 1), ("any", 0)])
def test_batches_say_kinds_of_histories_and_of_targets(task, shift, tmp_path):
    split = load_ranking_split(write_shop(tmp_path / "shop", events()))
    data, table = split.data, HistoryTable(split, task, 4, windows=True)
    batch = table.batch(np.arange(5), 4, 6)
    weights = (1.0, 0.5, 0.25)
    weighed = Draws(table, kind_weights=weights)(batch, 0, 0).target_weights_BT
    for row in range(5):
        user, later = table.users_R[row], table.later_R[row]
        for column in range(4):
            if not batch.where_BT[row, column]:
                continue
            place = split.train_ends_U[user] - later - shift - 4 + column
            assert batch.kinds_BT[row, column] == data.kinds_N[place]
            assert batch.target_kinds_BT[row, column] == data.kinds_N[place + shift]
            assert weighed[row, column] == np.float32(weights[data.kinds_N[place + shift]])
    assert batch.kinds_BT.dtype == batch.target_kinds_BT.dtype == np.int32
    assert weighed.dtype == np.float32


def test_a_question_tells_kinds_and_asks_for_the_first():
    histories = histories_of([[3, 4, 5], [6]], 9, kinds=[[2, 1, 0], [1]])
    batch = questions(histories, "next", 2, 3)
    assert batch.kinds_BT.tolist() == [[1, 0], [0, 1], [0, 0]] and batch.target_kinds_BT is None
    hidden = questions(histories, "hidden", 3, 2)
    assert hidden.kinds_BT.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert hidden.item_ids_BT[:, -1].tolist() == [10, 10]
    assert histories.take(np.array([1])).kinds_S.tolist() == [1]
    assert histories.taken_S.tolist() == [False, False, True, False]


def test_a_continual_run_reads_one_kind(tmp_path):
    name = write_shop(tmp_path / "shop", events())
    with pytest.raises(UserError, match=r"several kinds .*--kinds buy"):
        continual_split(load_interactions(name), ContinualRule())


HEADER = "user_id,product_id,event_time,event_type,dwell"


def test_fields_of_events_follow_their_events(tmp_path):
    """Through the order of time, what is dropped, histories, batches and questions."""
    rows = with_dwell(events())
    name = write_shop(tmp_path / "shop", rows[::-1], HEADER)
    split = load_ranking_split(name, columns={"fields": "dwell"})
    data = split.data
    assert data.field_names == ("dwell",) and data.field_sizes == (BANDS + 1,)
    kept = {(u, i, t, k): dwell for u, i, t, k, dwell in rows}
    users = [data.user_names[user] for user in data.users_N]
    keys = zip(users, data.items_N, data.times_N, data.kinds_N, strict=True)
    words = [kept[u, data.item_names[i], int(t), data.kind_names[k]] for u, i, t, k in keys]
    assert data.fields_NC[:, 0].tolist() == numbered(words)[0].tolist()
    assert any("events: field 'dwell' has 10 bands" in note for note in data.notes)
    assert load_interactions(name).digest != data.digest
    table = HistoryTable(split, "next", 4)
    batch = table.batch(np.arange(3), 4, 4)
    histories = split.train_histories().take(table.users_R[:3])
    for row in range(3):
        start, end = histories.offsets_E1[row : row + 2]
        expected = histories.fields_SC[start : end - 1][-4:]  # the last is a target alone
        np.testing.assert_array_equal(batch.fields_BTC[row, 4 - len(expected) :], expected)
    asked = questions(histories, "hidden", 3, 3).fields_BTC
    assert (asked[:, -1] == 0).all()
    np.testing.assert_array_equal(asked[0, :2], histories.fields_SC[: histories.offsets_E1[1]][-2:])
    whole = HistoryTable(split, "hidden", 4).batch(np.arange(3), 4, 3)
    hidden = hide(whole, Hiding(share=0.6), data.num_items, 0, 0)
    where = hidden.target_where_BT[..., None]
    assert where.any() and (whole.fields_BTC[where] > 0).any()
    np.testing.assert_array_equal(hidden.fields_BTC, np.where(where, 0, whole.fields_BTC))


def test_fields_that_are_not_there(tmp_path):
    name = write_shop(tmp_path / "shop", events())
    with pytest.raises(UserError, match=r"unknown column 'dwell'.*for --privileged"):
        load_interactions(name, columns={"fields": "dwell"})
    (tmp_path / "interactions.txt").write_text("a x\nb y\n")
    with pytest.raises(UserError, match="for --privileged"):
        load_interactions(f"files:{tmp_path}", columns={"fields": "dwell"})
