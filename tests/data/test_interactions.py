import dataclasses

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.interactions import Cases, Interactions, RankingSplit, histories_of

DATA = Interactions(
    name="toy",
    user_names=("ann", "bob", "cy"),
    item_names=("a", "b", "c", "d"),
    item_texts=("A", "B", "C", "D"),
    offsets_U1=np.array([0, 3, 3, 7]),
    items_N=np.array([0, 1, 2, 3, 3, 1, 0], np.int32),
    times_N=np.array([1, 2, 2, 0, 5, 6, 7]),
    ratings_N=np.ones(7, np.float32),
)
CASES = Cases(np.array([0, 2, 2], np.int32), np.array([2, 3, 6]))


def test_what_a_case_tells_and_asks():
    assert CASES.targets_E(DATA).tolist() == [2, 3, 0]
    histories = CASES.histories(DATA)
    assert histories.offsets_E1.tolist() == [0, 2, 2, 5]
    assert histories.items_S.tolist() == [0, 1, 3, 3, 1]
    assert histories.rows_S.tolist() == [0, 0, 2, 2, 2] and len(histories) == 3


def test_left_padding_keeps_the_newest():
    padded = CASES.histories(DATA).padded(2)
    assert padded.tolist() == [[1, 2], [0, 0], [4, 2]] and padded.dtype == np.int32
    assert CASES.histories(DATA).padded(4).tolist() == [[0, 0, 1, 2], [0] * 4, [0, 4, 4, 2]]


def test_matrix_counts_an_item_once():
    expected = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1]]
    matrix = CASES.histories(DATA).matrix()
    assert matrix.toarray().tolist() == expected and matrix.dtype == np.float32


def test_parts_are_what_they_would_be_alone():
    histories = CASES.histories(DATA)
    part = histories.part(1, 3)
    assert part.users_E.tolist() == [2, 2] and part.offsets_E1.tolist() == [0, 0, 3]
    assert part.padded(3).tolist() == histories.padded(3)[1:].tolist()


def test_rows_are_taken_in_any_order():
    histories = CASES.histories(DATA)
    taken = histories.take(np.array([2, 0, 2]))
    assert taken.users_E.tolist() == [2, 0, 2]
    assert taken.padded(3).tolist() == histories.padded(3)[[2, 0, 2]].tolist()
    assert len(histories.take(np.zeros(0, int)).items_S) == 0


def test_histories_of_strangers():
    histories = histories_of([[3, 0], [], [1]], num_items=4)
    assert histories.users_E.tolist() == [-1, -1, -1]
    assert histories.padded(2).tolist() == [[4, 1], [0, 0], [0, 2]]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"items_N": np.array([0, 1, 2, 3, 3, 1, 4], np.int32)}, r"0\.\.3"),
        ({"item_names": ("a", "b", "c", "c")}, "item names are not unique"),
        ({"item_texts": ("A",)}, "1 texts for 4 items"),
        ({"offsets_U1": np.array([0, 3, 3, 6])}, "run from 0"),
        ({"offsets_U1": np.array([0, 4, 3, 7])}, "ascend"),
        ({"times_N": np.array([1, 2, 1, 0, 5, 6, 7])}, "chronological"),
        ({"ratings_N": np.ones(6, np.float32)}, "6 entries"),
    ],
)
def test_contradictions_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(DATA, **changes)


def test_no_interaction_is_an_error():
    with pytest.raises(UserError, match="no interaction"):
        dataclasses.replace(DATA, items_N=np.zeros(0, np.int32), offsets_U1=np.zeros(4))


def test_digest_is_that_of_the_content():
    assert dataclasses.replace(DATA, name="other", notes=("x",)).digest == DATA.digest
    changed = [
        {"items_N": DATA.items_N[::-1].copy()},
        {"times_N": None},
        {"item_texts": None},
        {"user_names": ("ann", "bob", "di")},
        {"offsets_U1": np.array([0, 3, 4, 7]), "times_N": None},
    ]
    digests = {dataclasses.replace(DATA, **change).digest for change in changed}
    assert len(digests | {DATA.digest}) == len(changed) + 1


def split(ends=(2, 3, 6), cases=CASES):
    return RankingSplit(DATA, np.array(ends), cases, cases, "by hand")


def test_a_split_knows_its_training_part():
    made = split(ends=(2, 3, 3))
    assert made.train_where_N.tolist() == [True, True] + [False] * 5
    assert made.train_counts_I.tolist() == [1, 1, 0, 0]
    assert made.train_matrix().toarray().tolist() == [[1, 1, 0, 0], [0] * 4, [0] * 4]
    assert made.train_histories().padded(2).tolist() == [[1, 2], [0, 0], [0, 0]]
    assert made.digest != split(ends=(1, 3, 3)).digest


def test_a_target_in_training_is_refused():
    with pytest.raises(ValueError, match="training part"):
        split(ends=(3, 3, 3))
    with pytest.raises(ValueError, match="behind its user"):
        split(ends=(2, 3, 3), cases=Cases(np.array([0], np.int32), np.array([3])))
    with pytest.raises(ValueError, match="inside each user"):
        split(ends=(2, 3, 8))
