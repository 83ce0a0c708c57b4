"""Images moved by chance: as far as was said, anew in every epoch, the same wherever they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.data.images import ImageTable
from distill_jax.data.jitter import Jitter, moved

COUNT, SIZE, MOST = 300, 9, 2


@pytest.fixture(scope="module")
def table():
    """Each image is one bright pixel in the middle."""
    pixels = np.zeros((COUNT, SIZE, SIZE, 1), np.float32)
    pixels[:, SIZE // 2, SIZE // 2] = 1
    return ImageTable(tuple(f"e{n}" for n in range(COUNT)), np.zeros(COUNT, np.int32), pixels)


def shifts(batch):
    """How far each image's pixel is from the middle: [B, 2]."""
    pixels = batch.pixels_BHWC[..., 0]
    assert (pixels.sum(axis=(1, 2)) == 1).all()
    places = np.stack(np.unravel_index(pixels.reshape(len(pixels), -1).argmax(1), (SIZE, SIZE)), 1)
    return places - SIZE // 2


def whole(table, rows=None):
    rows = np.arange(len(table)) if rows is None else rows
    return table.batch(rows, 1, len(rows))


def test_every_shift_comes_about_as_often(table):
    jitter = Jitter(table, MOST, 10)
    found = np.concatenate([shifts(jitter(whole(table), 0, 10 * epoch)) for epoch in range(10)])
    for axis in (0, 1):
        counts = np.bincount(found[:, axis] + MOST, minlength=5)
        assert len(counts) == 5 and (abs(counts - 600) < 100).all()
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.1


def test_it_is_a_function_of_example_seed_and_epoch(table):
    jitter = Jitter(table, MOST, 10)
    one = shifts(jitter(whole(table), 0, 3))
    np.testing.assert_array_equal(one, shifts(jitter(whole(table), 0, 9)))  # of the same epoch
    assert (one != shifts(jitter(whole(table), 0, 10))).any()
    assert (one != shifts(jitter(whole(table), 1, 3))).any()
    rows = np.array([200, 7, 30])
    np.testing.assert_array_equal(one[rows], shifts(jitter(whole(table, rows), 0, 3)))
    fewer = table.take(rows)
    np.testing.assert_array_equal(one[rows], shifts(Jitter(fewer, MOST, 10)(whole(fewer), 0, 3)))


def test_nothing_else_of_the_batch_changes(table):
    batch = table.batch(np.array([1, 2]), 1, 4)
    found = Jitter(table, MOST, 10)(batch, 0, 0)
    assert found.pixels_BHWC.dtype == np.float32 and found.pixels_BHWC.shape == (4, SIZE, SIZE, 1)
    assert (found.pixels_BHWC[2:] == 0).all()  # padding
    for name in ("example_ids_B", "labels_B", "where_BT"):
        np.testing.assert_array_equal(getattr(found, name), getattr(batch, name))


@given(st.integers(-7, 7), st.integers(-7, 7))
def test_moving_equals_padding_and_cutting(down, right):
    image = np.random.default_rng(0).random((1, 5, 6, 2), np.float32)
    wide = np.pad(image, ((0, 0), (8, 8), (8, 8), (0, 0)))
    expected = wide[:, 8 - down : 13 - down, 8 - right : 14 - right]
    np.testing.assert_array_equal(moved(image, np.array([down]), np.array([right])), expected)
