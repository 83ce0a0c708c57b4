"""Histories as batches: what is asked, what is drawn, and that no test item is seen."""

import dataclasses

import numpy as np
import pytest
from recsys import small_split

from distill_jax.core.errors import UserError
from distill_jax.core.ranking_types import Negatives
from distill_jax.data.histories import Draws, Hiding, HistoryTable, hide, questions
from distill_jax.data.interactions import Interactions, RankingSplit


@pytest.fixture(scope="module")
def split():
    return small_split()


def train_items(split, user):
    start, end = split.data.offsets_U1[user], split.train_ends_U[user]
    return split.data.items_N[start:end]


@pytest.mark.parametrize("length", [3, 20])
@pytest.mark.parametrize("task", ["next", "any", "hidden"])
def test_a_batch_is_the_naive_loop(split, task, length):
    table = HistoryTable(split, task, length)
    batch = table.batch(np.arange(len(table)), length, len(table) + 2)
    for row, user in enumerate(table.users_R):
        items = list(train_items(split, user))
        inputs, targets = (items[:-1], items[1:]) if task == "next" else (items, items)
        inputs, targets = inputs[-length:], targets[-length:]
        assert table.lengths_N[row] == len(inputs)
        padding = length - len(inputs)
        assert batch.example_ids_B[row] == user
        assert batch.item_ids_BT[row].tolist() == [0] * padding + [item + 1 for item in inputs]
        assert batch.where_BT[row].tolist() == [False] * padding + [True] * len(inputs)
        assert batch.targets_BT[row][padding:].tolist() == targets
    assert (batch.target_where_BT == batch.where_BT).all()
    assert (batch.example_ids_B[-2:] == -1).all() and not batch.where_BT[-2:].any()
    assert batch.item_ids_BT.dtype == batch.targets_BT.dtype == np.int32


@pytest.mark.parametrize("length", [1, 3, 20])
@pytest.mark.parametrize("task", ["next", "any", "hidden"])
def test_windows_ask_for_every_item_once(split, task, length):
    table = HistoryTable(split, task, length, windows=True)
    batch = table.batch(np.arange(len(table)), length, len(table) + 1)
    asked = {}
    for row in range(len(table) - 1, -1, -1):  # windows of a user: the newest comes first
        where = batch.where_BT[row]
        assert where.sum() == table.lengths_N[row]
        asked.setdefault(int(batch.example_ids_B[row]), []).extend(batch.targets_BT[row][where])
        assert batch.later_B[row] == table.later_R[row]
    for user in range(split.data.num_users):
        items = train_items(split, user).tolist()
        assert asked.get(user, []) == (items[1:] if task == "next" else items)
    assert table.share == 1 and "100%" in table.told
    newest = HistoryTable(split, task, length)
    assert newest.share == pytest.approx(newest.lengths_N.sum() / table.lengths_N.sum())
    assert (newest.digest != table.digest) and newest.batch(np.arange(1), 3, 1).later_B is None
    assert ("the newest" in newest.told) == (newest.share < 1)


def test_what_is_drawn_for_a_position_does_not_depend_on_the_windows(split):
    """But for items hidden so that a row has one at least."""
    user = int(np.argmax(split.train_ends_U - split.data.offsets_U1[:-1]))
    drawn = {}
    for length, windows in ((9, False), (3, True)):
        table = HistoryTable(split, "any", length, windows)
        rows = np.flatnonzero(table.users_R == user)[::-1]
        batch = Draws(table, None, Negatives(3))(table.batch(rows, length, len(rows)), 1, 2)
        drawn[length] = batch.negatives_BTN[batch.where_BT]
    np.testing.assert_array_equal(drawn[9], drawn[3][-9:])


def test_users_with_nothing_to_learn_from_are_left_out(split):
    counts = split.train_ends_U - split.data.offsets_U1[:-1]
    assert 1 in counts
    assert HistoryTable(split, "next").users_R.tolist() == np.flatnonzero(counts >= 2).tolist()
    assert HistoryTable(split, "any").users_R.tolist() == np.flatnonzero(counts >= 1).tolist()


def test_no_test_item_is_in_training(split):
    """The items that are asked for are changed; no training batch does."""
    items_N = split.data.items_N.copy()
    for cases in (split.validation, split.test):
        items_N[cases.ends_E] = (items_N[cases.ends_E] + 5) % split.data.num_items
    other = RankingSplit(
        dataclasses.replace(split.data, items_N=items_N),
        split.train_ends_U,
        split.validation,
        split.test,
        split.protocol,
    )
    for task in ("next", "any"):
        tables = [HistoryTable(one, task, 9) for one in (split, other)]
        batches = [
            Draws(table, None, Negatives(3))(table.batch(np.arange(len(table)), 9, 16), 0, 4)
            for table in tables
        ]
        for name in vars(batches[0]):
            np.testing.assert_array_equal(*(getattr(batch, name) for batch in batches))
        assert tables[0].digest != tables[1].digest


def test_an_empty_training_part_is_an_error(split):
    data = split.data
    empty = RankingSplit(data, data.offsets_U1[:-1], split.validation, split.test, "")
    with pytest.raises(UserError, match="no user has the 2 training interactions"):
        HistoryTable(empty, "next")


def test_negatives_are_items_the_user_did_not_take_each_equally_often(split):
    table = HistoryTable(split, "next")
    for user in table.users_R[:4]:
        drawn = table.others(np.asarray(user), 0, np.arange(6000))
        left = np.setdiff1d(np.arange(split.data.num_items), train_items(split, user))
        found, counts = np.unique(drawn, return_counts=True)
        assert found.tolist() == left.tolist()
        assert np.abs(counts / 6000 - 1 / len(left)).max() < 0.02


def test_who_took_everything_has_no_negatives():
    items = np.arange(4, dtype=np.int32)
    data = Interactions("all", ("ann",), tuple("abcd"), None, np.array([0, 4]), items)
    split = RankingSplit(data, np.array([4]), *small_cases(data), "")
    with pytest.raises(UserError, match="'ann' took every item"):
        HistoryTable(split, "any").others(np.zeros(1, np.int32), 0)


def small_cases(data):
    """Cases that pass the split's own checks: none of them is looked at."""
    from distill_jax.data.interactions import Cases

    class Silent(Cases):
        def __len__(self):
            return 1

    none = Silent(np.zeros(0, np.int32), np.zeros(0, np.int64))
    return none, none


@pytest.mark.parametrize("per", ["position", "row"])
def test_draws_do_not_depend_on_who_else_is_in_the_batch(split, per):
    table = HistoryTable(split, "hidden", 9)
    draws = Draws(table, Hiding(), Negatives(3, per))
    rows = np.arange(len(table))
    whole = draws(table.batch(rows, 9, 16), 1, 2)
    assert whole.negatives_BTN.shape == (16, 9 if per == "position" else 1, 3)
    for row in rows[::3]:
        alone = draws(table.batch(rows[row : row + 1], 12, 1), 1, 2)
        np.testing.assert_array_equal(alone.target_where_BT[0, 3:], whole.target_where_BT[row])
        np.testing.assert_array_equal(
            alone.negatives_BTN[0, -whole.negatives_BTN.shape[1] :], whole.negatives_BTN[row]
        )
    other = draws(table.batch(rows, 9, 16), 1, 3)
    assert (other.negatives_BTN != whole.negatives_BTN).any()
    assert (other.target_where_BT != whole.target_where_BT).any()


def test_hidden_items_are_the_targets_and_every_history_has_one(split):
    table = HistoryTable(split, "hidden", 9)
    plain = table.batch(np.arange(len(table)), 9, 16)
    hidden = 0
    for step in range(200):
        batch = hide(plain, Hiding(0.3, 0.0), split.data.num_items, 0, step)
        where = batch.target_where_BT
        assert (where <= plain.where_BT).all()
        assert where[: len(table)].any(axis=1).all() and not where[len(table) :].any()
        assert (batch.item_ids_BT[where] == split.data.num_items + 1).all()
        assert (batch.item_ids_BT[~where] == plain.item_ids_BT[~where]).all()
        assert (batch.targets_BT[where] + 1 == plain.item_ids_BT[where]).all()
        hidden += where.sum()
    share = hidden / (200 * plain.where_BT.sum())
    assert 0.3 < share < 0.4  # by chance 0.3, and one at least


def test_only_the_last_item_may_be_hidden(split):
    table = HistoryTable(split, "hidden", 9)
    plain = table.batch(np.arange(len(table)), 9, 16)
    batch = hide(plain, Hiding(0.3, 1.0), split.data.num_items, 0, 0)
    assert (batch.target_where_BT[:, -1] == plain.where_BT[:, -1]).all()
    assert not batch.target_where_BT[:, :-1].any()


@pytest.mark.parametrize("share, last", [(0, 0), (1, 0), (0.5, 1.5)])
def test_impossible_hiding_is_an_error(share, last):
    with pytest.raises(UserError, match="hiding needs"):
        Hiding(share, last)


def test_questions_end_with_the_newest_item_or_behind_it(split):
    histories = split.test.histories(split.data)
    batch = questions(histories, "next", 5, len(histories) + 1)
    for row in range(len(histories)):
        items = histories.items_S[histories.offsets_E1[row] : histories.offsets_E1[row + 1]][-5:]
        assert batch.item_ids_BT[row][5 - len(items) :].tolist() == (items + 1).tolist()
    hidden = questions(histories, "hidden", 6, len(histories) + 1)
    np.testing.assert_array_equal(hidden.item_ids_BT[:-1, :5], batch.item_ids_BT[:-1])
    assert (hidden.item_ids_BT[:-1, 5] == split.data.num_items + 1).all()
    assert hidden.example_ids_B[-1] == -1 and not hidden.where_BT[-1].any()
