"""A batch is a pure function of its step."""

import numpy as np

from distill_jax.data.plan import choose_lengths, plan_epoch
from distill_jax.training.feed import Feed


def feed_of(table, seed):
    return Feed(table, choose_lengths(table.lengths_N), 8, seed)


def test_batches_depend_on_seed_and_step_alone(toy_table):
    forward, backward = feed_of(toy_table, 3), feed_of(toy_table, 3)
    ahead = [batch for batch, _ in forward.read(0, 14)]
    for step in reversed(range(14)):
        np.testing.assert_array_equal(backward(step)[0].example_ids_B, ahead[step].example_ids_B)
    tail = [batch for batch, _ in feed_of(toy_table, 3).read(9, 14)]
    for one, other in zip(tail, ahead[9:], strict=True):
        np.testing.assert_array_equal(one.input_ids_BT, other.input_ids_BT)


def test_an_epoch_holds_every_example_once_and_epochs_and_seeds_differ(toy_table):
    feed = feed_of(toy_table, 3)

    def order(some_feed, epoch):
        steps = range(epoch * some_feed.steps_per_epoch, (epoch + 1) * some_feed.steps_per_epoch)
        ids = np.concatenate([some_feed(step)[0].example_ids_B for step in steps])
        return ids[ids >= 0].tolist()

    assert sorted(order(feed, 0)) == sorted(order(feed, 1)) == list(range(len(toy_table)))
    assert order(feed, 0) != order(feed, 1)
    assert order(feed, 0) != order(feed_of(toy_table, 4), 0)


def test_a_step_of_each_shape_is_found_without_planning_what_comes_later(toy_table, monkeypatch):
    feed, epochs = feed_of(toy_table, 3), []

    def planning(*args, **settings):
        epochs.append(settings["epoch"])
        return plan_epoch(*args, **settings)

    monkeypatch.setattr("distill_jax.training.feed.plan_epoch", planning)
    found = feed.of_each_shape(0, 10**9)
    assert sorted(batch.input_ids_BT.shape[1] for _, batch, _ in found) == [*feed.shape_lengths]
    assert len(set(epochs)) < 10
    for step, batch, _ in found:
        np.testing.assert_array_equal(feed(step)[0].input_ids_BT, batch.input_ids_BT)
    assert [step for step, _, _ in feed.of_each_shape(5, 6)] == [5]
