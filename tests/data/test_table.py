import dataclasses

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.data.table import TextDataset, TextTable, fold, label_array

TABLE = TextTable(
    ids=("a", "b"),
    texts=("one", "two"),
    texts_b=("eins", "zwei"),
    labels_N=np.array([0, 1], np.int32),
    scores_N=np.array([-1.0, 2.0], np.float32),
)


@pytest.mark.parametrize(
    "change",
    [
        {"ids": ("a", "c")},
        {"texts": ("one", "deux")},
        {"texts_b": None},
        {"labels_N": np.array([1, 1], np.int32)},
        {"scores_N": np.array([-1.0, 2.5], np.float32)},
    ],
)
def test_every_column_enters_the_digest(change):
    assert dataclasses.replace(TABLE, **change).digest != TABLE.digest
    assert dataclasses.replace(TABLE).digest == TABLE.digest


def test_columns_of_different_lengths_and_repeated_ids_are_refused():
    with pytest.raises(ValueError, match="texts has 1 entries for 2 ids"):
        dataclasses.replace(TABLE, texts=("one",))
    with pytest.raises(ValueError, match="not unique"):
        dataclasses.replace(TABLE, ids=("a", "a"))


def test_a_data_set_digest_is_of_the_content_and_not_of_the_name():
    dataset = TextDataset("d", ("n", "p"), {"train": TABLE})
    assert TextDataset("e", ("n", "p"), {"train": TABLE}).digest == dataset.digest
    assert TextDataset("d", ("p", "n"), {"train": TABLE}).digest != dataset.digest
    assert TextDataset("d", ("n", "p"), {"test": TABLE}).digest != dataset.digest


def test_an_empty_split_is_reported():
    with pytest.raises(UserError, match="data 'd': the test split is empty"):
        TextDataset("d", ("n", "p"), {"train": TABLE, "test": TextTable(ids=(), texts=())})


def test_label_array():
    labels_N = label_array(["p", None, "n"], ("n", "p"))
    assert labels_N.dtype == np.int32 and labels_N.tolist() == [1, -1, 0]


def test_fold():
    assert fold("  Great\tPLAYER ") == fold("great player") != fold("great players")
