import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.data.subsets import labelled_rows
from distill_jax.data.table import TextTable


def table_of(labels):
    ids = tuple(f"e{i}" for i in range(len(labels)))
    return TextTable(ids=ids, texts=ids, labels_N=np.array(labels, np.int32))


labels = st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=300)


@given(labels, st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_smaller_fraction_is_a_subset(labels, one, other):
    table = table_of(labels)
    small, large = sorted([one, other])
    assert set(labelled_rows(table, small)) <= set(labelled_rows(table, large))


@given(labels, st.floats(0.01, 1))
def test_every_class_keeps_its_share(labels, fraction):
    table = table_of(labels)
    rows = labelled_rows(table, fraction)
    for label in set(labels):
        count = labels.count(label)
        assert (table.labels_N[rows] == label).sum() == max(1, round(fraction * count))


@given(labels, st.floats(0.01, 1))
def test_the_choice_depends_on_the_ids_and_not_on_the_order(labels, fraction):
    table = table_of(labels)
    turned = TextTable(table.ids[::-1], table.texts[::-1], None, table.labels_N[::-1])
    chosen = {table.ids[row] for row in labelled_rows(table, fraction)}
    assert chosen == {turned.ids[row] for row in labelled_rows(turned, fraction)}


def test_another_salt_is_another_choice():
    table = table_of([0, 1] * 100)
    assert list(labelled_rows(table, 0.1)) != list(labelled_rows(table, 0.1, salt="other"))


def test_rows_without_labels_are_never_taken():
    table = table_of([-1, 0, -1, 1, -1])
    assert labelled_rows(table, 1.0).tolist() == [1, 3]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_fractions_outside_the_interval_are_refused(fraction):
    with pytest.raises(UserError, match=r"outside \(0, 1\]"):
        labelled_rows(table_of([0, 1]), fraction)


def test_a_split_without_labels_is_refused():
    with pytest.raises(UserError, match="no labelled example"):
        labelled_rows(table_of([-1, -1]), 0.5)
    with pytest.raises(UserError, match="no labelled example"):
        labelled_rows(TextTable(ids=("a",), texts=("a",)), 0.5)
