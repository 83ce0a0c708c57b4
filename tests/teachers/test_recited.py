"""What was said elsewhere is found by the rows of a batch."""

import numpy as np

from distill_jax.data.plan import PlannedBatch, make_batch
from distill_jax.teachers.placebo import Placebo
from distill_jax.teachers.recited import Recited


def batch_of(table, rows, size=6):
    length = int(table.lengths_N[rows].max())
    return make_batch(table, PlannedBatch(np.asarray(rows), length), batch_size=size)


def test_each_row_gets_its_own_words_and_padding_none(toy_table):
    logits_NC = np.arange(2 * len(toy_table), dtype=np.float32).reshape(-1, 2)
    said = Recited(logits_NC, np.ones(len(toy_table), bool))(batch_of(toy_table, [9, 3, 11]))
    np.testing.assert_array_equal(said.logits_BC[:3], logits_NC[[9, 3, 11]])
    np.testing.assert_array_equal(said.logits_BC[3:], 0)
    assert said.heard_B is None


def test_where_nothing_was_said_nobody_listens(toy_table):
    heard_N = np.arange(len(toy_table)) % 2 == 0
    logits_NC = np.ones((len(toy_table), 2), np.float32)
    said = Recited(logits_NC, heard_N)(batch_of(toy_table, [4, 5, 8]))
    assert said.heard_B.tolist() == [True, False, True, False, False, False]


def test_a_placebo_is_silent_where_the_other_example_is(toy_table):
    count = len(toy_table)
    heard_N = np.arange(count) < 10
    order_N = np.roll(np.arange(count), -1)  # each is told of the next
    recited = Recited(np.ones((count, 2), np.float32), heard_N)
    said = Placebo(recited, toy_table, order_N)(batch_of(toy_table, [8, 9]))
    assert said.heard_B[:2].tolist() == [True, False]
