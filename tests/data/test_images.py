"""Images travel as text does: plans, batches, padding rows, hidden and changed labels."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.data.images import ImageDataset, ImageTable
from distill_jax.data.plan import (
    PlannedBatch,
    choose_lengths,
    make_batch,
    plan_epoch,
    plan_in_order,
)
from distill_jax.data.subsets import labelled_rows


def image_table(count, *, scores=False):
    """Image n is filled with n / 100."""
    pixels = np.arange(count, dtype=np.float32)[:, None, None, None] / np.float32(100)
    return ImageTable(
        ids=tuple(f"e{n}" for n in range(count)),
        pixels_NHWC=np.tile(pixels, (1, 2, 3, 1)),
        labels_N=np.arange(count, dtype=np.int32) % 3,
        scores_N=np.arange(count, dtype=np.float32) if scores else None,
    )


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_of_batches_gives_every_image_back_once(count, batch_size, seed):
    table = image_table(count)
    shapes = choose_lengths(table.lengths_N, batch_size=batch_size)
    assert shapes == (1,)
    in_order = plan_in_order(table.lengths_N, shapes, batch_size=batch_size)
    shuffled = plan_epoch(table.lengths_N, shapes, batch_size=batch_size, seed=seed, epoch=0)
    for plan in (in_order, shuffled):
        batches = [make_batch(table, planned, batch_size=batch_size) for planned in plan]
        assert {batch.pixels_BHWC.shape for batch in batches} == {(batch_size, 2, 3, 1)}
        rows = np.concatenate([batch.example_ids_B for batch in batches])
        pixels = np.concatenate([batch.pixels_BHWC for batch in batches])
        labels = np.concatenate([batch.labels_B for batch in batches])
        assert sorted(rows[rows >= 0]) == list(range(count))
        np.testing.assert_array_equal(pixels[rows >= 0], table.pixels_NHWC[rows[rows >= 0]])
        np.testing.assert_array_equal(labels[rows >= 0], rows[rows >= 0] % 3)
        assert (pixels[rows < 0] == 0).all()


def test_a_batch_says_what_is_padding_and_what_has_a_label():
    table = image_table(5).without_labels(np.array([4]))
    batch = make_batch(table, PlannedBatch(np.array([4, 2], np.int32), 1), batch_size=3)
    np.testing.assert_array_equal(batch.example_ids_B, [4, 2, -1])
    np.testing.assert_array_equal(batch.where_B, [True, True, False])
    np.testing.assert_array_equal(batch.where_BT, [[True], [True], [False]])
    np.testing.assert_array_equal(batch.label_where_B, [False, True, False])
    np.testing.assert_array_equal(batch.labels_B, [0, 2, 0])
    np.testing.assert_array_equal(batch.input_ids_BT, [[0]] * 3)
    np.testing.assert_array_equal(batch.token_type_ids_BT, [[0]] * 3)
    there = {name: value for name, value in vars(batch).items() if value is not None}
    assert {name: str(value.dtype) for name, value in there.items()} == {
        "example_ids_B": "int32",
        "input_ids_BT": "int32",
        "token_type_ids_BT": "int32",
        "where_BT": "bool",
        "labels_B": "int32",
        "label_where_B": "bool",
        "pixels_BHWC": "float32",
    }


def test_an_image_in_a_longer_batch_is_one_token():
    batch = image_table(2).batch(np.array([1]), 4, 2)
    assert batch.input_ids_BT.shape == (2, 4)
    np.testing.assert_array_equal(batch.where_BT, [[True, False, False, False], [False] * 4])


@given(st.lists(st.integers(0, 9), unique=True, max_size=10))
def test_take_is_indexing_by_rows(picked):
    table = image_table(10, scores=True)
    part = table.take(np.array(picked, np.int64))
    assert part.ids == tuple(f"e{n}" for n in picked) and len(part) == len(picked)
    np.testing.assert_array_equal(part.pixels_NHWC, table.pixels_NHWC[picked])
    np.testing.assert_array_equal(part.labels_N, table.labels_N[picked])
    np.testing.assert_array_equal(part.scores_N, np.array(picked, np.float32))
    assert part.lengths_N.tolist() == [1] * len(picked) and part.lengths_N.dtype == np.int64


def test_other_labels_leave_the_table_as_it_was():
    table = image_table(6)
    noisy = table.with_labels(np.full(6, 2))
    hidden = table.without_labels(np.array([0, 3]))
    assert table.labels_N.tolist() == [0, 1, 2, 0, 1, 2]
    assert noisy.labels_N.tolist() == [2] * 6 and noisy.labels_N.dtype == np.int32
    assert hidden.labels_N.tolist() == [-1, 1, 2, -1, 1, 2]
    assert noisy.ids == table.ids
    with pytest.raises(ValueError, match="labels of shape"):
        table.with_labels(np.zeros(5, np.int32))


@pytest.mark.parametrize("column", ["ids", "pixels_NHWC", "labels_N", "scores_N"])
def test_the_digest_depends_on_every_column(column):
    table = image_table(4, scores=True)
    changed = getattr(table, column)[::-1]
    changed = changed if column == "ids" else changed.copy()
    other = dataclasses.replace(table, **{column: changed})
    assert other.digest != table.digest == image_table(4, scores=True).digest


def test_subsets_are_chosen_as_of_text():
    assert len(labelled_rows(image_table(30), 0.2)) == 6


def test_the_data_set_s_digest_is_of_its_content():
    splits = {"train": image_table(4), "test": image_table(2)}
    one = ImageDataset("a", ("x", "y", "z"), splits)
    assert one.digest == ImageDataset("b", ("x", "y", "z"), splits).digest
    assert one.digest != ImageDataset("a", ("z", "y", "x"), splits).digest
    assert (
        one.digest != ImageDataset("a", ("x", "y", "z"), {**splits, "test": image_table(3)}).digest
    )


def test_columns_that_do_not_fit_are_refused():
    table = image_table(3)
    with pytest.raises(ValueError, match="float32"):
        dataclasses.replace(table, pixels_NHWC=table.pixels_NHWC.astype(np.float64))
    with pytest.raises(ValueError, match="labels_N has 2 entries for 3 ids"):
        dataclasses.replace(table, labels_N=table.labels_N[:2])
    with pytest.raises(ValueError, match="not unique"):
        dataclasses.replace(table, ids=("a", "b", "a"))
    with pytest.raises(ValueError, match="length 1, not 0"):
        table.batch(np.array([0]), 0, 1)
