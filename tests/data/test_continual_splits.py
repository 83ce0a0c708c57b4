"""Two periods, and witnesses whom nobody trains on."""

import dataclasses

import numpy as np
import pytest
from recsys import small_split

from distill_jax.core.errors import UserError
from distill_jax.data.continual_splits import ContinualRule, continual_split
from distill_jax.data.histories import HistoryTable


@pytest.fixture(scope="module")
def data():
    data = small_split(num_users=80, num_items=20).data
    starts = np.random.default_rng(1).random(data.num_users)
    times = [starts[u] + 0.05 * np.arange(n) for u, n in enumerate(data.lengths_U)]
    return dataclasses.replace(data, times_N=np.concatenate(times))


@pytest.fixture(scope="module")
def split(data):
    return continual_split(data, ContinualRule(old=0.6, witnesses=0.4, targets=3))


def test_nothing_of_a_witness_is_trained_on(data, split):
    asked = np.unique(np.concatenate([c.users_E for c in (*split.selection, split.old, split.new)]))
    for part in (split.before(), split.after(), split.update()):
        trained = np.flatnonzero(part.train_ends_U > data.offsets_U1[:-1])
        assert not set(trained) & set(asked)
        assert len(trained) > 10
    chosen = np.concatenate([c.users_E for c in split.selection])
    assert not set(chosen) & {*split.old.users_E, *split.new.users_E}


def test_the_moment_divides_training_and_cases(data, split):
    moment = np.sort(data.times_N)[int(0.6 * len(data))]
    learned = split.before().train_where_N
    assert (data.times_N[learned] < moment).all()
    assert (data.times_N[split.old.ends_E] < moment).all()
    assert (data.times_N[split.new.ends_E] >= moment).all()
    # Everything of the others is learned in the end.
    witnesses = split.new_ends_U == data.offsets_U1[:-1]
    everything = split.after().train_where_N
    np.testing.assert_array_equal(everything, ~witnesses[data.users_N])


def test_the_last_targets_of_a_period_are_asked_for(data, split):
    for cases in (split.old, split.new):
        assert np.unique(cases.users_E, return_counts=True)[1].max() <= 3
        assert (cases.ends_E > data.offsets_U1[cases.users_E]).all()  # there is a history
        assert (np.diff(cases.users_E) >= 0).all()


def test_an_update_learns_from_the_new_and_the_rehearsed(data, split):
    alone = HistoryTable(split.update(), "next", 10).users_R
    assert split.grown_U[alone].all()
    rehearsed = split.rehearsed(5, seed=3)
    assert rehearsed.sum() == 5 and not (rehearsed & split.grown_U).any()
    np.testing.assert_array_equal(rehearsed, split.rehearsed(5, seed=3))
    assert (rehearsed != split.rehearsed(5, seed=4)).any()
    with_them = HistoryTable(split.update(rehearsed), "next", 10).users_R
    assert set(alone) < set(with_them)
    assert split.rehearsed(10_000, 0).sum() < data.num_users


def test_what_cannot_be_divided_is_told(data):
    with pytest.raises(UserError, match="has no times"):
        continual_split(dataclasses.replace(data, times_N=None), ContinualRule())
    with pytest.raises(UserError, match="no witness has an item"):
        continual_split(data, ContinualRule(witnesses=1e-6))
    with pytest.raises(UserError, match="shares between 0 and 1"):
        ContinualRule(old=1.0)
