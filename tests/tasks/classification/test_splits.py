"""What a table is trained on: labels where they may be used, nowhere else."""

import numpy as np
import pytest
from padding import padding_fraction

from distill_jax.data.plan import plan_epoch
from distill_jax.tasks.classification.cells import DataConfig, TrainingConfig
from distill_jax.tasks.classification.splits import prepare_images, prepare_texts


@pytest.fixture(scope="module")
def task(review_dataset, minilm_folder):
    return prepare_texts(
        DataConfig("review_snippets/movie", label_fraction=0.1),
        review_dataset("movie"),
        minilm_folder / "tokenizer.json",
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
    shape_lengths = task.training_lengths(TrainingConfig(batch_size=64, max_shapes=16))
    plan = plan_epoch(lengths_N, shape_lengths, batch_size=64, seed=0, epoch=0)
    assert padding_fraction(lengths_N, plan, batch_size=64) <= 0.1


def test_the_few_lengths_are_few_and_cover_all_splits(task):
    assert task.few_lengths[-1] == task.training_lengths(TrainingConfig())[-1]
    assert 3 <= len(task.few_lengths) <= 5
    longest = max(table.lengths_N.max() for table in (task.everything, task.validation, task.test))
    assert task.few_lengths[-1] >= longest


def prepared(review_dataset, minilm_folder, **changes):
    config = DataConfig("review_snippets/movie", **changes)
    return prepare_texts(config, review_dataset("movie"), minilm_folder / "tokenizer.json")


def test_more_texts_join_the_transfer_set_and_nothing_else(
    task, review_dataset, minilm_folder, shared_home, monkeypatch
):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(shared_home))
    more = ("review_snippets/product",)
    wider = prepared(review_dataset, minilm_folder, label_fraction=0.1, more_texts=more)
    assert len(wider.everything) > len(task.everything)
    assert wider.labelled.ids == task.labelled.ids
    assert (wider.labelled.tokens_S == task.labelled.tokens_S).all()
    assert (wider.labelled.labels_N == task.labelled.labels_N).all()
    assert set(task.everything.ids) < set(wider.everything.ids)
    assert (wider.everything.labels_N[len(task.everything) :] == -1).all()
    assert wider.labels_digest == task.labels_digest  # the same teacher serves both
    assert wider.digest != task.digest
    assert wider.few_lengths == task.few_lengths

    alone = prepared(
        review_dataset, minilm_folder, label_fraction=0.1, more_texts=more, transfer="none"
    )
    assert len(alone.everything) == len(wider.everything) - len(task.everything) + len(
        task.labelled
    )


def test_without_a_transfer_set_only_the_labelled_are_left(task, review_dataset, minilm_folder):
    none = prepared(review_dataset, minilm_folder, label_fraction=0.1, transfer="none")
    assert none.everything.digest == none.labelled.digest == task.labelled.digest
    whole = {"label_fraction": 1.0}
    rest = prepared(review_dataset, minilm_folder, **whole)
    assert prepared(review_dataset, minilm_folder, **whole, transfer="none").digest == rest.digest


def test_digits_with_wrong_labels():
    clean = prepare_images(DataConfig("digits", label_fraction=1.0))
    noisy = prepare_images(DataConfig("digits", label_fraction=1.0, label_noise=0.4))
    wrong_N = clean.labelled.labels_N != noisy.labelled.labels_N
    assert 0.35 < wrong_N.mean() < 0.45
    assert (clean.test.labels_N == noisy.test.labels_N).all()
    assert (clean.validation.labels_N == noisy.validation.labels_N).all()
    assert clean.labels_digest != noisy.labels_digest
    assert clean.tokens_digest == noisy.tokens_digest


def test_another_draw_of_labels_is_of_the_same_sentences(task, review_dataset, minilm_folder):
    other = prepared(review_dataset, minilm_folder, label_fraction=0.1, label_seed=1)
    assert len(other.labelled) == len(task.labelled)
    assert other.everything.ids == task.everything.ids
    shared = set(other.labelled.ids) & set(task.labelled.ids)
    assert len(shared) < 0.2 * len(task.labelled)  # a tenth by chance
    assert other.labels_digest != task.labels_digest and other.digest != task.digest
    assert other.tokens_digest == task.tokens_digest


def test_where_no_label_is_drawn_its_seed_does_not_count():
    def digits(seed, **changes):
        return prepare_images(DataConfig("digits", label_fraction=1.0, label_seed=seed, **changes))

    whole, again = digits(0), digits(1)
    assert (whole.labels_digest, whole.digest) == (again.labels_digest, again.digest)
    one, other = digits(0, label_noise=0.2), digits(1, label_noise=0.2)
    assert one.labels_digest != other.labels_digest
    wrong_N, others_N = (t.labelled.labels_N != whole.labelled.labels_N for t in (one, other))
    assert abs(wrong_N.mean() - others_N.mean()) < 0.05 and (wrong_N != others_N).any()
