"""Labels dealt to clients: nothing twice, nothing lost, alike or skewed."""

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.clients import rows_of_client
from distill_jax.data.table import TextTable


@pytest.fixture
def table():
    labels_N = np.arange(120, dtype=np.int32) % 3
    ids = tuple(f"example-{n}" for n in range(120))
    return TextTable(ids, ids, labels_N=labels_N)


def parts(table, rows, count=3, alpha=0.0, seed=0):
    return [
        rows_of_client(table, rows, (number + 1, count), alpha, seed=seed)
        for number in range(count)
    ]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 100.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_example_has_one_client(table, alpha, seed):
    rows = np.arange(0, 120, 2)
    dealt = parts(table, rows, alpha=alpha, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate(dealt)), rows)
    assert all((np.diff(part) > 0).all() for part in dealt)


def test_alike_they_have_the_same_of_each_class(table):
    for part in parts(table, np.arange(120)):
        counts = np.bincount(table.labels_N[part])
        assert counts.min() >= 13 and counts.max() <= 14


def test_skewed_they_have_not_and_less_so_the_larger_the_concentration(table):
    def spread(alpha):
        dealt = parts(table, np.arange(120), alpha=alpha)
        return np.std([np.bincount(table.labels_N[part], minlength=3) for part in dealt])

    assert spread(0.5) > 5 > spread(1000.0)


def test_another_seed_is_another_draw(table):
    one, two = (parts(table, np.arange(120), seed=seed)[0] for seed in (0, 1))
    assert set(one) != set(two)


def test_a_client_of_one_class_is_refused(table):
    rows = np.flatnonzero(table.labels_N == 0)
    with pytest.raises(UserError, match=r"client 2/3 has labels of one class at most"):
        rows_of_client(table, rows, (2, 3), 0.0)
