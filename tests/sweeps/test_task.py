"""What a table is trained on: labels where they may be used, nowhere else."""

import numpy as np
import pytest

from distill_jax.data.plan import padding_fraction, plan_epoch
from distill_jax.sweeps.cells import DataConfig
from distill_jax.sweeps.task import prepare_task


@pytest.fixture(scope="module")
def task(review_dataset, minilm_folder):
    return prepare_task(
        DataConfig("review_snippets/movie", label_fraction=0.1),
        review_dataset("movie"),
        minilm_folder / "tokenizer.json",
        batch_size=64,
        max_shapes=16,
    )


def test_a_tenth_of_the_labels_and_all_sentences(task):
    assert len(task.labelled) == 850
    assert len(task.everything) == 8497
    assert (task.labelled.labels_N >= 0).all()
    labelled = {
        i for i, y in zip(task.everything.ids, task.everything.labels_N, strict=True) if y >= 0
    }
    assert labelled == set(task.labelled.ids)
    assert task.training_table(with_teacher=False) is task.labelled


def test_splits_share_no_example_and_no_text(task):
    train = {row.tobytes() for row in rows_of(task.everything)}
    for table in (task.validation, task.test):
        assert not set(table.ids) & set(task.everything.ids)
        assert not {row.tobytes() for row in rows_of(table)} & train
        assert (table.labels_N >= 0).all()


def rows_of(table):
    return np.split(table.tokens_S, table.offsets_N1[1:-1])


def test_at_most_a_tenth_of_an_epoch_is_padding(task):
    lengths_N = task.everything.lengths_N
    plan = plan_epoch(lengths_N, task.shape_lengths, batch_size=64, seed=0, epoch=0)
    assert padding_fraction(lengths_N, plan, batch_size=64) <= 0.1


def test_the_few_lengths_are_few_and_cover_all_splits(task):
    assert task.few_lengths[-1] == task.shape_lengths[-1]
    assert 3 <= len(task.few_lengths) <= 5
    longest = max(table.lengths_N.max() for table in (task.everything, task.validation, task.test))
    assert task.few_lengths[-1] >= longest
